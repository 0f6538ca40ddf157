"""Run a learner in a separate process: ``python -m fdeploy_runtime.hosts.check``.

    --model-dir DIR   the learner, its definitions, and with --check the whole bundle
    --runtime JSON    the manifest's ``runtime`` section
    --texts FILE      a JSON list of texts to answer; with --check, the bundle's goldens
    --answers FILE    where to write the answers: {"answers": [[...], ...], "python": "3.11.7"}

Exit codes: 0 the texts were answered; 3 the learner did not load or failed on a text (see stderr).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import traceback
from pathlib import Path
from typing import Any, Dict, List, Optional

from .. import hardware
from ..bundle import ModelError
from ..learner_predictor import Ask, open_learner
from ..loading import load

EXIT_MODEL = 3


def main(arguments: Optional[List[str]] = None) -> int:
    """Answer the texts. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="fdeploy_runtime.hosts.check", allow_abbrev=False)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--runtime", type=json.loads, default={})
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    answered: Dict[str, Any] = {"python": platform.python_version()}
    try:
        if options.check:
            found = hardware.detect()
            answered["deviation"] = load(
                options.model_dir, found, found.cores, patience=math.inf
            ).deviation
        else:
            answered["answers"] = _answers(options)
    except ModelError as error:
        if error.__cause__ is not None:
            traceback.print_exception(
                type(error.__cause__), error.__cause__, error.__cause__.__traceback__
            )
        print(f"{error}", file=sys.stderr)  # noqa: T201  # read by the process that started this
        return EXIT_MODEL
    options.answers.write_text(json.dumps(answered), encoding="utf-8")
    return 0


def _answers(options: argparse.Namespace) -> List[List[float]]:
    ask = open_learner(options.model_dir, options.runtime)
    texts = json.loads(options.texts.read_text(encoding="utf-8"))
    return [_answer(ask, text, place) for place, text in enumerate(texts, start=1)]


def _answer(ask: Ask, text: str, place: int) -> List[float]:
    try:
        return ask(text)
    except Exception as error:
        raise ModelError(
            f"the learner fails on text {place}: {type(error).__name__}: {error}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())

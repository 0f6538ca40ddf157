"""Answer requests from a pipe, without a server: ``python -m fdeploy_runtime.batch_worker``.

    --model-dir DIR   the model
    --threads N       threads of the model
    --way NAME        the backend to use, which another worker has chosen; default: the fastest

Standard input has a request of the contract on each line, ``{"texts": [...], "top_k": 2}``.
Standard output has ``{"way": ..., "passed_over": [...]}`` when the model is ready, and then a line
for each request: the answers of the contract without their ``model``, which is the same for all.
What libraries print goes to standard error. The process ends with standard input.

Exit codes: 0 everything was answered; 3 the model cannot be served (see stderr).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO, List, Optional

from . import hardware
from .backends import leave_out_converter
from .bundle import ModelError
from .codec import read
from .contract import JSON, Model, RequestError, encode, render
from .golden_check import Predicting
from .hardware import freeze_gc
from .loading import load

EXIT_MODEL = 3
_STDOUT, _STDERR = 1, 2


def main(arguments: Optional[List[str]] = None) -> int:
    """Answer requests until standard input ends. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="fdeploy_runtime.batch_worker", allow_abbrev=False)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--way")
    options = parser.parse_args(arguments)
    # Ctrl-C reaches every process of a terminal; the parent decides, by closing standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_out_converter()
    try:
        with os.fdopen(os.dup(_STDOUT), "wb") as answers:
            os.dup2(_STDERR, _STDOUT)
            return _serve(options, answers)
    except BrokenPipeError:  # the parent is gone
        return 0


def _serve(options: argparse.Namespace, answers: BinaryIO) -> int:
    try:
        loaded = load(options.model_dir, hardware.detect(), options.threads, only=options.way)
    except ModelError as error:
        print(f"{error}", file=sys.stderr)  # noqa: T201  # read by the parent
        return EXIT_MODEL
    freeze_gc()
    _send({"way": loaded.way, "passed_over": list(loaded.skipped)}, answers)
    for line in sys.stdin.buffer:
        _send(answered(loaded.predictor, line), answers)
    return 0


def answered(predictor: Predicting, body: bytes) -> Any:
    """The answers to one request, in order; a request that is refused whole is one error."""
    try:
        parsed = read(body, JSON, predictor.encode)
    except RequestError as error:
        return error.body()
    ready = iter(predictor.predict_encoded(parsed.encoded))
    outcomes = [text if isinstance(text, RequestError) else next(ready) for text in parsed.texts]
    (request,) = parsed.requests
    answers = render(outcomes, request, Model("", "", predictor.bundle.threshold))
    for answer in answers:
        answer.pop("model", None)
    return answers


def _send(value: Any, stream: BinaryIO) -> None:
    stream.write(encode(value) + b"\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Runs the serving code in its own process, as the model server does."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastai_deploy import runtime
from fastai_deploy.environments import clean_environment
from fastai_deploy.errors import RuntimeUnproven

MODULE = "fdeploy_runtime.hosts.check"
_SECONDS = 1_800  # enough for the slowest import and a thousand texts
_SHOWN = 12
_KILLED = (
    "bytecode of another Python version crashes a process like this: set the version used for "
    "training with --python"
)


def ask_learner(
    python: Path, model: Path, section: Mapping[str, Any], texts: Sequence[str]
) -> list[tuple[float, ...]]:
    """Load the learner in folder ``model`` and return the probabilities of each text.

    ``section`` is the manifest's runtime section. Raises RuntimeUnproven, with the last lines of
    the process's output.
    """
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        asked = Path(folder) / "texts.json"
        asked.write_text(json.dumps(list(texts)), encoding="utf-8")
        options = ("--runtime", json.dumps(dict(section)), "--texts", str(asked))
        answered = _run(python, model, Path(folder), options)
    return [tuple(each) for each in answered["answers"]]


def check_bundle(python: Path, bundle: Path) -> float:
    """Load a bundle as the model server does and return the largest |Δprobability| of its goldens.

    Raises RuntimeUnproven.
    """
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        return float(_run(python, bundle, Path(folder), ("--check",))["deviation"])


def _run(python: Path, model: Path, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """Run the module with the shipped code on its path and a clean environment."""
    (folder / "fdeploy_runtime").symlink_to(Path(str(runtime.__file__)).parent)
    answers = folder / "answers.json"
    command = (
        *(str(python), "-m", MODULE),
        *("--model-dir", str(model), "--answers", str(answers), *options),
    )
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            timeout=_SECONDS,
            env={
                **clean_environment(),
                "PYTHONPATH": str(folder),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
    except subprocess.TimeoutExpired:
        raise RuntimeUnproven(
            f"the learner did not answer within {_SECONDS} s",
            hint="use fewer texts with --golden",
        ) from None
    if done.returncode != 0 or not answers.exists():
        lines = done.stderr.decode("utf-8", "replace").splitlines()[-_SHOWN:]
        shown = "\n".join(f"    {line[:300]}" for line in lines) or "    (it said nothing)"
        raise RuntimeUnproven(
            f"the learner does not work in a fresh process (status {done.returncode}); its last "
            f"lines:\n{shown}",
            hint=_KILLED
            if done.returncode < 0
            else "fix the cause in the last line, such as a class missing in --definitions, or a "
            "version in --requirements that differs from the one used for training",
        )
    found: dict[str, Any] = json.loads(answers.read_bytes())
    return found

"""The serving code in a process of its own, as the model server will run it."""

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
_SECONDS = 1_800  # of the slowest import and a thousand texts
_SHOWN = 12
_KILLED = (
    "bytecode of another Python ends a process so: name the version of the training with --python"
)


def ask_learner(
    python: Path, model: Path, section: Mapping[str, Any], texts: Sequence[str]
) -> list[tuple[float, ...]]:
    """Load the learner in the folder ``model`` and ask it texts; the probabilities of each.

    ``section`` is the manifest's on the runtime. Raises RuntimeUnproven, with the last lines of
    what the process said.
    """
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        asked = Path(folder) / "texts.json"
        asked.write_text(json.dumps(list(texts)), encoding="utf-8")
        options = ("--runtime", json.dumps(dict(section)), "--texts", str(asked))
        answered = _run(python, model, Path(folder), options)
    return [tuple(each) for each in answered["answers"]]


def check_bundle(python: Path, bundle: Path) -> float:
    """Open a whole bundle as the model server does, goldens and all; the largest |Δprobability|.

    Raises RuntimeUnproven.
    """
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        return float(_run(python, bundle, Path(folder), ("--check",))["deviation"])


def _run(python: Path, model: Path, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """Run the module with the shipped code on its path, and without the user's environment."""
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
            hint="bring fewer texts with --golden",
        ) from None
    if done.returncode != 0 or not answers.exists():
        lines = done.stderr.decode("utf-8", "replace").splitlines()[-_SHOWN:]
        shown = "\n".join(f"    {line[:300]}" for line in lines) or "    (it said nothing)"
        raise RuntimeUnproven(
            f"the learner does not work in a fresh process (status {done.returncode}); its last "
            f"lines:\n{shown}",
            hint=_KILLED
            if done.returncode < 0
            else "mend what the last line names: a class that --definitions lacks, or a version in "
            "--requirements that is not the one that the learner was trained with",
        )
    found: dict[str, Any] = json.loads(answers.read_bytes())
    return found

"""The real fastai 2, live and in the learner runtime: ``make test-learner-runtime`` runs this.

Needs an environment with fastai 2.8, transformers, ipykernel and nbclient beside fdeploy. Each step
prints what it saw and how long it took; the first that fails ends the run with status 1.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
TEXTS = [
    "the plot was good and the cast was fun",
    "the ending was dull",
    "was",
    "the film was GOOD",
]
SCRIPT = f"""
from fastai_deploy import export_learner
from train import make_learner
learn = make_learner()
bundle = export_learner(learn, "bundle/", goldens={TEXTS!r})
print(bundle.max_difference)
learn.fit(1)  # it goes on as before
"""
CALL = f"""
from fastai_deploy import export_learner
made = export_learner(make(Wrapper), 'from_notebook', goldens={TEXTS!r})
assert made.max_difference <= 1e-4, made
made.max_difference
"""
NOTEBOOK = ((HERE / "train.py").read_text(encoding="utf-8").partition("if __name__")[0], CALL)


def run(folder: Path, *command: str, fails: bool = False) -> str:
    """Run a command in the folder and return what it printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if (done.returncode != 0) != fails:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stderr if fails else done.stdout


def fdeploy(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Run fdeploy of this environment."""
    return run(folder, sys.executable, "-m", "fastai_deploy", *arguments, fails=fails)


def served(folder: Path) -> str:
    """Bring up what was exported, ask it, and take it down."""
    try:
        fdeploy(folder, "up")
        answer: dict[str, Any] = json.loads(fdeploy(folder, "invoke", TEXTS[1], "--json"))
        assert answer["label"] == "neg", answer
    finally:
        proof = fdeploy(folder, "teardown").splitlines()[-1]
    assert proof.endswith("none left"), proof
    return f"{answer['label']} {answer['score']:.4f}; {proof}"


def script(folder: Path) -> str:
    """export_learner in a plain script, then up."""
    (folder / "use.py").write_text(SCRIPT, encoding="utf-8")
    difference = run(folder, sys.executable, "use.py").split()[0]
    return f"max |Δp| {difference}; {served(folder)}"


def example(folder: Path) -> str:
    """examples/notebook as it is, by a real kernel."""
    source = HERE.parent.parent / "examples/notebook"
    own = folder / "example"
    own.mkdir()
    shutil.copy(source / "train.py", own)
    document = nbformat.read(source / "notebook.ipynb", as_version=4)
    client = NotebookClient(document, timeout=600, resources={"metadata": {"path": str(own)}})
    client.execute()
    return f"{len(document.cells)} cells"


def notebook(folder: Path) -> str:
    """export_learner in a notebook, whose classes are in ``__main__``, by a real kernel."""
    cells = [nbformat.v4.new_code_cell(source) for source in NOTEBOOK]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    shown = book.cells[-1].outputs[-1]["data"]["text/plain"]
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    shutil.rmtree(folder / ".fdeploy", ignore_errors=True)
    return f"max |Δp| {shown}; {served(folder)}"


def factory(folder: Path) -> str:
    """``fdeploy export module:function``."""
    record = json.loads(fdeploy(folder, "export", "train:make_learner", "--json"))
    assert record["proven"] > 0, record
    return f"{record['proven']} goldens by learn.predict, max |Δp| {record['max_difference']:.1e}"


def runtime_here(folder: Path) -> str:
    """The learner runtime with the versions of this environment."""
    error = fdeploy(folder, "export", "own_head.pkl", "--runtime", "learner", fails=True)
    assert "--trust-pickle" in error, error
    options = ("--runtime", "learner", "--trust-pickle")
    record = json.loads(fdeploy(folder, "export", "own_head.pkl", *options, "--json"))
    assert record["max_difference"] <= 1e-6, record
    return served(folder)


def runtime_elsewhere(folder: Path) -> str:
    """The same in an environment that fdeploy makes from pinned requirements."""
    # Another fastprogress than here; this one needs IPython, which it does not say.
    lines = (
        "fastai==2.8.12", "torch==2.13.0", "transformers==5.23.0", "fastprogress==1.1.5",
        "ipython==9.18.1",
    )  # fmt: skip
    (folder / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
    options = ("--runtime", "learner", "--trust-pickle", "--requirements", "requirements.txt")
    fdeploy(folder, "export", "own_head.pkl", *options)
    assert list((folder / ".fdeploy" / "environments").glob("*/complete"))
    return served(folder)


STEPS: tuple[Callable[[Path], str], ...] = (
    script, notebook, example, factory, runtime_here, runtime_elsewhere,
)  # fmt: skip


def main(names: list[str]) -> None:
    """Run the steps, or those that are named."""
    with tempfile.TemporaryDirectory(prefix="fdeploy-live-") as name:
        folder = Path(name)
        shutil.copyfile(HERE / "train.py", folder / "train.py")
        run(folder, sys.executable, "train.py")
        for step in STEPS:
            if not names or step.__name__ in names:
                began = time.monotonic()
                said = step(folder)
                print(f"{step.__name__}: {said} ({time.monotonic() - began:.0f} s)", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])

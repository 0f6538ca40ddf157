"""The notebook of the examples: its cells run in order, as a user's would.

fastai is not installed here, so ``train.py`` is replaced by one whose learner exports a real
learner's file and gives its recorded answers; everything after that is real. ``make
test-learner-runtime`` runs the notebook as it is, in a kernel.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT as REPOSITORY
from tests.docs.shell_blocks import ROOT
from tests.learner.files import CONVERTIBLE, goldens, learner

NOTEBOOK = ROOT / "examples/notebook/notebook.ipynb"
NAME = CONVERTIBLE[4]  # fastai 2.8
TRAIN = """\
import contextlib, json, shutil

class Recorded:
    def export(self, path):
        shutil.copyfile({file!r}, path)

    @contextlib.contextmanager
    def no_bar(self):
        yield

    def predict(self, text):
        return "", 0, json.loads({answers!r})[text]

def make_learner():
    return Recorded()
"""


def cells() -> list[str]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(each["source"]) for each in document["cells"] if each["cell_type"] == "code"]


def script(cell: str) -> str:
    """A cell as plain Python: ``!`` runs a command, and the last expression is displayed."""
    lines = [f"run({line[1:]!r})" if line.startswith("!") else line for line in cell.splitlines()]
    tree = ast.parse("\n".join(lines))
    if isinstance(tree.body[-1], ast.Expr) and not cell.startswith("!"):
        tree.body[-1].value = ast.Call(ast.Name("display", ast.Load()), [tree.body[-1].value], [])
    return ast.unparse(ast.fix_missing_locations(tree))


def test_its_cells_run(tmp_path: Path) -> None:
    known = {each.text: each.probabilities for each in goldens(NAME)}
    texts = [text for text in known if 0 < len(text) < 60 and text.isascii()][:4]
    (tmp_path / "train.py").write_text(
        TRAIN.format(file=str(learner(NAME)), answers=json.dumps(known)), encoding="utf-8"
    )
    source = "\n".join(map(script, cells()))
    for written, text in zip(
        ("the plot was good and the cast was fun", "the ending was dull", "the film was GOOD"),
        texts,
        strict=False,
    ):
        source = source.replace(repr(written), repr(text))
    source = source.replace("'was'", repr(texts[3]))
    head = (
        "import subprocess, sys\n"
        "def run(line):\n"
        "    words = [sys.executable, '-m', 'fastai_deploy', *line.split()[1:]]\n"
        "    subprocess.run(words, check=True)\n"
        "def display(value):\n"
        "    shown = getattr(value, '_repr_html_', None)\n"
        "    print(shown() if shown else repr(value), flush=True)\n"
    )
    (tmp_path / "cells.py").write_text(head + source, encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": REPOSITORY}
    environ.pop("CI", None)
    done = subprocess.run(
        [sys.executable, "cells.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        subprocess.run(
            [sys.executable, "-m", "fastai_deploy", "teardown"],
            cwd=tmp_path,
            env=environ,
            check=True,
        )
    assert done.returncode == 0, done.stderr
    assert "4 of 4 texts answered by the learner itself" in done.stdout
    assert "<code>fdeploy up</code>" in done.stdout
    assert "Answer(labels=" in done.stdout
    assert "none left" in done.stdout


def test_it_is_stored_without_output() -> None:
    """Output may hold paths and texts of the machine that ran it."""
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [each for each in document["cells"] if each["cell_type"] == "code"]
    assert all(each["outputs"] == [] and each["execution_count"] is None for each in code)

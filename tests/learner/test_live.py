"""A live learner becomes a bundle; a fake writes and answers what the real fastai learner would."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy import export_learner
from fastai_deploy.bundle import Bundle, read_bundle
from fastai_deploy.errors import DefinitionsError, GoldenError, NotALearner, UsageError
from fastai_deploy.learner.exported import ExportedLearner
from fastai_deploy.learner.live import run_factory
from fastai_deploy.progress import Event, Step, silent
from tests.conftest import Fdeploy
from tests.learner.files import CONVERTIBLE, LEARNERS, goldens, learner

NAME = CONVERTIBLE[4]  # fastai 2.8


class Live:
    """Exports the real learner's file and gives the real learner's answers."""

    def __init__(self) -> None:
        self.answers = {each.text: each.probabilities for each in goldens(NAME)}
        self.without_bar = 0

    def export(self, path: Path) -> None:
        shutil.copyfile(learner(NAME), path)

    @contextlib.contextmanager
    def no_bar(self) -> Iterator[None]:
        self.without_bar += 1
        yield

    def predict(self, text: str) -> tuple[str, int, tuple[float, ...]]:
        return "", 0, self.answers[text]


def test_its_own_answers_are_the_goldens(fdeploy: Fdeploy) -> None:
    live = Live()
    texts = [each.text for each in goldens(NAME)][:6]
    made = export_learner(live, fdeploy.folder / "bundle", goldens=texts)
    assert made.name == "bundle"
    assert made.max_difference <= 1e-5
    assert live.without_bar == len(texts)
    stored = json.loads((made.path / "goldens.json").read_bytes())["goldens"]
    assert [each["text"] for each in stored] == texts
    assert {each["source"] for each in stored} == {"learner"}
    assert (fdeploy.folder / "bundle-parity.html").exists()
    assert (made.texts, made.answered) == (len(texts), len(texts))
    assert made.report == fdeploy.folder / "bundle-parity.html"

    # In the same folder, the command finds it without a path.
    outcome = fdeploy.ok("export", "--json")
    assert "using the bundle bundle/" in outcome.stderr
    assert outcome.json["proven"] == len(texts)
    fdeploy.ok("package")
    for name in ("goldens.json", "manifest.json"):
        path = made.path / name
        path.write_bytes(path.read_bytes() + b"\n")
    assert fdeploy("package", "--json").error["code"] == "record-stale"
    error = fdeploy("export", "--json").error
    assert error["code"] == "file"
    assert "its SHA-256 differs" in error["message"]


def test_it_shows_itself(tmp_path: Path) -> None:
    live = Live()
    place = tmp_path / "my <b>bundle</b>"
    made = export_learner(live, place, goldens=[each.text for each in goldens(NAME)][:3])
    text = repr(made)
    assert [line.split()[0] for line in text.splitlines()] == [
        "bundle", "labels", "proven", "forms", "next",
    ]  # fmt: skip
    assert "3 of 3 texts answered by the learner itself" in text
    assert all(label in text for label in made.labels)
    assert f"fdeploy up '{place}'" in text
    page = made._repr_html_()
    assert "<b>" not in page
    assert "my &lt;b&gt;bundle&lt;/b&gt;" in page
    assert "<script" not in page
    assert replace(made, path=Path("bundle")).next_command == "fdeploy up"


def test_many_or_odd_labels_are_shown_in_short() -> None:
    labels = tuple(f"l{number}" for number in range(20))
    one = Bundle(Path("b"), "v", "b", "single-label", ("a\x1b[31m", *labels), 1e-9, "", 1)
    shown = ExportedLearner(
        **asdict(one), texts=2, answered=1, forms=("fp32",), unproven=("x",), report=Path("r")
    )
    text = repr(shown)
    assert "and 9 more" in text
    assert "\x1b" not in text
    assert "unproven x" in text


class Fixed(Live):
    """A learner in a file, with fixed answers to its texts; it fails on all others."""

    def __init__(self, file: Path, answers: dict[str, tuple[float, ...]]) -> None:
        super().__init__()
        self.file, self.answers = file, answers

    def export(self, path: Path) -> None:
        shutil.copyfile(self.file, path)


RAW = LEARNERS / "v2" / "losses" / "focal_raw.pkl"


def raw_scores() -> dict[str, tuple[float, ...]]:
    lines = RAW.with_suffix(".golden.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["text"]: tuple(row["probabilities"].values()) for row in rows}


def test_raw_scores_of_a_live_learner_become_probabilities(tmp_path: Path) -> None:
    """fastai's own FocalLoss has no activation, so ``learn.predict`` returns raw scores."""
    scores = raw_scores()
    made = export_learner(Fixed(RAW, scores), tmp_path / "bundle", goldens=list(scores))
    assert made.max_difference <= 1e-5
    stored = json.loads((made.path / "goldens.json").read_bytes())["goldens"]
    assert all(sum(each["probabilities"].values()) == pytest.approx(1) for each in stored)


def test_numbers_that_are_no_probabilities_are_those_of_learn_predict(tmp_path: Path) -> None:
    live = Fixed(learner(NAME), {"a film": (3.0, -1.0, 0.5)})
    with pytest.raises(GoldenError, match=r"^learn\.predict: a probability is not a number"):
        export_learner(live, tmp_path / "bundle", goldens=["a film"])


def test_a_live_learner_is_asked_what_its_file_does_not_prove(tmp_path: Path) -> None:
    plain = CONVERTIBLE[5]
    answers = {each.text: each.probabilities for each in goldens(plain) if len(each.text) < 400}
    live = Fixed(learner(plain), answers)
    made = export_learner(live, tmp_path / "bundle", goldens=list(answers))
    manifest, _ = read_bundle(made.path)
    assert manifest.unproven == ()
    assert any("too long: learn.predict fails" in each for each in manifest.residues)


class First:
    """The attributes of a learner of fastai 1."""

    data = None

    def export(self) -> None: ...


def test_an_object_that_is_not_a_learner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotALearner, match="but int"):
        export_learner(3, tmp_path / "bundle")
    with pytest.raises(UsageError, match="fastai 1"):
        export_learner(First(), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def factory(folder: Path, source: str) -> Any:
    name = f"train_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return f"{name}:make"


def test_a_function_is_run_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Event] = []
    spec = factory(tmp_path, "def make():\n    print('training')\n    return 'a learner'\n")
    assert run_factory(spec, tmp_path, told.append) == "a learner"
    assert isinstance(told[0], Step)
    assert f"running {spec}: your code runs" in told[0].message
    out, err = capsys.readouterr()
    assert (out, err) == ("", "training\n")
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def other(): ...\n", "has no function make"),
        ("make = 3\n", "has no function make"),
        ("import fastai_of_old\n", "cannot be imported"),
        ("def make():\n    return 1 / 0\n", "fails: ZeroDivisionError"),
    ],
)
def test_a_function_that_fails(tmp_path: Path, source: str, message: str) -> None:
    spec = factory(tmp_path, source)
    with pytest.raises(DefinitionsError, match=message) as caught:
        run_factory(spec, tmp_path, silent)
    assert caught.value.hint


def test_the_command_tells_a_function_from_a_file(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "train.py").write_text("def make():\n    return 3\n", encoding="utf-8")
    outcome = fdeploy("export", "train:make", "--json")
    assert outcome.error["code"] == "not-a-learner"
    assert "running train:make: your code runs" in outcome.stderr
    assert fdeploy("export", "train:make:more", "--json").error["code"] == "file-missing"

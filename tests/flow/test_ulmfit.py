"""ULMFiT learners that cannot be served, through the real command: the reason and the way out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.reading.graph import Global, attributes, walk
from fastai_deploy.learner.reading.tensors import Storage
from tests.conftest import Fdeploy
from tests.flow.learners import LEARNERS, ULMFIT
from tests.learner.assemble import assemble, torch_zip
from tests.learner.test_anatomy import objects, set_attribute

V1, V2 = ULMFIT
WAY_OUT = "fdeploy export learner.pkl --runtime learner --trust-pickle (with --definitions "


def changed(
    name: str,
    folder: Path,
    change: Callable[[Any], None],
    storage: Callable[[bytes], bytes] = lambda data: data,
) -> str:
    """Write a real learner with a change into a folder; return its file name."""
    with open_archive(LEARNERS / f"{name}.pkl") as (_, archive):
        root = archive.pickled.root
        change(root)
        storages = {
            value.key: storage(value.data.read(0, value.data.size))
            for value in walk(root)
            if isinstance(value, Storage) and value.data is not None
        }
        with room():
            (folder / "learner.pkl").write_bytes(torch_zip(assemble(root), storages))
    return "learner.pkl"


@contextmanager
def room() -> Iterator[None]:
    """Room for the test's own assembler, which recurses; the reader does not."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


def _more_words(root: Any) -> None:
    for numericalize in objects(root, "Numericalize"):
        attributes(numericalize)["vocab"].items.append("unheard-of")  # type: ignore[attr-defined]


def _no_labels(root: Any) -> None:
    for processor in objects(root, "CategoryProcessor"):
        processor.states.clear()


def _qrnn(root: Any) -> None:
    set_attribute(objects(root, "AWD_LSTM")[0], "qrnn", to=True)


def _sentencepiece(root: Any) -> None:
    for splitter in objects(root, "SpacyTokenizer"):
        splitter.func = Global("fastai.text.core", "SentencePieceTokenizer")


REFUSED: dict[str, tuple[str, Callable[[Any], None], str, str]] = {
    "a vocabulary that is not the embedding's": (
        V2, _more_words, "129 words, but its embedding has 128 rows", "export the learner again",
    ),
    "no labels": (V1, _no_labels, "has no labels", "export the learner again"),
    "QRNN": (V1, _qrnn, "QRNN", WAY_OUT),
    "SentencePiece": (V2, _sentencepiece, "SentencePiece", WAY_OUT),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_learner_that_cannot_be_served_says_why(fdeploy: Fdeploy, name: str) -> None:
    learner, change, message, hint = REFUSED[name]
    error = fdeploy("export", changed(learner, fdeploy.folder, change), "--json").error
    assert error["code"] == "unsupported-learner"
    assert message in error["message"]
    assert hint in error["hint"]


def test_weights_that_are_not_finite(fdeploy: Fdeploy) -> None:

    def spoil(data: bytes) -> bytes:
        return data if len(data) < 4_096 else b"\x00\x00\xc0\x7f" + data[4:]

    file = changed(V1, fdeploy.folder, lambda _root: None, spoil)
    error = fdeploy("export", file, "--json").error
    assert error["code"] == "unsupported-learner"
    assert "NaN or infinite" in error["message"]


def test_without_spacy_the_extra_is_named(fdeploy: Fdeploy) -> None:
    """In a Python without spaCy."""
    blocked = fdeploy.folder / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys; sys.modules['spacy'] = None\n")
    shutil.copyfile(LEARNERS / f"{V1}.pkl", fdeploy.folder / "learner.pkl")
    command = Fdeploy(fdeploy.folder, {"PYTHONPATH": str(blocked)})
    error = command("export", "learner.pkl", "--json").error
    assert error["code"] == "extra-missing"
    assert error["hint"] == "pip install 'fastai-deploy[ulmfit]'"


def test_inspect_says_what_it_did_not_find(fdeploy: Fdeploy) -> None:
    file = changed(V2, fdeploy.folder, _sentencepiece)
    assert "vocabulary not found; 128 in the embedding" in fdeploy.ok("inspect", file).stdout


@pytest.mark.parametrize("name", ULMFIT)
def test_inspect_tells_its_sizes_and_its_rules(fdeploy: Fdeploy, name: str) -> None:
    shown = fdeploy.ok("inspect", str(LEARNERS / f"{name}.pkl")).stdout
    assert "sizes      emb_sz 24, n_hid 48, n_layers 2" in shown
    assert "vocabulary 128 words; 128 in the embedding" in shown
    assert "splitter   spaCy (en)" in shown
    assert f"rule       fastai{name[1]}.replace_wrep" in shown
    assert "verdict    convertible" in shown

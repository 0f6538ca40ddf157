"""Answers computed here: the form that is served, float32 beside it, and unknown tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import FileError, ParityError
from fastai_deploy.evaluation.local_answers import Column, answers_of, unknown_tokens
from fastai_deploy.progress import Event, silent
from tests.packaged import pack
from tests.runtime.bundles import PANIC, TinyBundle, byte_level, panicking, write_bundle

TEXTS = ("a great film", "the plot is thin", "")


def answered(folder: Path, texts: tuple[str, ...] = TEXTS, *, float32: bool = True) -> list[Column]:
    environments = Environments(folder.parent / "environments", silent)
    return list(answers_of(folder, texts, environments, silent, version="0123", float32=float32))


def with_slow_float32(folder: Path) -> TinyBundle:
    """A bundle whose first form, called int8, is 300 matrices faster than float32.

    The matrices turn the hidden states, and turn them back.
    """
    bundle = write_bundle(folder, hidden=128)
    model = onnx.load(folder / "model.onnx")
    turn = bundle.weights.rotation.astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(turn, "turn"))
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(turn.T), "back"))
    nodes = list(model.graph.node)
    (place,) = (at for at, node in enumerate(nodes) if "hidden_0" in node.output)
    names = ["hidden_0", *(f"turned_{n}" for n in range(300))]
    added = [
        helper.make_node("MatMul", [names[n], "back" if n % 2 else "turn"], [names[n + 1]])
        for n in range(300)
    ]
    for node in nodes[place + 1 :]:
        for at, name in enumerate(node.input):
            if name == "hidden_0":
                node.input[at] = names[-1]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: place + 1], *added, *nodes[place + 1 :]])
    onnx.save(model, folder / "slow.onnx", save_as_external_data=True, location="slow.onnx.data")
    forms = [{"precision": precision, "file": file, "proven": True}
             for precision, file in (("int8", "model.onnx"), ("fp32", "slow.onnx"))]  # fmt: skip
    bundle.edit_model(forms=forms)
    bundle.list_files()
    pack(bundle, folder.with_suffix(".tar.gz"))  # adds what a whole manifest has
    return bundle


def test_float32_stands_beside_the_form_that_is_served(tmp_path: Path) -> None:
    bundle = with_slow_float32(tmp_path / "bundle")
    served, exact = answered(bundle.folder)
    assert (served.name, served.what) == ("served", "ONNX Runtime, int8")
    assert (exact.name, exact.what) == ("float32", "ONNX Runtime, fp32")
    for column in (served, exact):
        for text, answer in zip(TEXTS, column.answers, strict=True):
            assert answer is not None
            assert dict(answer.probabilities) == pytest.approx(bundle.expected(text), abs=1e-3)
            best = max(answer.probabilities, key=lambda name: answer.probabilities[name])
            assert answer.labels == (best,)
    assert len(answered(bundle.folder, float32=False)) == 1


def test_a_text_that_fails_has_an_error_and_its_neighbours_have_answers(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", tokenizer=panicking(), multi_label=True)
    pack(bundle, tmp_path / "artifact.tar.gz")
    (column,) = answered(bundle.folder, ("good", PANIC, "bad"))
    first, failed, last = column.answers
    assert first is not None
    assert failed is not None
    assert last is not None
    assert (first.error, last.error) == ("", "")
    assert failed.error.startswith("model_error: ")
    assert first.labels == tuple(n for n, p in bundle.expected("good").items() if p > 0.5)


def test_progress_is_reported(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    pack(bundle, tmp_path / "artifact.tar.gz")
    events: list[Event] = []
    environments = Environments(tmp_path / "environments", silent)
    texts = [f"text {place}" for place in range(300)]
    list(answers_of(bundle.folder, texts, environments, events.append, version=""))
    assert [getattr(event, "done", None) for event in events] == [128, 256, 300]


def test_a_model_that_does_not_reproduce_its_goldens_is_not_judged(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    pack(bundle, tmp_path / "artifact.tar.gz")
    wrong = {**bundle.golden("good"), "probabilities": {"negative": 1, "neutral": 0, "positive": 0}}
    bundle.write_goldens([wrong])
    with pytest.raises(ParityError, match="cannot be served"):
        answered(bundle.folder)
    with pytest.raises(FileError):
        answered(tmp_path / "nowhere")


def test_unknown_tokens(tmp_path: Path) -> None:
    pieces = write_bundle(tmp_path / "pieces")
    share = unknown_tokens(pieces.folder)
    assert share("a great film") == 0
    assert share("a \u4e2d film") == pytest.approx(1 / 5)  # with two special tokens
    wholes = write_bundle(tmp_path / "bytes", tokenizer=byte_level())
    assert unknown_tokens(wholes.folder)("a \u4e2d film") is None
    assert (
        unknown_tokens(write_bundle(tmp_path / "bad", tokenizer=panicking()).folder)(PANIC) is None
    )

"""int8: the graph, and the gate before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastai_deploy.errors import ParityError
from fastai_deploy.goldens import Golden
from fastai_deploy.learner.anatomy import examine
from fastai_deploy.learner.reading.archive import open_archive
from fastai_deploy.learner.rebuilding.precision import TOLERANCE, Choice, Int8, Served, choose
from fastai_deploy.learner.rebuilding.quantize import quantize
from fastai_deploy.learner.rebuilding.rebuilt import Rebuilt, rebuild_learner
from fastai_deploy.progress import Event, Warned
from tests.learner.files import CONVERTIBLE, learner

TEXTS = ("a great film", "no", "the plot is thin but I like it", "what a movie " * 20)


def write_graph(path: Path) -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((3_000, 32)).astype(np.float32)
    table[7] *= 50  # an outlier, which a scale for the whole table would make everybody pay for
    weights = random.standard_normal((32, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


def answers(path: Path, ids: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(onnxruntime.InferenceSession(path).run(None, {"ids": np.array(ids)})[0])


def test_tables_and_matrices_shrink_and_answer_alike(tmp_path: Path) -> None:
    source, made, again = (tmp_path / name for name in ("s.onnx", "m.onnx", "a.onnx"))
    write_graph(source)
    quantize(source, made)
    quantize(source, again)
    assert made.read_bytes() == again.read_bytes()
    assert made.stat().st_size < source.stat().st_size / 3
    ids = [1, 2, 3, 2_999]
    expected = answers(source, ids)
    assert np.abs(answers(made, ids) - expected).max() < 0.03 * np.abs(expected).max()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.onnx", "m.onnx", "s.onnx"]


def test_weights_keep_to_seven_bits(tmp_path: Path) -> None:
    write_graph(tmp_path / "s.onnx")
    quantize(tmp_path / "s.onnx", tmp_path / "m.onnx")
    tensors = {each.name: each for each in onnx.load(tmp_path / "m.onnx").graph.initializer}
    weights = numpy_helper.to_array(tensors["weights_quantized"]).astype(int)
    assert np.abs(weights).max() <= 64
    assert tensors["weights_scale"].dims == [8]
    assert tensors["table_row_scale"].dims == [3_000, 1]


@pytest.fixture
def rebuilt() -> Iterator[Rebuilt]:
    with open_archive(learner(CONVERTIBLE[2])) as (source, archive):
        yield rebuild_learner(examine(archive, source.size), ())


def decide(
    rebuilt: Rebuilt,
    folder: Path,
    choice: Choice,
    *,
    worthwhile: int,
    off: float = 0.0,
    tolerance: float | None = None,
) -> tuple[Served, list[Event]]:
    """The choice for goldens whose probabilities are ``off`` by so much."""
    graph = rebuilt.export(folder / "model.onnx")
    goldens = [
        Golden(text, (found[0] + off, *found[1:]), "rebuilt")
        for text, found in zip(TEXTS, rebuilt.answer(TEXTS), strict=True)
    ]
    events: list[Event] = []
    reference = Served(graph, "fp32", 1e-4, 0.0)
    wish = Int8(choice, tolerance)
    served = choose(rebuilt, reference, goldens, wish, events.append, worthwhile=worthwhile)
    return served, events


def test_auto_serves_int8_when_it_answers_alike(rebuilt: Rebuilt, tmp_path: Path) -> None:
    served, _ = decide(rebuilt, tmp_path, "auto", worthwhile=0)
    assert served.graph.path.name == "model.int8.onnx"
    assert (served.precision, served.tolerance) == ("int8", TOLERANCE)
    assert 0 < served.difference < TOLERANCE / 2


def test_auto_serves_float32_when_it_does_not_and_says_so(rebuilt: Rebuilt, tmp_path: Path) -> None:
    served, events = decide(rebuilt, tmp_path, "auto", worthwhile=0, off=2 * TOLERANCE)
    assert (served.precision, served.tolerance) == ("fp32", 1e-4)
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert "served in float32, because int8 is not good enough" in warned.message
    assert not (tmp_path / "model.int8.onnx").exists()


def test_int8_or_nothing(rebuilt: Rebuilt, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="the int8 model answers 4 of 4 texts differently"):
        decide(rebuilt, tmp_path, "int8", worthwhile=0, off=2 * TOLERANCE)
    assert not (tmp_path / "model.int8.onnx").exists()


@pytest.mark.parametrize(("choice", "worthwhile"), [("auto", 10**9), ("none", 0)])
def test_a_small_model_is_not_tried(
    rebuilt: Rebuilt, tmp_path: Path, choice: Choice, worthwhile: int
) -> None:
    served, events = decide(rebuilt, tmp_path, choice, worthwhile=worthwhile)
    assert (served.precision, events) == ("fp32", [])


def test_a_tolerance_that_is_stated_holds_for_int8(rebuilt: Rebuilt, tmp_path: Path) -> None:
    served, _ = decide(rebuilt, tmp_path, "auto", worthwhile=0, tolerance=1e-9)
    assert (served.precision, served.tolerance) == ("fp32", 1e-4)

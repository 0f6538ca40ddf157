"""int8: the quantized graph, and the gate that decides whether to serve it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from fastai_deploy.errors import ParityError, UnsupportedLearner
from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.rebuild.precision import TOLERANCE, Choice, Int8, Served, choose
from fastai_deploy.learner.rebuild.quantize import quantize
from fastai_deploy.learner.rebuild.rebuilt import Rebuilt, rebuild_learner
from fastai_deploy.parity.goldens import Golden
from fastai_deploy.progress import Event, Warned
from tests.learner.files import CONVERTIBLE, learner

TEXTS = ("a great film", "no", "the plot is thin but I like it", "what a movie " * 20)


def write_graph(path: Path) -> None:
    random = np.random.default_rng(0)
    table = random.standard_normal((3_000, 32)).astype(np.float32)
    table[7] *= 50  # an outlier; one scale for the whole table would make every row inaccurate
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


def test_tables_and_matrices_shrink_and_answer_the_same(tmp_path: Path) -> None:
    source, made, again = (tmp_path / name for name in ("s.onnx", "1/m.onnx", "2/m.onnx"))
    write_graph(source)
    quantize(source, made)
    quantize(source, again)
    files = {path.name: path.read_bytes() for path in made.parent.iterdir()}
    assert files == {path.name: path.read_bytes() for path in again.parent.iterdir()}
    assert files.keys() == {"m.onnx", "m.onnx.data"}
    assert sum(map(len, files.values())) < source.stat().st_size / 3
    ids = [1, 2, 3, 2_999]
    expected = answers(source, ids)
    assert np.abs(answers(made, ids) - expected).max() < 0.03 * np.abs(expected).max()


def test_weights_keep_to_seven_bits(tmp_path: Path) -> None:
    write_graph(tmp_path / "s.onnx")
    quantize(tmp_path / "s.onnx", tmp_path / "m.onnx")
    tensors = {each.name: each for each in onnx.load(tmp_path / "m.onnx").graph.initializer}
    weights = numpy_helper.to_array(tensors["weights_int8"]).astype(int)
    assert np.abs(weights).max() == 64
    assert tensors["weights_scale"].dims == [8]
    assert tensors["table_row_scale"].dims == [3_000, 1]


def write_transformer(path: Path) -> None:
    """Every kind of node that is quantized, and a product of two activations."""
    random = np.random.default_rng(1)
    shapes = {"qkv": (32, 96), "b": (96,), "up": (32, 64), "down": (32, 64), "c": (32,)}
    tensors = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node(
            "Attention", ["x", "qkv", "b"], ["a"], num_heads=2, domain="com.microsoft"
        ),
        helper.make_node("MatMul", ["a", "up"], ["u"]),
        helper.make_node("MatMul", ["a", "up"], ["again"]),
        helper.make_node("Add", ["u", "again"], ["sum"]),
        helper.make_node("Transpose", ["a"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "turned"], ["both"]),
        helper.make_node("ReduceMean", ["both"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["sum"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["pooled", "down", "c"], ["out"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", 32])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 32]),
         helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch"])],
        tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    onnx.save(model, path)


def test_it_answers_as_the_form_that_onnx_runtime_makes(tmp_path: Path) -> None:
    source, made, theirs = (tmp_path / name for name in ("s.onnx", "m.onnx", "t.onnx"))
    write_transformer(source)
    quantize(source, made)
    quantize_dynamic(
        source,
        theirs,
        op_types_to_quantize=["MatMul", "Attention", "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
    )
    x = np.random.default_rng(2).standard_normal((2, 7, 32)).astype(np.float32)
    ours, reference, plain = (
        onnxruntime.InferenceSession(path).run(None, {"x": x}) for path in (made, theirs, source)
    )
    for our, their, exact in zip(ours, reference, plain, strict=True):
        assert np.array_equal(our, their)
        assert 0 < np.abs(our - exact).max() < 0.1 * np.abs(exact).max()
    kinds = Counter(node.op_type for node in onnx.load(made).graph.node)
    assert (kinds["QAttention"], kinds["MatMulInteger"], kinds["DynamicQuantizeLinear"]) == (
        1,
        3,
        3,
    )
    assert (kinds["MatMul"], kinds["Gemm"]) == (1, 0)  # of two activations


def test_a_graph_without_weights_to_quantize_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph), tmp_path / "s.onnx")
    with pytest.raises(UnsupportedLearner, match="no weight matrices"):
        quantize(tmp_path / "s.onnx", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


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
    """The choice if the goldens' probabilities are off by ``off``."""
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


def test_auto_serves_int8_if_it_is_accurate(rebuilt: Rebuilt, tmp_path: Path) -> None:
    served, _ = decide(rebuilt, tmp_path, "auto", worthwhile=0)
    assert served.graph.path.name == "model.int8.onnx"
    assert (served.precision, served.tolerance) == ("int8", TOLERANCE)
    assert 0 < served.difference < TOLERANCE / 2


def test_auto_serves_float32_when_it_does_not_and_says_so(rebuilt: Rebuilt, tmp_path: Path) -> None:
    served, events = decide(rebuilt, tmp_path, "auto", worthwhile=0, off=2 * TOLERANCE)
    assert (served.precision, served.tolerance) == ("fp32", 1e-4)
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert "serving float32, because int8 is not accurate enough" in warned.message
    assert not list(tmp_path.glob("model.int8.*"))


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

"""The runtime's own reader of ONNX files, compared with the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastai_deploy.runtime.onnx_graph import read_graph
from tests.runtime.bundles import write_bundle


def test_a_graph_is_read_as_the_package_reads_it(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle").folder / "model.onnx"
    graph, expected = read_graph(path), onnx.load(str(path)).graph
    assert [each.operator for each in graph.nodes] == [each.op_type for each in expected.node]
    for ours, theirs in zip(graph.nodes, expected.node, strict=True):
        assert ours.inputs == tuple(theirs.input)
        assert ours.outputs == tuple(theirs.output)
        assert ours.attributes.keys() == {each.name for each in theirs.attribute}
    assert graph.outputs == tuple(each.name for each in expected.output)
    weights = {each.name: numpy_helper.to_array(each) for each in expected.initializer}
    assert graph.weights.keys() == weights.keys()
    for name, weight in weights.items():
        assert graph.weights[name].dtype == weight.dtype
        np.testing.assert_array_equal(graph.weights[name], weight)


ARRAYS = [
    np.arange(6).astype(kind).reshape(2, 3)
    for kind in (
        "float32",
        "float16",
        "float64",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    )
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_weights_of_every_kind(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    _write(tmp_path, weights=[numpy_helper.from_array(array, "w")])
    found = read_graph(tmp_path / "graph.onnx").weights["w"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.FLOAT, [0.5, -1.5]),
        (TensorProto.DOUBLE, [0.5, -1.5]),
        (TensorProto.INT64, [-1, 2**62]),
        (TensorProto.INT32, [-1, 7]),
        (TensorProto.BOOL, [1, 0]),
        (TensorProto.FLOAT16, [0.5, -1.5]),
        (TensorProto.UINT64, [0, 2**62]),
    ],
)
def test_numbers_that_are_not_raw(kind: int, values: list[float], tmp_path: Path) -> None:
    _write(tmp_path, weights=[helper.make_tensor("w", kind, [2, 1], values)])
    found = read_graph(tmp_path / "graph.onnx").weights["w"]
    assert found.shape == (2, 1)
    assert found.reshape(-1).tolist() == values


def test_attributes_of_every_kind(tmp_path: Path) -> None:
    attributes: dict[str, Any] = {
        "a": 1.5, "b": -3, "c": "text", "d": [0.5, 2.0], "e": [1, -2], "f": ["x", "y"],
        "g": numpy_helper.from_array(np.array([7], dtype=np.int64)), "h": 0, "i": 0.0,
    }  # fmt: skip
    _write(tmp_path, **attributes)
    found = dict(read_graph(tmp_path / "graph.onnx").nodes[0].attributes)
    assert found.pop("g").tolist() == [7]
    assert found == {name: value for name, value in attributes.items() if name != "g"}


@pytest.mark.parametrize(
    "content", [b"no graph at all", b"\x3a\xff\xff\xff\xff\x7f", b"\x00", b"\x3a\x00"]
)
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - whichever part of the reader says it
        read_graph(path)


def test_a_weight_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, weights=[TensorProto(name="w", data_type=TensorProto.STRING)])
    with pytest.raises(ValueError, match="'w' is of a type that is not read here"):
        read_graph(tmp_path / "graph.onnx")


def _write(folder: Path, weights: Sequence[Any] = (), **attributes: Any) -> None:
    node = helper.make_node("Any", ["w"], ["out"], **attributes)
    graph = helper.make_graph([node], "graph", [], [onnx.ValueInfoProto(name="out")], list(weights))
    onnx.save(helper.make_model(graph), str(folder / "graph.onnx"))

"""The runtime's own reader of ONNX files, compared with the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastai_deploy.runtime.onnx_graph import external_files, fields, read_graph
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
def test_files_without_a_graph_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - whichever part of the reader says it
        read_graph(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": "/etc/hostname"}, "weights are in '/etc/hostname'"),
        ({"location": "../graph.onnx.data"}, "weights are in"),
        ({"offset": "-1"}, "without offset and length"),
        ({"length": "-4"}, "without offset and length"),
        ({"offset": "x"}, "invalid literal"),
        ({"offset": "4096"}, "offset"),
        ({"length": "4096"}, "buffer"),
        ({"length": "4"}, "reshape"),
    ],
)
def test_weights_are_read_only_from_their_own_file(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    weight = np.arange(6, dtype=np.float32)
    (tmp_path / "graph.onnx.data").write_bytes(bytes(8) + weight.tobytes())
    sound = {"location": "graph.onnx.data", "offset": "8", "length": "24"}
    _write(tmp_path, weights=[_external("w", [6], sound)])
    np.testing.assert_array_equal(read_graph(tmp_path / "graph.onnx").weights["w"], weight)
    _write(tmp_path, weights=[_external("w", [6], {**sound, **changes})])
    with pytest.raises(ValueError, match=message):
        read_graph(tmp_path / "graph.onnx")


def test_data_outside_is_found_wherever_it_can_be(tmp_path: Path) -> None:
    places = iter(range(99))

    def tensor() -> TensorProto:
        return _external("w", [1], {"offset": "0", "location": f"file-{next(places)}"})

    def sparse() -> onnx.SparseTensorProto:
        return onnx.SparseTensorProto(values=tensor(), indices=tensor(), dims=[1])

    def node() -> onnx.NodeProto:
        made = helper.make_node("If", [], [])
        made.attribute.extend(
            [
                onnx.AttributeProto(name="t", t=tensor()),
                onnx.AttributeProto(name="ts", tensors=[tensor(), tensor()]),
                onnx.AttributeProto(name="s", sparse_tensor=sparse()),
                onnx.AttributeProto(name="ss", sparse_tensors=[sparse()]),
            ]
        )
        return made

    def graph() -> onnx.GraphProto:
        return onnx.GraphProto(
            node=[node()], initializer=[tensor(), tensor()], sparse_initializer=[sparse()]
        )

    outer = graph()
    outer.node[0].attribute.append(onnx.AttributeProto(name="g", g=graph()))
    outer.node[0].attribute.append(onnx.AttributeProto(name="gs", graphs=[graph(), graph()]))
    model = onnx.ModelProto(
        graph=outer,
        functions=[
            onnx.FunctionProto(
                node=[node()], attribute_proto=[onnx.AttributeProto(name="d", t=tensor())]
            )
        ],
        training_info=[onnx.TrainingInfoProto(initialization=graph(), algorithm=graph())],
    )
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    made = next(places)
    assert made > 50
    assert external_files(tmp_path / "graph.onnx") == {f"file-{n}" for n in range(made)}


def test_each_location_that_a_tensor_states_counts(tmp_path: Path) -> None:
    """ONNX Runtime uses the last one; all count, even if data_location is not EXTERNAL."""
    tensor = _external("w", [1], {"location": "first"})
    tensor.external_data.add(key="location", value="second")
    tensor.data_location = TensorProto.DEFAULT
    _write(tmp_path, weights=[tensor])
    assert external_files(tmp_path / "graph.onnx") == {"first", "second"}


def test_a_field_whose_number_protobuf_would_cut_is_refused(tmp_path: Path) -> None:
    """A tag of 33 bits, of which protobuf reads 32; those are the tag of a model's graph."""
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"\xba\x80\x80\x80\x10\x00")
    with pytest.raises(ValueError, match="too large"):
        external_files(path)


def test_graphs_in_graphs_without_end_are_refused(tmp_path: Path) -> None:
    message = b""
    for depth in range(3_000):
        tag = (b"\x32", b"\x2a", b"\x0a")[depth % 3]  # a node's attribute that is a graph
        message = tag + _varint(len(message)) + message
    (tmp_path / "graph.onnx").write_bytes(b"\x3a" + _varint(len(message)) + message)
    with pytest.raises(ValueError, match="too deep"):
        external_files(tmp_path / "graph.onnx")


MESSAGE = b"\x08\xac\x02" + b"\x12\x03abc" + b"\x1d1234" + b"\x2112345678" + b"\x82\x01\x00"


def test_each_field_of_a_message_and_where_it_is() -> None:
    found = [(each.number, MESSAGE[each.content : each.end]) for each in fields(MESSAGE)]
    assert found == [(1, b"\xac\x02"), (2, b"abc"), (3, b"1234"), (4, b"12345678"), (16, b"")]


@pytest.mark.parametrize(
    "damaged",
    [b"\x08", b"\x08\x80", b"\x12\x04abc", b"\x0b\x00", b"\x1d123", b"\x08" + b"\xff" * 11],
)
def test_malformed_messages_are_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"varint|field"):
        list(fields(damaged))


def test_a_weight_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, weights=[TensorProto(name="w", data_type=TensorProto.STRING)])
    with pytest.raises(ValueError, match="'w' has a type that fdeploy does not read"):
        read_graph(tmp_path / "graph.onnx")


def _write(folder: Path, weights: Sequence[Any] = (), **attributes: Any) -> None:
    node = helper.make_node("Any", ["w"], ["out"], **attributes)
    graph = helper.make_graph([node], "graph", [], [onnx.ValueInfoProto(name="out")], list(weights))
    onnx.save(helper.make_model(graph), str(folder / "graph.onnx"))


def _external(name: str, shape: Sequence[int], entries: dict[str, str]) -> TensorProto:
    """A float tensor whose data is in another file."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    made.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        made.external_data.add(key=key, value=value)
    return made


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])

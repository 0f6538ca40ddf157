"""Several sessions of one graph, and the memory that they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastai_deploy.runtime.bundle import open_bundle
from fastai_deploy.runtime.hardware import Hardware
from fastai_deploy.runtime.loading import load
from fastai_deploy.runtime.session import SLOWER, open_session, read_tables
from tests.runtime.bundles import TinyBundle, write_bundle

HARDWARE = Hardware(cores=2, memory=None)
FEED = {"input_ids": np.array([[2, 3]]), "attention_mask": np.array([[1, 1]])}


@pytest.fixture
def wide(tmp_path: Path) -> TinyBundle:
    """A bundle whose embeddings are large enough to be worth sharing."""
    return write_bundle(tmp_path / "bundle", hidden=1024)


def run(bundle: TinyBundle, tables: dict[str, Any]) -> Any:
    session = open_session(open_bundle(bundle.folder), HARDWARE, 1, alone=True, tables=tables)
    return session.run(None, FEED)[0]


def test_a_table_is_found_and_changes_no_answer(wide: TinyBundle) -> None:
    tables = read_tables(wide.folder / "model.onnx")
    assert [table.numpy().shape for table in tables.values()] == [wide.weights.embedding.shape]
    assert (run(wide, tables) == run(wide, {})).all()


def test_a_session_computes_with_the_table_that_it_is_given(wide: TinyBundle) -> None:
    ((name, table),) = read_tables(wide.folder / "model.onnx").items()
    double = onnxruntime.OrtValue.ortvalue_from_numpy(table.numpy() * 2)
    assert run(wide, {name: double}) == pytest.approx(2 * run(wide, {}), rel=1e-5)


def test_a_table_is_not_the_file(wide: TinyBundle) -> None:
    path = wide.folder / "model.onnx"
    tables = read_tables(path)
    before = {name: table.numpy().copy() for name, table in tables.items()}
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert all((table.numpy() == before[name]).all() for name, table in tables.items())


def test_small_tables_are_left_alone(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    assert not read_tables(bundle.folder / "model.onnx")


def fused(folder: Path, without: Sequence[str]) -> set[str]:
    """What ONNX Runtime makes of x -> x + bias -> GELU -> + x -> LayerNorm."""
    one = np.ones(8, np.float32)
    weights = {"bias": one, "scale": one, "shift": one, "root": np.float32(2**0.5),
               "unit": np.float32(1), "half": np.float32(0.5)}  # fmt: skip
    nodes = [
        helper.make_node("Add", ["x", "bias"], ["a"]),
        helper.make_node("Div", ["a", "root"], ["b"]),
        helper.make_node("Erf", ["b"], ["c"]),
        helper.make_node("Add", ["c", "unit"], ["d"]),
        helper.make_node("Mul", ["a", "d"], ["e"]),
        helper.make_node("Mul", ["e", "half"], ["f"]),
        helper.make_node("Add", ["f", "x"], ["g"]),
        helper.make_node("LayerNormalization", ["g", "scale", "shift"], ["y"], axis=-1),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 8]) for name in "xy")
    made = [numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", [x], [y], made),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the file is for this processor
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=without
    )
    return {node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node}


def test_onnx_runtime_knows_the_fusions_that_it_is_told_to_leave(tmp_path: Path) -> None:
    slow = {"SkipLayerNormalization", "BiasGelu"}
    assert fused(tmp_path, ()) & slow == slow
    assert not fused(tmp_path, SLOWER) & slow


def test_two_runs_at_a_time_answer_as_one(wide: TinyBundle) -> None:
    loaded = load(wide.folder, HARDWARE, 2, most_runs=2)
    assert loaded.runs == 2
    assert loaded.deviation < 1e-5


def test_a_graph_that_is_not_read_here_shares_nothing(tmp_path: Path) -> None:
    rare = helper.make_tensor("rare", TensorProto.BFLOAT16, [1], [1.0])
    node = helper.make_node("Gather", ["rare", "row"], ["out"])
    row = helper.make_tensor_value_info("row", TensorProto.INT64, [1])
    out = helper.make_tensor_value_info("out", TensorProto.BFLOAT16, [1])
    graph = helper.make_graph([node], "graph", [row], [out], [rare])
    onnx.save(helper.make_model(graph), str(tmp_path / "model.onnx"))
    assert not read_tables(tmp_path / "model.onnx")

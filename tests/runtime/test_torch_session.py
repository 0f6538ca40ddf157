from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fastai_deploy.runtime.onnx_graph import read_graph
from fastai_deploy.runtime.torch_session import TorchSession, UnknownOperator, open_torch
from tests.runtime.bundles import TinyBundle, write_bundle
from tests.runtime.one_device import ELSEWHERE, OneDevice
from tests.runtime.one_node import Case

IDS = np.array([[5, 6, 7, 8], [5, 6, 1, 1]], dtype=np.int64)
FEED = {"input_ids": IDS, "attention_mask": (IDS != 1).astype(np.int64)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def test_it_answers_as_onnx_runtime(tiny: TinyBundle) -> None:
    path = tiny.folder / "model.onnx"
    expected = onnxruntime.InferenceSession(str(path)).run(None, FEED)[0]
    session = open_torch(path, "cpu", half=False)
    assert session.run(["logits"], FEED)[0] == pytest.approx(expected, abs=1e-6)
    assert session.run(None, FEED)[0].dtype == np.float32


def test_half_precision_is_near_and_not_the_same(tiny: TinyBundle) -> None:
    path = tiny.folder / "model.onnx"
    exact, rounded = (
        open_torch(path, "cpu", half=half).run(None, FEED)[0] for half in (False, True)
    )
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.01 * np.abs(exact).max()


@pytest.mark.parametrize("half", [False, True])
def test_all_values_are_on_one_device(tiny: TinyBundle, *, half: bool) -> None:
    session = open_torch(tiny.folder / "model.onnx", ELSEWHERE, half=half)
    with OneDevice(), pytest.raises(NotImplementedError, match="no data"):
        session.run(None, FEED)  # fetches the answer from where nothing is: all else is done


def test_an_operator_that_is_unknown_is_named(tmp_path: Path) -> None:
    Case("Celu", (("in0", np.zeros(3, np.float32)),)).write(tmp_path / "one.onnx")
    with pytest.raises(UnknownOperator, match="Celu"):
        open_torch(tmp_path / "one.onnx", "cpu", half=False)


def test_the_graph_in_the_file_is_left_as_it_is(tiny: TinyBundle) -> None:
    graph = read_graph(tiny.folder / "model.onnx")
    before = {name: weight.copy() for name, weight in graph.weights.items()}
    TorchSession(graph, "cpu", half=False).run(None, FEED)
    for name, weight in before.items():
        np.testing.assert_array_equal(graph.weights[name], weight)

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
import transformers
from torch import nn

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.rebuild.answers import torch_scores
from fastai_deploy.learner.rebuild.onnx_export import Checks, export_onnx, quiet
from fastai_deploy.learner.rebuild.onnx_file import Array, read_onnx, write_onnx
from fastai_deploy.learner.rebuild.transformer import Classifier, Exportable


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (255,), (256,), (127, 129), (3, 5, 700)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8, np.float16])
def test_weights_are_written_as_onnx_reads_them(
    tmp_path: Path, shape: tuple[int, ...], dtype: type[Any]
) -> None:
    numbers = np.random.default_rng(0).integers(-9, 9, shape)
    weights: dict[str, Array] = {
        "b": np.asarray(numbers, dtype),
        "a": np.arange(600, dtype=np.float32).reshape(20, 30).T,
    }
    node = onnx.helper.make_node("Identity", ["a"], ["y"])
    graph = onnx.helper.make_graph(
        [node], "g", [], [onnx.helper.make_tensor_value_info("y", 1, [30, 20])]
    )
    model = onnx.helper.make_model(graph)
    write_onnx(tmp_path / "m.onnx", model, weights)
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
    onnx.checker.check_model(tmp_path / "m.onnx")
    found = {
        each.name: onnx.numpy_helper.to_array(each)
        for each in onnx.load(tmp_path / "m.onnx").graph.initializer
    }
    assert {name: each.shape for name, each in found.items()} == {"a": (30, 20), "b": shape}
    for name, weight in weights.items():
        assert np.array_equal(found[name], weight)
    assert not model.graph.initializer

    bare, ours = read_onnx(tmp_path / "m.onnx")
    assert bare == model
    assert {name: each.dtype for name, each in ours.items()} == {
        name: each.dtype for name, each in weights.items()
    }
    for name, weight in weights.items():
        assert np.array_equal(ours[name], weight)


def test_large_weights_begin_at_a_page_and_small_ones_stay_in_the_graph(tmp_path: Path) -> None:
    weights = {name: np.ones(size, np.uint8) for name, size in
               {"a": 1_024, "b": 1_023, "c": 5_000, "d": 2_000}.items()}  # fmt: skip
    held = [onnx.numpy_helper.from_array(weights.pop(name), name) for name in "bc"]
    graph = onnx.helper.make_graph([], "g", [], [], held)
    write_onnx(tmp_path / "m.onnx", onnx.helper.make_model(graph), weights)
    places = {
        each.name: {entry.key: entry.value for entry in each.external_data}
        for each in onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
    }
    expected = {"a": ("0", "1024"), "c": ("4096", "5000"), "d": ("12288", "2000")}
    assert places == {
        "b": {},
        **{
            name: {"location": "m.onnx.data", "offset": offset, "length": length}
            for name, (offset, length) in expected.items()
        },
    }


def test_a_graph_of_small_weights_is_one_file(tmp_path: Path) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    write_onnx(tmp_path / "m.onnx", model, {"a": np.ones(3, np.float32)})
    assert os.listdir(tmp_path) == ["m.onnx"]


class Model(nn.Module):
    """The parts of a transformer that the exporter needs, with a branch at ``limit`` tokens."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_attention_heads=2, hidden_size=8)
        self.embedding = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)
        self.limit = limit

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        *,
        return_dict: bool,
    ) -> tuple[torch.Tensor]:
        assert not return_dict
        hidden = self.embedding(input_ids) * attention_mask.unsqueeze(-1)
        if input_ids.shape[1] > self.limit:  # a trace keeps only one branch
            hidden = hidden * 2
        return (self.head(hidden.sum(1)),)


def classifier(limit: int) -> Classifier:
    torch.manual_seed(0)
    model = cast("transformers.PreTrainedModel", Model(limit))
    made = Classifier(model, mask_pad=1, first_position=None).eval()
    return made.requires_grad_(requires_grad=False)


def test_a_graph_that_answers_as_torch_does_is_kept(tmp_path: Path) -> None:
    made = classifier(limit=1_000)
    checks = Checks(made, vocabulary=50, max_length=40, pad=1)
    graph = export_onnx(made, tmp_path / "m.onnx", checks)
    assert graph.inputs == ("input_ids",)
    assert graph.fused == 0
    assert graph.difference < 1e-5
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]


def bert() -> tuple[Classifier, Checks]:
    """A BERT of two layers."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "attn_implementation": "eager",
    }
    config = transformers.BertConfig(**settings)
    model = transformers.BertForSequenceClassification(config)
    made = Classifier(model, mask_pad=0, first_position=None).eval()
    made.requires_grad_(requires_grad=False)
    return made, Checks(made, vocabulary=50, max_length=40, pad=0)


def test_attention_is_fused_and_no_sum_with_what_follows_it(tmp_path: Path) -> None:
    graph = export_onnx(*_with_path(tmp_path))
    assert graph.fused == 2
    operators = Counter(node.op_type for node in onnx.load(graph.path).graph.node)
    assert (operators["Attention"], operators["LayerNormalization"], operators["Gelu"]) == (2, 5, 2)
    assert not operators.keys() & {"SkipLayerNormalization", "BiasGelu"}


def test_attention_too_large_for_the_optimizer_is_not_fused(tmp_path: Path) -> None:
    """Above the limit of a protobuf message, 2 GiB, or the lower limit that the test sets."""
    graph = export_onnx(*_with_path(tmp_path), most=4_096)
    assert graph.fused == 0
    assert graph.difference < 1e-5
    assert not any(node.op_type == "Attention" for node in onnx.load(graph.path).graph.node)


def _with_path(folder: Path) -> tuple[Classifier, Path, Checks]:
    made, checks = bert()
    return made, folder / "m.onnx", checks


class Recurrent(Exportable):
    """An LSTM, because ONNX and torch order its gates differently."""

    inputs = ("input_ids", "attention_mask")
    name = "Recurrent"

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.rnn = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ids, mask

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        value = self.rnn(self.embedding(ids))[0] * mask[:, :, None]
        scores: torch.Tensor = self.head(value.sum(dim=1))
        return scores


def test_weights_that_a_graph_only_rearranges_are_rearranged_in_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Recurrent().eval().requires_grad_(requires_grad=False)
    checks = Checks(made, vocabulary=50, max_length=40, pad=1)
    graph = onnx.load(export_onnx(made, tmp_path / "m.onnx", checks).path).graph
    (rnn,) = (node for node in graph.node if node.op_type == "LSTM")
    weights = {each.name: list(each.dims) for each in graph.initializer}
    assert [weights[name] for name in rnn.input[1:4]] == [[1, 64, 8], [1, 64, 16], [1, 128]]
    assert sorted(weights.values()) == [[1, 64, 8], [1, 64, 16], [1, 128], [3], [3, 16], [50, 8]]
    assert not any(node.op_type == "Slice" for node in graph.node)


def test_a_graph_that_answers_differently_is_refused(tmp_path: Path) -> None:
    made = classifier(limit=8)
    checks = Checks(made, vocabulary=50, max_length=40, pad=1)
    with pytest.raises(UnsupportedLearner, match="answers differently"):
        export_onnx(made, tmp_path / "m.onnx", checks)


def test_a_file_that_is_no_graph_agrees_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    checks = Checks(classifier(limit=8), vocabulary=50, max_length=40, pad=1)
    assert checks.difference(tmp_path / "m.onnx") == float("inf")


def test_a_model_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    made = classifier(limit=8)
    checks = Checks(made, vocabulary=50, max_length=40, pad=1)
    made.model.head = nn.Linear(9, 3)
    with pytest.raises(UnsupportedLearner, match="cannot be exported to ONNX"):
        export_onnx(made, tmp_path / "m.onnx", checks)
    assert not list(tmp_path.iterdir())


def test_a_model_that_fails_on_a_text_is_refused() -> None:
    with pytest.raises(UnsupportedLearner, match="fails on a text of 2 tokens"):
        torch_scores(classifier(limit=8))([3, 50])


def test_nothing_of_the_exporter_reaches_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        sys.stdout.write("a warning")
        ctypes.CDLL(None).puts(b"a graph, by C++")
    os.write(1, b"an answer")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "an answer"

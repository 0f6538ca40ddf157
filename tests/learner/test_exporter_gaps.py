"""Functions of torch that the exporter lacks, or exports for one length of text only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.rebuild.exporter_gaps import Filled
from fastai_deploy.learner.rebuild.onnx_export import Checks, export_onnx
from fastai_deploy.learner.rebuild.transformer import Exportable

WIDTH = 8
States = Callable[[torch.Tensor], torch.Tensor]
"""From the states of tokens, of shape (batch, sequence, WIDTH), to others of that width."""


class Model(Exportable):
    """The states of a text, through a function, to the scores of three labels."""

    inputs = ("input_ids", "attention_mask")
    name = "Model"

    def __init__(self, function: States) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, WIDTH)
        self.head = nn.Linear(WIDTH, 3)
        self.function = function

    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ids, mask

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.embedding(ids) * mask.unsqueeze(-1)
        scores: torch.Tensor = self.head(self.function(states).mean(dim=1))
        return scores


def interleaved(states: torch.Tensor) -> torch.Tensor:
    """GLM's rotary embedding, of half of the width."""
    frequencies = torch.arange(1, 5)[None, :, None].float().expand(states.shape[0], -1, 1)
    angle = (frequencies @ torch.arange(states.shape[1])[None, None, :].float()).transpose(1, 2)
    turn = torch.cat((angle, angle), dim=-1).cos()[..., :2].repeat_interleave(2, dim=-1)
    return torch.cat((states[..., :4] * turn, states[..., 4:]), dim=-1)


def repeated_tokens(states: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(states, 3, 1).cumsum(dim=1)


def normalized(states: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(states, (WIDTH,), eps=1e-5) + functional.rms_norm(
        states, (WIDTH,), torch.arange(WIDTH, dtype=torch.float32)
    )


def turned(states: torch.Tensor) -> torch.Tensor:
    """DeepSeek's rotary embedding, with complex numbers."""
    angle = torch.arange(states.shape[1])[:, None] / torch.arange(1, WIDTH // 2 + 1)
    turn = (torch.polar(torch.ones_like(angle), angle) * 0.5).unsqueeze(0).to(states.device)
    pairs = torch.view_as_complex(states.reshape(*states.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn[:, :, :]).flatten(2)


def mixed(states: torch.Tensor) -> torch.Tensor:
    """FNet's layer."""
    made: torch.Tensor = torch.fft.fftn(states, dim=(1, 2)).real
    return made * torch.arange(WIDTH)


def unmasked(states: torch.Tensor) -> torch.Tensor:
    """Truth values that are filled in, as in the sparse attention of AXK2."""
    largest, kept = states.argmax(dim=-1, keepdim=True), torch.ones_like(states, dtype=torch.bool)
    kept = kept.scatter(-1, largest, value=False).masked_fill(states < -1, value=False)
    return states * kept.index_fill(-1, torch.tensor([1]), True)  # noqa: FBT003 - torch's


def windowed(states: torch.Tensor) -> torch.Tensor:
    """Longformer's overlapping windows, over a tensor that is not contiguous."""
    padded = functional.pad(states.transpose(0, 1), (0, 0, 0, 0, 1, 1)).transpose(0, 1)
    batch, length, width = padded.shape
    far, near, one = padded.stride()
    windows = padded.as_strided((batch, length - 2, 3, width), (far, near, near, one))
    return windows.prod(dim=2)


def added(states: torch.Tensor) -> torch.Tensor:
    """Several rows added at each place."""
    place = torch.arange(states.shape[1]) // 2
    return torch.zeros_like(states).index_add(1, place, states, alpha=2).sin()


def grouped(states: torch.Tensor) -> torch.Tensor:
    """JetMoe's experts: tokens in groups whose sizes depend on the text."""
    flat = states.flatten(0, 1)
    second = flat[:, 0] > 0
    sizes = torch.stack(((~second).sum(), second.sum())).tolist()
    order = second.long().argsort()
    groups = torch.split(flat[order], sizes, dim=0)
    made = torch.cat((groups[0] * 2, groups[1].sin()))
    return torch.zeros_like(flat).index_add(0, order, made).view(states.shape)


FUNCTIONS = (
    interleaved, repeated_tokens, normalized, turned, mixed, unmasked, windowed, added, grouped,
)  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_graph_answers_texts_of_every_length(function: States, tmp_path: Path) -> None:
    model = Model(function).eval().requires_grad_(requires_grad=False)
    checks = Checks(model, vocabulary=50, max_length=70, pad=1)
    assert export_onnx(model, tmp_path / "m.onnx", checks).difference < 1e-5


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_replacement_computes_what_torch_computes(function: States) -> None:
    torch.manual_seed(1)
    states = torch.randn(3, 11, WIDTH)
    expected = function(states)
    with Filled():
        found = function(states)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_has_no_replacement_is_left_to_torch() -> None:
    states = torch.randn(2, 3)
    numbers = torch.tensor([[1, 2], [3, 4]])
    with Filled():
        assert torch.equal(
            states.repeat_interleave(2), states.flatten()[[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]]
        )
        assert states.repeat_interleave(torch.tensor([1, 2]), dim=0).shape == (3, 3)
        assert numbers.tolist() == [[1, 2], [3, 4]]
        assert torch.fft.fftn(states, norm="ortho", dim=(0, 1)).is_complex()
        assert torch.equal(torch.view_as_real(torch.complex(states, states))[..., 0], states)
        assert torch.equal(
            states.scatter(1, torch.tensor([[0], [0]]), 5)[:, 0], torch.tensor([5.0, 5.0])
        )


def test_other_arithmetic_with_complex_numbers_is_refused(tmp_path: Path) -> None:
    def size(states: torch.Tensor) -> torch.Tensor:
        pairs = states.reshape(*states.shape[:-1], -1, 2)
        return torch.abs(torch.view_as_complex(pairs)).repeat(1, 1, 2)

    model = Model(size).eval().requires_grad_(requires_grad=False)
    checks = Checks(model, vocabulary=50, max_length=70, pad=1)
    with pytest.raises(UnsupportedLearner, match="no complex numbers, and abs needs them"):
        export_onnx(model, tmp_path / "m.onnx", checks)


def test_a_function_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    def solved(states: torch.Tensor) -> torch.Tensor:
        system = torch.eye(WIDTH) + torch.ones(WIDTH, WIDTH).tril(-1)
        found: torch.Tensor = torch.linalg.solve_triangular(
            system, states, upper=False, left=False, unitriangular=True
        )
        return found

    model = Model(solved).eval().requires_grad_(requires_grad=False)
    checks = Checks(model, vocabulary=50, max_length=70, pad=1)
    with pytest.raises(UnsupportedLearner) as caught:
        export_onnx(model, tmp_path / "m.onnx", checks)
    lacking = "ONNX has no equivalent of torch's linalg_solve_triangular"
    assert caught.value.message == f"Model cannot be exported to ONNX: {lacking}"
    assert "docs/learners-tested.md lists as proven" in caught.value.hint


def test_a_failure_inside_torch_is_told_without_its_source_code(tmp_path: Path) -> None:
    def unknown(states: torch.Tensor) -> torch.Tensor:
        return states * torch.where(states > 0, True, False)  # noqa: FBT003 - torch's

    model = Model(unknown).eval().requires_grad_(requires_grad=False)
    checks = Checks(model, vocabulary=50, max_length=70, pad=1)
    with pytest.raises(UnsupportedLearner) as caught:
        export_onnx(model, tmp_path / "m.onnx", checks)
    assert "torch's exporter fails on it (We don't have an op for aten::where" in str(
        caught.value.message
    )
    assert "report a bug" not in caught.value.message


def test_an_input_that_a_model_ignores_is_an_input_of_its_graph(tmp_path: Path) -> None:
    class Unmasked(Model):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            del mask
            scores: torch.Tensor = self.head(self.embedding(ids).mean(dim=1))
            return scores

    model = Unmasked(torch.sin).eval().requires_grad_(requires_grad=False)
    checks = Checks(model, vocabulary=50, max_length=70, pad=1)
    graph = export_onnx(model, tmp_path / "m.onnx", checks)
    names = [value.name for value in onnx.load(graph.path).graph.input]
    assert tuple(names) == graph.inputs == ("input_ids", "attention_mask")

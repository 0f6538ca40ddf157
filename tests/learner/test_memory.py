"""Weights that are offloaded to a file to free memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastai_deploy.errors import FileMissing
from fastai_deploy.learner.rebuild.onnx_export import OffloadedWeights
from fastai_deploy.runtime.hardware import trim_memory


def test_a_parked_module_answers_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 5), nn.LayerNorm(5)).eval()
    module[1].weight = nn.Parameter(torch.randn(3, 5).t(), requires_grad=False)  # a view
    ids = torch.tensor([[1, 2], [3, 6]])
    with torch.no_grad():
        before = module(ids)
        offloaded = OffloadedWeights(module, tmp_path)
        assert torch.allclose(module(ids), before, atol=1e-6)
        offloaded.evict()
        assert torch.allclose(module(ids), before, atol=1e-6)
    assert not list(tmp_path.iterdir())


def test_a_module_without_parameters(tmp_path: Path) -> None:
    OffloadedWeights(nn.Identity(), tmp_path).evict()
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="gone"):
        OffloadedWeights(nn.Linear(2, 2), tmp_path / "gone")


def test_evicted_weights_are_not_in_memory(tmp_path: Path) -> None:
    module = nn.Embedding(1 << 14, 1 << 10).requires_grad_(requires_grad=False)
    size = module.weight.numel() * module.weight.element_size()
    trim_memory()
    before = _resident()
    offloaded = OffloadedWeights(module, tmp_path)
    assert float(module.weight.sum()) != 0
    offloaded.evict()
    assert before - _resident() > size // 2


def _resident() -> int:
    """Bytes of this process in memory, as Linux counts them."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096

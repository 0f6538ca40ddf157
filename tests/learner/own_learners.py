"""Replace the model in a real learner file by another one saved with torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastai_deploy.learner.reading.formats import open_archive, read_archive
from fastai_deploy.learner.reading.graph import Mapping, walk
from fastai_deploy.learner.reading.sources import BytesSource
from fastai_deploy.learner.reading.tensors import Storage
from tests.learner.assemble import assemble, torch_zip
from tests.learner.files import CONVERTIBLE, learner

DISTILBERT = CONVERTIBLE[2]


def with_model(model: nn.Module, path: Path, around: str = DISTILBERT) -> Path:
    """Write the learner ``around`` with ``model`` in it."""
    saved = io.BytesIO()
    torch.save(model, saved)
    with open_archive(learner(around)) as (_, archive):
        root: Any = archive.pickled.root
        inner = read_archive(BytesSource(saved.getvalue())).pickled.root
        for value in walk(inner):
            if isinstance(value, Storage):
                value.key = f"own{value.key}"
        assert isinstance(root, Mapping)
        root.pairs[:] = [(k, inner if k == "model" else v) for k, v in root.pairs]
        storages = {
            value.key: value.data.read(0, value.data.size)
            for value in walk(root)
            if isinstance(value, Storage) and value.data is not None
        }
        path.write_bytes(torch_zip(assemble(root), storages))
    return path

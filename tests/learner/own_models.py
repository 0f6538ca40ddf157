"""A user's own torch models: trained with these classes, which are then passed as definitions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel

PAD = 0
WORDS = 700


class Settings:
    """A plain object that a module may hold."""

    def __init__(self, scale: float) -> None:
        self.scale = scale


class Recurrent(nn.Module):
    """No transformer and no mask: padding changes its answers."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.settings = Settings(0.5)
        self.sizes = (2, 8)
        self.activation = nnf.relu
        self.embedding = nn.Embedding(WORDS, 8, padding_idx=PAD)
        self.lstm = nn.LSTM(8, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gelu = nn.GELU()
        self.out = nn.Linear(16, labels)
        self.shift: torch.Tensor
        self.register_buffer("shift", torch.linspace(-1, 1, labels), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embedding(ids))
        pooled = self.gelu(self.activation(hidden[:, -1]) * self.settings.scale)
        scores: torch.Tensor = self.out(pooled) + self.shift * self.sizes[0]
        return scores


class Attentive(nn.Module):
    """torch's own encoder, which stores a function and attributes that depend on its version."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8)
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, labels))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.encoder(self.embedding(ids)).amax(1))
        return scores


class Pooled(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """A user-defined class that has the configuration, with a bare encoder in it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.head = nn.Linear(config.hidden_size, 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, Any]:
        mask = (ids != PAD).long()
        pooled = self.bert(ids, attention_mask=mask)[1] * self.config.hidden_size**-0.5
        return self.head(pooled), pooled


class Wrapper(nn.Module):
    """A wrapper around a transformer, as in many notebooks."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.transformer(ids, attention_mask=(ids != PAD).long())[0]
        return scores

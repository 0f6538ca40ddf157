"""A text as the model is asked it; apart from the encoder, which not every model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Encoded:
    """The token ids of one text, special tokens included, cut to the model's ``max_length``."""

    ids: Sequence[int]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)

"""What the code around a transformer does: which tokens it attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mask = Literal["from-ids", "none", "unknown"]


@dataclass(frozen=True)
class Forward:
    """How the transformer is called.

    ``mask``: "from-ids" when padding is found by comparing the ids with ``pad_token_id`` (None:
    the tokenizer's); "none" when every token is attended to; "unknown" where the code is not in
    the file, or not understood.
    """

    mask: Mask
    pad_token_id: int | None = None


UNKNOWN = Forward("unknown")

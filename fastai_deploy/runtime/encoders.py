"""The encoder that a bundle's kind of text needs."""

from __future__ import annotations

from typing import Union

from .bundle import KIND_WORDS, Bundle
from .encoding import Encoder
from .words import WordEncoder

TextEncoder = Union[Encoder, WordEncoder]


def open_encoder(bundle: Bundle) -> TextEncoder:
    """What turns texts into ids as the manifest's ``text.kind`` asks. Raises ModelError."""
    return WordEncoder(bundle) if bundle.kind == KIND_WORDS else Encoder(bundle)

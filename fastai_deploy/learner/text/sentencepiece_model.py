"""Reading a SentencePiece model: its pieces and how it normalizes, without Google's library.

The file is one protobuf message; field numbers are those of ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.runtime.protobuf import BYTES, VARINT, fields, varint

Kind = Literal["normal", "unknown", "control", "user-defined", "unused", "byte"]

MAX_PIECES = 2_000_000  # the largest models have a quarter of a million
_KINDS: dict[int, Kind] = {
    1: "normal", 2: "unknown", 3: "control", 4: "user-defined", 5: "unused", 6: "byte",
}  # fmt: skip
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _SUFFIX = 3, 24
_UNIGRAM = 1
_CHARACTERS, _PREFIX, _COLLAPSE, _ESCAPE = 2, 3, 4, 5

Value = int | bytes


@dataclass(frozen=True)
class Piece:
    """A token; ``score`` is its log probability."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class SentencePieceModel:
    """A unigram model.

    ``characters`` is the compiled table of characters that are replaced by others; ``prefix``:
    whether a space is put before a text; ``collapse``: whether spaces at the ends and beside
    others vanish.
    """

    pieces: tuple[Piece, ...]
    characters: bytes
    prefix: bool
    collapse: bool


def read_sentencepiece(held: bytes) -> SentencePieceModel:
    """The model in a file. Raises UnsupportedLearner for one that is damaged or no unigram."""
    try:
        return _model(held)
    except (ValueError, struct.error, OverflowError) as error:
        raise _unusable(f"it is no SentencePiece model, or damaged ({error})") from error


def _model(held: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _values(held):
        if number == _PIECES and isinstance(value, bytes):
            pieces.append(_piece(value))
            if len(pieces) > MAX_PIECES:
                raise ValueError("it has more pieces than any model")
        elif number == _TRAINER and isinstance(value, bytes):
            trainer = dict(_values(value))
        elif number == _NORMALIZER and isinstance(value, bytes):
            normalizer = dict(_values(value))
    if not pieces:
        raise ValueError("it has no pieces")
    if trainer.get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM:
        raise _unusable("it is none of the unigram kind, which alone fdeploy rebuilds exactly")
    if trainer.get(_SUFFIX, 0) or not normalizer.get(_ESCAPE, 1):
        raise _unusable("it treats spaces in a way that fdeploy does not rebuild")
    characters = normalizer.get(_CHARACTERS, b"")
    return SentencePieceModel(
        pieces=tuple(pieces),
        characters=characters if isinstance(characters, bytes) else b"",
        prefix=bool(normalizer.get(_PREFIX, 1)),
        collapse=bool(normalizer.get(_COLLAPSE, 1)),
    )


def _piece(held: bytes) -> Piece:
    fields = dict(_values(held))
    text, score, kind = fields.get(_PIECE, b""), fields.get(_SCORE, 0), fields.get(_KIND, 1)
    if not isinstance(text, bytes) or not isinstance(score, int) or not isinstance(kind, int):
        raise ValueError("a piece is none")  # noqa: TRY004 - of a file, not of an argument
    if kind not in _KINDS:
        raise ValueError("a piece is of an unknown kind")
    (likelihood,) = struct.unpack("<f", score.to_bytes(4, "little"))
    return Piece(text.decode("utf-8"), likelihood, _KINDS[kind])


def _values(held: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message: whole numbers and floats as their bits, the rest as bytes."""
    for field in fields(held):
        if field.kind == VARINT:
            yield field.number, varint(held, field.content)[0]
        else:
            found = held[field.content : field.end]
            yield field.number, found if field.kind == BYTES else int.from_bytes(found, "little")


def _unusable(why: str) -> UnsupportedLearner:
    return UnsupportedLearner(
        f"the SentencePiece model of the tokenizer cannot be used: {why}",
        hint="hand in the tokenizer's own folder: fdeploy export --tokenizer DIR",
    )

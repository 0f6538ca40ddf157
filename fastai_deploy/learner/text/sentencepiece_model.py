"""Reads a SentencePiece model, its pieces and its normalization, without Google's library.

The file is one protobuf message; transformers ships its schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastai_deploy.errors import UnsupportedLearner, need_extra

Kind = Literal["normal", "unknown", "control", "user-defined", "unused", "byte"]

MAX_PIECES = 2_000_000  # the largest models have a quarter of a million
MAX_BYTES = 32 << 20  # the largest models have 5 MB
_KINDS: dict[int, Kind] = {
    1: "normal", 2: "unknown", 3: "control", 4: "user-defined", 5: "unused", 6: "byte",
}  # fmt: skip
_UNIGRAM = 1
_PIECE_TAG = b"\n"  # the byte before each piece, and before the text in it


@dataclass(frozen=True)
class Piece:
    """A token; ``score`` is its log probability."""

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class SentencePieceModel:
    """A unigram model.

    ``characters`` is the compiled table of character replacements; ``prefix``: a space is put
    before a text; ``collapse``: leading, trailing and repeated spaces are removed.
    """

    pieces: tuple[Piece, ...]
    characters: bytes
    prefix: bool
    collapse: bool


def read_sentencepiece(held: bytes) -> SentencePieceModel:
    """Read the model in a file.

    Raises UnsupportedLearner if it is damaged or not a unigram model, and ExtraMissing.
    """
    need_extra("convert", "transformers", "onnx")  # which brings protobuf
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only for such a learner
    from transformers.utils import sentencepiece_model_pb2_new as schema  # noqa: PLC0415

    # Each piece takes 60 bytes of memory as soon as it is parsed.
    if len(held) > MAX_BYTES or held.count(_PIECE_TAG) > 2 * MAX_PIECES:
        raise _damaged("it is larger than any model")
    try:
        message: Any = schema.ModelProto  # type: ignore[attr-defined]  # protobuf makes it
        return _model(message.FromString(held))
    except (DecodeError, ValueError) as error:
        raise _damaged(str(error)) from error


def _model(message: Any) -> SentencePieceModel:
    trainer, normalizer = message.trainer_spec, message.normalizer_spec
    for each in (trainer, normalizer):
        _check_fields(each)
    if not message.pieces:
        raise ValueError("it has no pieces")
    if len(message.pieces) > MAX_PIECES:
        raise ValueError("it has more pieces than any model")
    if trainer.model_type != _UNIGRAM:
        raise _unusable("it is not a unigram model, the only kind that fdeploy rebuilds exactly")
    if trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
        raise _unusable("it treats spaces in a way that fdeploy does not rebuild")
    return SentencePieceModel(
        pieces=tuple(map(_piece, message.pieces)),
        characters=normalizer.precompiled_charsmap,
        prefix=normalizer.add_dummy_prefix,
        collapse=normalizer.remove_extra_whitespaces,
    )


def _piece(message: Any) -> Piece:
    _check_fields(message)
    text = message.piece
    if not isinstance(text, str):  # protobuf returns bytes if they are not UTF-8
        raise ValueError("a piece is not text")  # noqa: TRY004 - of a file, not of an argument
    return Piece(text, message.score, _KINDS[message.type])


def _check_fields(message: Any) -> None:
    """Raise ValueError if protobuf replaced a field's value by the default.

    It does so for a value of the wrong type and for a number outside the field's enumeration.
    """
    from google.protobuf.unknown_fields import UnknownFieldSet  # noqa: PLC0415

    known = message.DESCRIPTOR.fields_by_number
    wrong = [each.field_number for each in UnknownFieldSet(message) if each.field_number in known]
    if wrong:
        raise ValueError(f"its field {known[wrong[0]].name} has an invalid value")


def _damaged(why: str) -> UnsupportedLearner:
    return _unusable(f"it is not a SentencePiece model, or it is damaged ({why})")


def _unusable(why: str) -> UnsupportedLearner:
    return UnsupportedLearner(
        f"the SentencePiece model of the tokenizer cannot be used: {why}",
        hint="pass the tokenizer's folder: fdeploy export --tokenizer DIR",
    )

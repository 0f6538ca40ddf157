"""Messages of protobuf, sound and damaged; and a SentencePiece model, which is one."""

from __future__ import annotations

import struct

import pytest

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.text.sentencepiece_model import Piece, read_sentencepiece
from fastai_deploy.runtime.protobuf import BYTES, FIXED_32, FIXED_64, VARINT, fields, varint

MESSAGE = b"\x08\xac\x02" + b"\x12\x03abc" + b"\x1d1234" + b"\x2112345678" + b"\x82\x01\x00"


def test_each_field_and_where_it_is() -> None:
    found = list(fields(MESSAGE))
    assert [(field.number, field.kind) for field in found] == [
        (1, VARINT),
        (2, BYTES),
        (3, FIXED_32),
        (4, FIXED_64),
        (16, BYTES),
    ]
    assert varint(MESSAGE, found[0].content) == (300, 3)
    assert MESSAGE[found[1].content : found[1].end] == b"abc"
    assert b"".join(MESSAGE[field.start : field.end] for field in found) == MESSAGE


@pytest.mark.parametrize(
    "damaged",
    [b"\x08", b"\x08\x80", b"\x12\x04abc", b"\x0b\x00", b"\x1d123", b"\x08" + b"\xff" * 11],
)
def test_what_is_no_message(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"number|field"):
        list(fields(damaged))


def piece(text: bytes, score: bytes) -> bytes:
    inner = b"\x0a" + bytes([len(text)]) + text + score
    return b"\x0a" + bytes([len(inner)]) + inner


def test_a_sentencepiece_model() -> None:
    model = read_sentencepiece(piece(b"\xe2\x96\x81a", b"\x15" + struct.pack("<f", -2.5)))
    assert model.pieces == (Piece("\u2581a", -2.5, "normal"),)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        piece(b"a", b"\x10" + b"\xff" * 8 + b"\x01"),  # a score that is no float
        piece(b"a", b"\x18\x09"),  # of a kind that there is not
        piece(b"\xff", b""),  # no UTF-8
        piece(b"a", b"")[:-1],
    ],
)
def test_a_damaged_sentencepiece_model_is_refused(damaged: bytes) -> None:
    with pytest.raises(UnsupportedLearner, match="no SentencePiece model, or damaged"):
        read_sentencepiece(damaged)

"""A slow SentencePiece tokenizer of transformers as a ``tokenizer.json``.

Its own steps in Python, the normalization of its model, and its ids: those of CamemBERT and
XLM-RoBERTa are moved to where fairseq has them.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any

from fastai_deploy.learner.reading.views import data, named_entries
from fastai_deploy.learner.text.found import Tokenizer
from fastai_deploy.learner.text.sentencepiece_model import Piece, SentencePieceModel
from fastai_deploy.learner.words import words

Json = dict[str, Any]

# Those that prepare a text in Python: spaces, quotes, accents, capitals.
PREPARING = words("XLNetTokenizer AlbertTokenizer")
KNOWN = PREPARING | words(
    "CamembertTokenizer XLMRobertaTokenizer BigBirdTokenizer RemBertTokenizer DebertaV2Tokenizer"
)
SPACE = "\u2581"
# A token that no text holds: noncharacters are not for interchange.
_NOWHERE = "\ufdd0unused {}\ufdd1"
_HELD = ("sp_model_proto", "serialized_model_proto", "_sp_model_proto")
_IN_TEXTS = ("normal", "user-defined")  # kinds of pieces that a model finds in a text
_BONUS = 0.1  # by which SentencePiece prefers what a user defined


def held_model(tokenizer: Tokenizer) -> bytes | None:
    """The SentencePiece model that the pickle holds; None where it was lost."""
    for name in _HELD:
        found = data(tokenizer.attributes.get(name))
        if found:
            return found
    return None


def unigram_parts(
    tokenizer: Tokenizer, model: SentencePieceModel
) -> tuple[dict[str, int], Json, Json, Json]:
    """Vocabulary (token to id), and model, normalizer and pre-tokenizer of the tokenizer.json."""
    table = _table(tokenizer, model)
    unknown = next((i for i, piece in enumerate(table) if piece.kind == "unknown"), 0)
    vocabulary = {piece.text: index for index, piece in enumerate(table)}
    cut = tokenizer.splitting
    if cut is None:
        cut = frozenset(
            token.text for token in (*tokenizer.special.values(), *tokenizer.additional)
        )
    unigram: Json = {
        "type": "Unigram", "unk_id": unknown, "byte_fallback": False,
        "vocab": [
            [piece.text, piece.score]
            if piece.kind in _IN_TEXTS or piece.text in cut
            else [_NOWHERE.format(index), 0.0]
            for index, piece in enumerate(table)
        ],
    }  # fmt: skip
    normalizer: Json = {"type": "Sequence", "normalizers": [*_steps(tokenizer, model)]}
    spaces: Json = {
        "type": "Metaspace", "replacement": SPACE, "split": True,
        "prepend_scheme": "always" if model.prefix else "never",
    }  # fmt: skip
    return vocabulary, unigram, normalizer, spaces


def unigram_residues(tokenizer: Tokenizer, model: SentencePieceModel) -> tuple[str, ...]:
    """Where the answers may differ from those of the learner's own tokenizer."""
    ties = (
        "a text that can be cut in two equally likely ways: SentencePiece and this tokenizer may "
        "choose differently"
    )
    found = [ties]
    if tokenizer.cls.name in PREPARING and any(map(_number_and_comma, model.pieces)):
        found.append(
            "a number before a comma: the learner's tokenizer cuts the two apart once more; here "
            "they stay as the model has them"
        )
    return tuple(found)


def _number_and_comma(piece: Piece) -> bool:
    return len(piece.text) > 1 and piece.text[-1] == "," and piece.text[-2].isdigit()


def _table(tokenizer: Tokenizer, model: SentencePieceModel) -> list[Piece]:
    """The pieces in the order of the ids that the tokenizer gives them."""
    own = tokenizer.attributes
    moved = {
        token: number
        for token, number in named_entries(own.get("fairseq_tokens_to_ids")).items()
        if type(number) is int and 0 <= number <= 2 * len(model.pieces)
    }
    offset = own.get("fairseq_offset")
    offset = offset if type(offset) is int and 0 <= offset < len(model.pieces) else 0
    unknown = tokenizer.special["unk"].text if "unk" in tokenizer.special else None
    best = max((piece.score for piece in model.pieces if piece.kind == "normal"), default=0.0)
    size = max([offset + len(model.pieces), *(number + 1 for number in moved.values())])
    table = [Piece(_NOWHERE.format(index), 0.0, "unused") for index in range(size)]
    for index, piece in enumerate(model.pieces):
        if piece.text in moved or (moved and piece.kind == "unknown"):
            continue
        if piece.kind in ("unused", "byte"):
            continue
        score = piece.score
        if piece.kind == "user-defined":
            score = len(piece.text) * best - _BONUS
        table[index + offset] = Piece(piece.text, score, piece.kind)
    for token, number in moved.items():
        table[number] = Piece(token, 0.0, "unknown" if token == unknown else "control")
    return table


def _steps(tokenizer: Tokenizer, model: SentencePieceModel) -> Iterator[Json]:
    """What is done to a text before it is cut, first the tokenizer's own steps."""
    own, name = tokenizer.attributes, tokenizer.cls.name
    lower = own.get("do_lower_case") is True
    if lower:
        yield {"type": "Lowercase"}
    if name in PREPARING:
        if own.get("remove_space") is not False:
            yield _replace(r"\s+", " ")
            yield {"type": "Strip", "strip_left": True, "strip_right": True}
        yield {"type": "Replace", "pattern": {"String": "``"}, "content": '"'}
        yield {"type": "Replace", "pattern": {"String": "''"}, "content": '"'}
        if own.get("keep_accents") is not True:
            yield {"type": "NFKD"}
            yield _replace(f"[{combining()}]", "")
        if lower:
            yield {"type": "Lowercase"}
    if model.characters:
        encoded = base64.b64encode(model.characters).decode("ascii")
        yield {"type": "Precompiled", "precompiled_charsmap": encoded}
    if model.collapse:
        # In this order each takes time in proportion to the text: "a +$" would look through a row
        # of spaces from each of them.
        yield _replace(" {2,}", " ")
        yield _replace("^ | $", "")


def _replace(pattern: str, content: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


@cache
def combining() -> str:
    """The characters that Python counts as combining, as the inside of a character class."""
    marked = (code for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code)))
    ranges = []
    for _, run in groupby(enumerate(marked), lambda pair: pair[1] - pair[0]):
        codes = [code for _, code in run]
        last = rf"-\x{{{codes[-1]:X}}}" if len(codes) > 1 else ""
        ranges.append(rf"\x{{{codes[0]:X}}}{last}")
    return "".join(ranges)

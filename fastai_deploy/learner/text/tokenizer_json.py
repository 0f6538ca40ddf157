"""Build ``tokenizer.json``, the format of the `tokenizers` library, from a pickled tokenizer."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.examine.imports import name_set
from fastai_deploy.learner.reading.graph import attributes, data, entries, named_entries
from fastai_deploy.learner.text.sentencepiece_model import (
    Piece,
    SentencePieceModel,
    read_sentencepiece,
)
from fastai_deploy.learner.text.tokenizer import (
    Era,
    SpecialToken,
    Tokenizer,
    fast_json,
    fast_vocabulary,
)
from fastai_deploy.learner.text.user_tokenizer import UserTokenizer

_NEWER = """
61D 870-89F 8B5 8BE-8D2 B55 C3C C5D C77 CDD CF3 D04 D81 E86 E89 E8C E8E-E93 E98 EA0 EA8-EA9 EAC EBA
ECE 170D 1715-171F 180F 1ABF-1ACE 1B4C 1B7D-1B7E 1CFA 1DFA 20C0 2B97 2BC9 2BFF 2C2F 2C5F 2E4F-2E5D
2FFC-2FFF 31BB-31BF 31EF 32FF 4DB6-4DBF 9FF0-9FFF A7BA-A7F6 A82C AB66-AB6B FBC2 FD40-FD4F FDCF
FDFE-FDFF 1019C 10570-105BC 10780-107BA 10E80-10EFF 10F70-10FF6 11070-11075 110C2 11147 111CE-111CF
1123F-11241 1145A 1145F-11461 116B8-116B9 11740-11746 11900-119E4 11A84-11A85 11AB0-11ABF
11B00-11B09 11F00-11FFF 12F90-12FF2 1342F-13455 16A70-16AC9 16F45-16F4F 16F7F-16F87 16FE2-16FF1
187F2-187F7 18AF3-1AFFE 1B11F-1B167 1CF00-1CFC3 1D1E9-1D1EA 1D2C0-1D2D3 1DF00-1DF2A 1E030-1E7FE
1E94B 1ED01-1ED3D 1F10D-1F10F 1F16C-1F16F 1F1AD 1F6D5-1F6DF 1F6FA-1F6FC 1F774-1F77F 1F7D9-1F7F0
1F8B0-1F8B1 1F90C-1F90F 1F93F 1F971-1F972 1F977-1F979 1F97B 1F9A3-1F9AF 1F9BA-1F9BF 1F9C3-1F9CF
1FA00-1FA53 1FA70-1FBF9 2A6D7-2A6DF 2B735-2B739 2EBF0-2EE5D 30000-323AF
"""
UNASSIGNED = r"\p{Cn}"


def newer_characters() -> str:
    """The characters, in the syntax of a regular expression's character class."""
    ranges = [part.partition("-") for part in _NEWER.split()]
    return "".join(
        rf"\x{{{first}}}-\x{{{last}}}" if last else rf"\x{{{first}}}" for first, _, last in ranges
    )


Json = dict[str, Any]

# Tokenizers that normalize a text in Python: spaces, quotes, accents, case.
PREPARING = name_set("XLNetTokenizer AlbertTokenizer")
KNOWN = PREPARING | name_set(
    "CamembertTokenizer XLMRobertaTokenizer BigBirdTokenizer RemBertTokenizer DebertaV2Tokenizer"
)
SPACE = "\u2581"
# Tokens that no text contains: noncharacters are not for interchange.
_NOWHERE = "\ufdd0unused {}\ufdd1"
_HELD = ("sp_model_proto", "serialized_model_proto", "_sp_model_proto")
_IN_TEXTS = ("normal", "user-defined")  # kinds of pieces that a model finds in a text
_BONUS = 0.1  # by which SentencePiece prefers user-defined pieces


def held_model(tokenizer: Tokenizer) -> bytes | None:
    """The SentencePiece model in the pickle; None if it was lost."""
    for name in _HELD:
        found = data(tokenizer.attributes.get(name))
        if found:
            return found
    return None


def unigram_parts(
    tokenizer: Tokenizer, model: SentencePieceModel
) -> tuple[dict[str, int], Json, Json, Json]:
    """Vocabulary (token to id), model, normalizer and pre-tokenizer of the tokenizer.json."""
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
    """Cases where answers may differ from those of the learner's own tokenizer."""
    ties = (
        "a text with two equally likely segmentations: SentencePiece and this tokenizer may "
        "choose differently"
    )
    found = [ties]
    if tokenizer.cls.name in PREPARING and any(map(_number_and_comma, model.pieces)):
        found.append(
            "a number before a comma: the learner's tokenizer splits the two once more; here they "
            "stay as the model has them"
        )
    return tuple(found)


def _number_and_comma(piece: Piece) -> bool:
    return len(piece.text) > 1 and piece.text[-1] == "," and piece.text[-2].isdigit()


def _table(tokenizer: Tokenizer, model: SentencePieceModel) -> list[Piece]:
    """The pieces in the order of the tokenizer's ids."""
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
    """The steps applied to a text before segmentation, the tokenizer's own first."""
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
        # In this order each step takes linear time: "a +$" would scan a run of spaces from every
        # position in it.
        yield _replace(" {2,}", " ")
        yield _replace("^ | $", "")


def _replace(pattern: str, content: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


@cache
def combining() -> str:
    """The characters that Python counts as combining, for a character class."""
    marked = (code for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code)))
    ranges = []
    for _, run in groupby(enumerate(marked), lambda pair: pair[1] - pair[0]):
        codes = [code for _, code in run]
        last = rf"-\x{{{codes[-1]:X}}}" if len(codes) > 1 else ""
        ranges.append(rf"\x{{{codes[0]:X}}}{last}")
    return "".join(ranges)


HAND_IN = (
    "pass the tokenizer that the model was trained with, as a folder with its spiece.model, "
    "sentencepiece.bpe.model or tokenizer.json: fdeploy export --tokenizer DIR"
)
OWN_TOKENIZER = (
    "load the learner in its own environment and export a tokenizer with save_pretrained()"
)


def tokenizer_json(
    tokenizer: Tokenizer,
    *,
    prefix_space: bool,
    python_37: bool,
    handed: UserTokenizer | None = None,
) -> Json:
    """The tokenizer without truncation and padding, with special tokens around a single text.

    ``prefix_space``: whether the learner makes byte-level tokenizers start with a space;
    ``python_37``: whether the learner needs Python 3.7, whose Unicode is of 2018; ``handed``: what
    the user supplied in place of what the file lost.
    Raises UnsupportedLearner for a tokenizer that the file does not hold completely.
    """
    if tokenizer.serialized is not None:
        return {**tokenizer.serialized, "truncation": None, "padding": None}
    if handed is not None and handed.serialized is not None:
        return _plain(tokenizer, json.loads(json.dumps(handed.serialized)))
    if tokenizer.kind == "fast":
        return _fast(tokenizer)
    if tokenizer.kind == "byte-level BPE":
        return _byte_level(tokenizer, prefix_space=prefix_space)
    if tokenizer.kind == "WordPiece":
        return _wordpiece(tokenizer, python_37=python_37)
    model = sentencepiece_of(tokenizer, handed)
    if model is None or tokenizer.cls.name not in KNOWN:
        raise UnsupportedLearner(
            f"the file does not contain its complete tokenizer ({tokenizer.cls.name}, "
            f"{tokenizer.kind})",
            hint=HAND_IN,
        )
    vocabulary, unigram, normalizer, spaces = unigram_parts(tokenizer, model)
    return _assemble(tokenizer, vocabulary, unigram, normalizer, spaces)


def sentencepiece_of(
    tokenizer: Tokenizer, handed: UserTokenizer | None
) -> SentencePieceModel | None:
    """The SentencePiece model: the one supplied, or the one in the file.

    Raises UnsupportedLearner for one that cannot be used.
    """
    if handed is not None and handed.model is not None:
        return handed.model
    held = held_model(tokenizer) if tokenizer.kind == "SentencePiece" else None
    return read_sentencepiece(held) if held is not None else None


def _fast(tokenizer: Tokenizer) -> Json:
    """A fast tokenizer stores its JSON in the pickle."""
    made = fast_json(tokenizer.attributes)
    if made is None:
        raise _broken(tokenizer)
    return _plain(tokenizer, made)


def _plain(tokenizer: Tokenizer, made: Json) -> Json:
    """A tokenizer.json without truncation and padding, with special tokens around a text."""
    made["truncation"] = None
    made["padding"] = None
    if made.get("post_processor") is None and {"cls", "sep"} <= tokenizer.special.keys():
        made["post_processor"] = _template(tokenizer, fast_vocabulary(made))
    return made


def _byte_level(tokenizer: Tokenizer, *, prefix_space: bool) -> Json:
    vocabulary = _vocabulary(tokenizer, tokenizer.attributes["encoder"])
    ranks = [
        (pair, rank)
        for pair, rank in entries(tokenizer.attributes["bpe_ranks"])
        if type(rank) is int
    ]
    merges: list[list[str]] = []
    for pair, _ in sorted(ranks, key=lambda item: item[1]):
        match pair:
            case (str(left), str(right)):
                merges.append([left, right])
            case _:
                raise _broken(tokenizer)
    model = {
        "type": "BPE", "dropout": None, "unk_token": _text(tokenizer, "unk"),
        "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
        "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": merges,
    }  # fmt: skip
    every_segment = prefix_space and tokenizer.era in ("2.1", "2.2")
    byte_level = {"type": "ByteLevel", "add_prefix_space": every_segment, "trim_offsets": True,
                  "use_regex": True}  # fmt: skip
    return _assemble(tokenizer, vocabulary, model, _strip(tokenizer), byte_level)


def _wordpiece(tokenizer: Tokenizer, *, python_37: bool) -> Json:
    own = tokenizer.attributes
    vocabulary = _vocabulary(tokenizer, own["vocab"])
    pieces = attributes(own["wordpiece_tokenizer"])
    longest = pieces.get("max_input_chars_per_word")
    model = {
        "type": "WordPiece", "unk_token": _text(tokenizer, "unk") or "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": longest if type(longest) is int else 100,
        "vocab": vocabulary,
    }  # fmt: skip
    if own.get("do_basic_tokenize") is False:
        return _assemble(tokenizer, vocabulary, model, None, {"type": "WhitespaceSplit"})
    basic = attributes(own.get("basic_tokenizer"))
    strip = basic.get("strip_accents")
    bert = {
        "type": "BertNormalizer", "clean_text": True,
        "handle_chinese_chars": basic.get("tokenize_chinese_chars") is not False,
        "strip_accents": strip if isinstance(strip, bool) else None,
        "lowercase": basic.get("do_lower_case") is not False,
    }  # fmt: skip
    normalizer = {"type": "Sequence", "normalizers": [_drop_unknown(python_37=python_37), bert]}
    return _assemble(tokenizer, vocabulary, model, normalizer, {"type": "BertPreTokenizer"})


def _drop_unknown(*, python_37: bool) -> Json:
    """Drop characters unknown to the learner's Python, whose tokenizer treats them as controls."""
    characters = UNASSIGNED + (newer_characters() if python_37 else "")
    return {"type": "Replace", "pattern": {"Regex": f"[{characters}]"}, "content": ""}


def _strip(tokenizer: Tokenizer) -> Json | None:
    """What the era removes at both ends of each piece of text between special tokens.

    A tokenizer without tokens to split at takes the whole text unchanged.
    """
    if tokenizer.era in ("2.1", "2.2", "2.5") and tokenizer.splitting != frozenset():
        return {"type": "Strip", "strip_left": tokenizer.era != "2.5", "strip_right": True}
    return None


def _assemble(
    tokenizer: Tokenizer,
    vocabulary: Mapping[str, int],
    model: Json,
    normalizer: Json | None,
    pre_tokenizer: Json,
) -> Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokenizer, vocabulary),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _template(tokenizer, vocabulary),
        "decoder": None,
        "model": model,
    }


def _vocabulary(tokenizer: Tokenizer, table: object) -> dict[str, int]:
    """Token to id, in id order. Raises UnsupportedLearner for a broken table."""
    pairs = entries(table)
    found = {
        token: number
        for token, number in pairs
        if isinstance(token, str) and type(number) is int and number >= 0
    }
    if not found or len(found) != len(pairs) or len(set(found.values())) != len(found):
        raise _broken(tokenizer)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _added(tokenizer: Tokenizer, vocabulary: Mapping[str, int]) -> list[Json]:
    """Tokens that are found in the text before any other step."""
    tokens = {token.text: token for token in (*tokenizer.special.values(), *tokenizer.additional)}
    ids = dict(vocabulary)
    for token, number in _added_vocabulary(tokenizer).items():
        ids[token] = number
        tokens.setdefault(token, SpecialToken(token))
    cut_at = tokens.keys() if tokenizer.splitting is None else tokenizer.splitting
    known = sorted((ids[text], text) for text in tokens if text in ids)
    found = [_added_token(tokenizer.era, number, tokens[text]) for number, text in known]
    if tokenizer.kind == "WordPiece":
        # Its basic tokenizer also keeps special tokens whole if they stand alone.
        return [{**made, "single_word": made["content"] not in cut_at} for made in found]
    return [made for made in found if made["content"] in cut_at]


def _added_vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    added = named_entries(tokenizer.attributes.get("added_tokens_encoder"))
    return {token: number for token, number in added.items() if type(number) is int}


def _added_token(era: Era, number: int, token: SpecialToken) -> Json:
    if era == "2.5":
        left, right = True, False
    elif era in ("2.1", "2.2") or token.stripping is None:
        left, right = True, True
    else:
        left, right = token.stripping
    return {"id": number, "content": token.text, "single_word": False, "lstrip": left,
            "rstrip": right, "normalized": False, "special": True}  # fmt: skip


def _template(tokenizer: Tokenizer, vocabulary: Mapping[str, int]) -> Json:
    """``[CLS] text [SEP]``; XLNet puts both at the end."""
    cls, sep = _text(tokenizer, "cls"), _text(tokenizer, "sep")
    if cls not in vocabulary or sep not in vocabulary:
        raise _broken(tokenizer)
    order = ("A", sep, cls) if "xlnet" in tokenizer.cls.module else (cls, "A", sep)

    special_names = {name for name in (cls, sep) if name}

    def piece(name: str | None) -> Json:
        kind = "Sequence" if name == "A" else "SpecialToken"
        return {kind: {"id": name, "type_id": 0}}

    def special(name: str) -> Json:
        return {"id": name, "ids": [vocabulary[name]], "tokens": [name]}

    single = [piece(name) for name in order]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}, piece(sep)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {name: special(name) for name in sorted(special_names)},
    }


def _text(tokenizer: Tokenizer, role: str) -> str | None:
    token = tokenizer.special.get(role)
    return token.text if token else None


def _broken(tokenizer: Tokenizer) -> UnsupportedLearner:
    return UnsupportedLearner(
        f"the tokenizer in the file ({tokenizer.cls.name}) is incomplete or damaged",
        hint=OWN_TOKENIZER,
    )

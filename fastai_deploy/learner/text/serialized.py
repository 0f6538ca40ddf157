"""``tokenizer.json`` as the `tokenizers` library reads it, made from what a pickle holds.

Every function returns plain data; nothing here needs the library itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.reading.views import attributes, entries, named_entries
from fastai_deploy.learner.text.found import (
    Era,
    SpecialToken,
    Tokenizer,
    fast_json,
    fast_vocabulary,
)
from fastai_deploy.learner.text.handed import Handed
from fastai_deploy.learner.text.sentencepiece_model import SentencePieceModel, read_sentencepiece
from fastai_deploy.learner.text.unicode_11 import UNASSIGNED, newer_characters
from fastai_deploy.learner.text.unigram import KNOWN, held_model, unigram_parts

Json = dict[str, Any]

HAND_IN = (
    "hand in the tokenizer that the model was trained with, a folder with its spiece.model, "
    "sentencepiece.bpe.model or tokenizer.json: fdeploy export --tokenizer DIR"
)
OWN_TOKENIZER = (
    "load the learner in its own environment and export a tokenizer with save_pretrained()"
)


def tokenizer_json(
    tokenizer: Tokenizer, *, prefix_space: bool, python_37: bool, handed: Handed | None = None
) -> Json:
    """The tokenizer without truncation and padding, with special tokens around a single text.

    ``prefix_space``: whether the learner asks byte-level tokenizers to begin with a space;
    ``python_37``: whether the learner works in Python 3.7, whose Unicode is of 2018; ``handed``:
    what the user gave in the place of what the file lost.
    Raises UnsupportedLearner for a tokenizer that the file does not hold completely.
    """
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
            f"the file does not hold its tokenizer completely ({tokenizer.cls.name}, "
            f"{tokenizer.kind})",
            hint=HAND_IN,
        )
    vocabulary, unigram, normalizer, spaces = unigram_parts(tokenizer, model)
    return _assemble(tokenizer, vocabulary, unigram, normalizer, spaces)


def sentencepiece_of(tokenizer: Tokenizer, handed: Handed | None) -> SentencePieceModel | None:
    """The SentencePiece model: the one handed in, or the one in the file.

    Raises UnsupportedLearner for one that cannot be used.
    """
    if handed is not None and handed.model is not None:
        return handed.model
    held = held_model(tokenizer) if tokenizer.kind == "SentencePiece" else None
    return read_sentencepiece(held) if held is not None else None


def _fast(tokenizer: Tokenizer) -> Json:
    """A fast tokenizer carries its JSON in the pickle."""
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
    """Python's tokenizer takes characters that its Python does not know for control characters."""
    characters = UNASSIGNED + (newer_characters() if python_37 else "")
    return {"type": "Replace", "pattern": {"Regex": f"[{characters}]"}, "content": ""}


def _strip(tokenizer: Tokenizer) -> Json | None:
    """What the era removes at the ends of each piece of text between special tokens.

    A tokenizer without tokens to cut at takes the whole text as it is.
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
    """Token to id, in the order of the ids. Raises UnsupportedLearner for a broken table."""
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
    """Tokens that are found in the text before anything else is done with it."""
    tokens = {token.text: token for token in (*tokenizer.special.values(), *tokenizer.additional)}
    ids = dict(vocabulary)
    for token, number in _added_vocabulary(tokenizer).items():
        ids[token] = number
        tokens.setdefault(token, SpecialToken(token))
    cut_at = tokens.keys() if tokenizer.splitting is None else tokenizer.splitting
    known = sorted((ids[text], text) for text in tokens if text in ids)
    found = [_added_token(tokenizer.era, number, tokens[text]) for number, text in known]
    if tokenizer.kind == "WordPiece":
        # Its basic tokenizer leaves special tokens whole, too, where they stand alone.
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

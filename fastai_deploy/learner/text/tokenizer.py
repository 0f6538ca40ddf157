"""Find the Hugging Face tokenizer in a learner, and read its attributes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    Sequence,
    attribute,
    attributes,
    class_of,
    data,
    elements,
    entries,
    lookup,
)

Kind = Literal["fast", "byte-level BPE", "WordPiece", "SentencePiece", "unknown"]
Era = Literal["2.1", "2.2", "2.5", "3", "4", "fast"]

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_LIBRARIES = ("transformers", "pytorch_transformers", "pytorch_pretrained_bert")
_PARTS = frozenset({"BasicTokenizer", "WordpieceTokenizer", "JumanppTokenizer", "MecabTokenizer",
                    "SPMTokenizer"})  # fmt: skip
MOST = 1  # a learner with more than one tokenizer cannot be converted, so finding two is enough
MOST_VALUES = 4_000_000  # of a tokenizer.json: each takes up to 100 bytes; the largest have half
NO_LIMIT = 1_000_000  # a larger model_max_length means that there is none


@dataclass(frozen=True)
class SpecialToken:
    """A special token; ``stripping`` is (left, right) if the tokenizer says so, or else None."""

    text: str
    stripping: tuple[bool, bool] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Tokenizer:
    """A transformers tokenizer, as the pickle holds it.

    ``era`` is the first version of transformers that splits texts at special tokens in the same
    way; ``special`` maps roles (``cls``, ``sep``, ``pad``, ...) to tokens; ``max_length`` is in
    tokens; ``splitting`` are the tokens at which it splits texts, or None for all special tokens.
    ``serialized`` is the tokenizer.json that transformers itself makes of it, if it was asked.
    """

    cls: Global
    kind: Kind
    era: Era
    node: Call
    attributes: dict[str, object]
    special: dict[str, SpecialToken]
    additional: tuple[SpecialToken, ...]
    vocabulary_size: int
    max_length: int | None
    splitting: frozenset[str] | None
    serialized: dict[str, Any] | None = None


def find_tokenizers(calls: Iterable[Call]) -> tuple[Tokenizer, ...]:
    """Every transformers tokenizer in the file, each object once."""
    found: dict[int, Tokenizer] = {}
    for call in calls:
        cls = class_of(call)
        if len(found) > MOST:
            break
        if cls is not None and id(call) not in found and _is_tokenizer(cls) and call.states:
            found[id(call)] = _describe(cls, call)
    return tuple(found.values())


def _is_tokenizer(cls: Global) -> bool:
    return (
        cls.module.split(".")[0] in _LIBRARIES
        and ("Tokenizer" in cls.name)
        and cls.name not in _PARTS
    )


def _describe(cls: Global, node: Call) -> Tokenizer:
    own = attributes(node)
    kind = _kind(own)
    return Tokenizer(
        cls=cls,
        kind=kind,
        era=_era(own, kind),
        node=node,
        attributes=own,
        special=_special(own),
        additional=_additional(own),
        vocabulary_size=_vocabulary_size(own, kind),
        max_length=_max_length(own),
        splitting=_splitting(own),
    )


def _kind(own: dict[str, object]) -> Kind:
    if class_of(own.get("_tokenizer")) == Global("tokenizers", "Tokenizer"):
        return "fast"
    if {"encoder", "bpe_ranks", "byte_encoder"} <= own.keys():
        return "byte-level BPE"
    if {"vocab", "wordpiece_tokenizer"} <= own.keys():
        return "WordPiece"
    if any(name.startswith(("sp_model", "spm_")) for name in own):
        return "SentencePiece"
    return "unknown"


def _era(own: dict[str, object], kind: Kind) -> Era:
    """The era, recognised by attributes that a version was the first to have."""
    if kind == "fast":
        return "fast"
    if "tokens_trie" in own or "_added_tokens_decoder" in own:
        return "4"
    if "unique_no_split_tokens" in own:
        return "3"
    if "unique_added_tokens_encoder" in own:
        return "2.5"
    return "2.2" if "padding_side" in own else "2.1"


def _splitting(own: dict[str, object]) -> frozenset[str] | None:
    """Transformers 2.5 to 4.33 fills these in ``from_pretrained``, not in the constructor."""
    for name in ("unique_no_split_tokens", "unique_added_tokens_encoder"):
        listed = own.get(name)
        if isinstance(listed, Sequence):
            return frozenset(token for token in elements(listed) if isinstance(token, str))
    return None


def _special(own: dict[str, object]) -> dict[str, SpecialToken]:
    newer = own.get("_special_tokens_map")  # transformers 4.46 and later
    found: dict[str, SpecialToken] = {}
    for role in ROLES:
        value = own.get(f"_{role}_token")
        if value is None:
            value = lookup(newer, f"{role}_token")
        token = special_token(value)
        if token is not None:
            found[role] = token
    return found


def _additional(own: dict[str, object]) -> tuple[SpecialToken, ...]:
    listed = [
        *elements(own.get("_additional_special_tokens")),
        *elements(own.get("_extra_special_tokens")),
    ]
    return tuple(token for value in listed if (token := special_token(value)) is not None)


def special_token(value: object) -> SpecialToken | None:
    """A special token, stored as text or as an ``AddedToken``."""
    if isinstance(value, str):
        return SpecialToken(value) if value else None
    cls = class_of(value)
    content = attribute(value, "content")
    if isinstance(value, Call) and content is None and value.args:
        content = value.args[0]
    if cls is None or not cls.name.startswith("AddedToken") or not isinstance(content, str):
        return None
    own = attributes(value)
    return SpecialToken(content, (own.get("lstrip") is True, own.get("rstrip") is True))


def _vocabulary_size(own: dict[str, object], kind: Kind) -> int:
    if kind == "byte-level BPE":
        return len(entries(own["encoder"]))
    if kind == "WordPiece":
        return len(entries(own["vocab"]))
    made = fast_json(own) if kind == "fast" else None
    return len(fast_vocabulary(made)) if made is not None else 0


def fast_json(own: dict[str, object]) -> dict[str, Any] | None:
    """The ``tokenizer.json`` that a fast tokenizer stores in the pickle; None for any other."""
    inner = own.get("_tokenizer")
    states = inner.states if isinstance(inner, Call) else []
    held = data(states[-1]) if states else None
    if held is not None and sum(map(held.count, (b",", b"[", b"{"))) > MOST_VALUES:
        return None
    try:
        made = json.loads(held) if held is not None else None
    except (ValueError, RecursionError):
        return None
    return made if isinstance(made, dict) and isinstance(made.get("model"), dict) else None


def fast_vocabulary(made: Mapping[str, Any]) -> dict[str, int]:
    """Token to id of a tokenizer.json, including added tokens."""
    table, added = made["model"].get("vocab"), made.get("added_tokens")
    found: dict[str, int] = {}
    if isinstance(table, dict):
        found.update(table)
    elif isinstance(table, list):  # Unigram: [token, score] in the order of the ids
        found.update((str(item[0]), i) for i, item in enumerate(table) if isinstance(item, list))
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            found[token["content"]] = token.get("id", 0)
    return found


def _max_length(own: dict[str, object]) -> int | None:
    for name in ("model_max_length", "max_len"):
        value = own.get(name)
        if type(value) is int and 0 < value < NO_LIMIT:
            return value
    return None

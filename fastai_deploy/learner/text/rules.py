"""fastai's text rules around a tokenizer, versions 1 and 2: preprocessing and truncation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastai_deploy.learner.examine.modules import Root
from fastai_deploy.learner.examine.unproven import Unproven
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    attribute,
    attributes,
    class_of,
    elements,
    lookup,
)
from fastai_deploy.learner.text.tokenizer import NO_LIMIT, Tokenizer, fast_json
from fastai_deploy.learner.user_code.follow import Followed
from fastai_deploy.learner.user_code.objects import Objects

DROP_TRAILING_NUL = "drop-trailing-nul"
PREFIX_SPACE = "prefix-space"

USUAL_LENGTH = 512  # tokens, where nothing says how long a text may be
LENGTHS = ("max_seq_len", "max_len", "max_length", "max_seq_length", "seq_len", "maxlen")


@dataclass(frozen=True, eq=False, repr=False)
class TextRules:
    """How a text becomes ids.

    ``steps`` have the names used in the bundle's manifest; ``prefix_space``: whether a byte-level
    tokenizer starts texts with a space; ``max_length`` is in tokens, including special tokens, or
    None if nothing in the file says it. ``rules`` describes all of it in words. ``unproven`` is the
    code that turns a text into ids and that the file does not prove; ``assumptions`` is anything
    else that is assumed; ``problem`` says why the rules cannot be served, and is empty if they can.
    ``token_types`` are the types of the tokens before a text, of the text, and of those after it,
    if the model gets them: learners never pass them.
    """

    steps: tuple[str, ...]
    prefix_space: bool
    max_length: int | None
    rules: tuple[str, ...]
    unproven: tuple[Unproven, ...] = ()
    assumptions: tuple[str, ...] = ()
    problem: str = ""
    token_types: tuple[tuple[int, ...], int, tuple[int, ...]] | None = None


def length_of(holder: dict[str, object], tokenizer: Tokenizer) -> int | None:
    """The length at which texts are cut: the wrapper's, or else the tokenizer's."""
    for name in LENGTHS:
        value = holder.get(name)
        if type(value) is int and 0 < value < NO_LIMIT:
            return value
    return tokenizer.max_length


def longest(stated: int | None, config: object, model: object = None) -> int:
    """The length of the longest text in tokens: where texts are cut, but no more than positions.

    A RoBERTa never uses its first positions: it has two more than its texts have tokens. A model
    with relative or rotary positions may read more than its configuration says: the ``model`` is
    tried if there is one.
    """
    if stated is not None and stated >= NO_LIMIT:
        stated = None
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < NO_LIMIT:
        offset = (getattr(config, "pad_token_id", 0) or 0) + 1
        known = positions - offset if _counts_from_padding(config) else positions
        if stated and stated > known and model is not None and _reads(model, config, known + 1):
            return stated
        return min(stated, known) if stated else known
    return stated or USUAL_LENGTH


_MOST_TRIED = 2_049  # tokens: attention to n tokens takes n * n numbers for each head
# Rotary embeddings that turn otherwise in texts beyond the positions, which a graph cannot do.
_BY_LENGTH = ("dynamic", "longrope")


def _reads(model: Any, config: object, length: int) -> bool:
    """Whether a transformer computes an answer to a text of this many tokens."""
    import torch  # noqa: PLC0415 - heavy, and not needed to read a file

    turning = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    kind = turning.get("rope_type", turning.get("type")) if isinstance(turning, dict) else None
    if length > _MOST_TRIED or kind in _BY_LENGTH:
        return False
    token = next(each for each in (1, 2) if each != getattr(config, "pad_token_id", None))
    try:
        with torch.no_grad():
            model(input_ids=torch.full((1, length), token))
    except (IndexError, RuntimeError, ValueError):  # its table of positions has no more rows
        return False
    return True


def _counts_from_padding(config: object) -> bool:
    """Whether positions start after the padding id, as in RoBERTa and its descendants."""
    return str(getattr(config, "model_type", "")) in (
        "roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "longformer", "mpnet", "xmod",
        "data2vec-text", "ibert", "luke", "esm", "roberta-prelayernorm",
    )  # fmt: skip


def blank_residue(tokenizer: Tokenizer) -> str | None:
    """How the tokenizer's version treats a blank text, if that cannot be reproduced."""
    if tokenizer.era == "2.1":
        return (
            "a blank text: transformers 2.1 replaces it with a random special token; here it has "
            "none"
        )
    if tokenizer.kind != "byte-level BPE":
        return None
    return {
        "2.5": "an empty text: transformers 2.5 to 2.11 fail; here it has no tokens. "
        "Transformers 2.4, which looks the same in the file, also ignores spaces at the start",
        "3": "a blank text that is not empty: transformers 3 gives it no token; here it has one",
    }.get(tokenizer.era)


def residues(tokenizer: Tokenizer, *, python_37: bool) -> tuple[str, ...]:
    """Known differences from the learner's own tokenizer, all on unusual texts."""
    if tokenizer.kind == "fast":
        return ()
    found = [blank_residue(tokenizer)]
    if tokenizer.kind == "WordPiece":
        found.append(
            "characters from 2018 and later, such as new emoji: the learner ignores those that its "
            "Python did not know, and the file does not say which Python that was; "
            + (
                "here those after Unicode 11 (Python 3.7) are ignored"
                if python_37
                else "here those after the newest Unicode are ignored"
            )
        )
    found.append(
        "control characters U+001C to U+001F at the ends of a text or next to a literal special "
        "token: Python treats them as blanks; here they are not"
    )
    return tuple(item for item in found if item)


_ASSUMED = (
    "its code is not in the file; it is assumed to put the special tokens around the text and to "
    "cut it at the end"
)


def rules_v1(root: Root, tokenizer: Tokenizer) -> TextRules:
    """The rules of a learner of fastai 1."""
    processors = elements(lookup(root.data, "x_proc"))
    tokenizing = _processor(processors, "TokenizeProcessor")
    wrapper = attribute(tokenizing, "tokenizer", "tok_func")
    prefix = tokenizer.kind == "byte-level BPE"
    steps = [DROP_TRAILING_NUL]
    if prefix and tokenizer.era not in ("2.1", "2.2"):
        steps.append(PREFIX_SPACE)
    limit = length_of(attributes(wrapper), tokenizer)
    name = class_of(wrapper) or (wrapper if isinstance(wrapper, Global) else None)
    return TextRules(
        steps=tuple(steps),
        prefix_space=prefix,
        max_length=limit,
        rules=_rules(tokenizer, limit, prefix=prefix),
        unproven=(Unproven(f"the tokenizer class {name or ''}".strip(), _ASSUMED, part="text"),),
        problem=_problem(processors, tokenizing),
    )


def _rules(tokenizer: Tokenizer, limit: int | None, *, prefix: bool) -> tuple[str, ...]:
    found = ["NUL characters at the end of a text are dropped", "no fastai rules, no xxbos"]
    if prefix:
        found.append("a space is added before the text")
    if limit is not None:
        found.append(f"cut to {limit} tokens, including special tokens")
    order = "at the end" if "xlnet" in tokenizer.cls.module else "around the text"
    return (*found, f"special tokens {order}")


def _processor(processors: list[object], name: str) -> Call | None:
    for value in processors:
        cls = class_of(value)
        if cls is not None and cls.name == name and isinstance(value, Call):
            return value
    return None


def _problem(processors: list[object], tokenizing: Call | None) -> str:
    """Why the pipeline is not the one above, or an empty string."""
    if tokenizing is None:
        return "its texts do not go through fastai's TokenizeProcessor"
    own = attributes(tokenizing)
    within = attributes(own.get("tokenizer"))
    rules = [*elements(within.get("pre_rules")), *elements(within.get("post_rules"))]
    if rules:
        return f"its texts go through fastai's rules ({_name(rules[0])}, ...) before the tokenizer"
    for mark in ("mark_fields", "include_bos", "include_eos"):
        if own.get(mark) is True:
            return f"its texts are marked with fastai's own tokens ({mark}=True)"
    numericalizing = _processor(processors, "NumericalizeProcessor")
    itos = elements(attribute(numericalizing, "vocab", "itos"))
    cls = class_of(attribute(numericalizing, "vocab"))
    if itos and cls is not None and cls.module.startswith("fastai"):
        return "its ids come from a fastai vocabulary, not from the tokenizer's own"
    return ""


def _name(value: object) -> str:
    return value.name if isinstance(value, Global) else str(class_of(value) or "a function")


def rules_v2(
    calls: Iterable[Call], tokenizer: Tokenizer, objects: Objects, followed: Followed
) -> TextRules:
    """The rules of a learner of fastai 2; ``followed`` is what its code shows about them."""
    holder = _holder(tuple(calls), tokenizer, objects)
    encoded, unproven = followed.encoded, followed.unproven
    if encoded is not None:
        limit = encoded.limit
    else:
        limit = _truncation(tokenizer) or length_of(attributes(holder), tokenizer)
    function = objects.function(holder)
    name = function.code.name if function is not None else class_of(holder)
    return TextRules(
        steps=(),
        prefix_space=False,
        max_length=limit,
        rules=tuple(
            filter(
                None,
                (
                    f"the tokenizer is called by {name}" if name else "",
                    "special tokens around the text",
                    f"cut to {limit} tokens, including special tokens" if limit else "",
                ),
            )
        ),
        unproven=unproven,
        problem="" if holder is not None else "no transform in its pipeline holds the tokenizer",
    )


def _holder(calls: Iterable[Call], tokenizer: Tokenizer, objects: Objects) -> Call | None:
    """The object with the tokenizer as an attribute, or the function that uses it by name."""
    for call in calls:
        if call.states and call is not tokenizer.node:
            own = attributes(call)
            if any(value is tokenizer.node for value in own.values()):
                return call
    for call in calls:
        function = objects.function(call)
        if function is not None:
            around = (*function.globals.values(), *function.closure)
            if any(each is tokenizer.node for each in around):
                return call
    return None


def _truncation(tokenizer: Tokenizer) -> int | None:
    """The length at which a fast tokenizer cut the last text that it was given."""
    made = fast_json(tokenizer.attributes)
    truncation = made.get("truncation") if made is not None else None
    length = truncation.get("max_length") if isinstance(truncation, dict) else None
    return length if type(length) is int and length > 0 else None

"""The text rules of a fastai 1 learner around a transformers tokenizer.

The way of the well-known notebooks: a ``BaseTokenizer`` of the user's cuts the text into tokens,
keeps ``max_seq_len - 2`` of them and puts the special tokens around them; a ``Vocab`` of the
user's looks their ids up. The user's two classes are not in the file, only their attributes.
"""

from __future__ import annotations

from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import attribute, attributes, class_of, elements, lookup
from fastai_deploy.learner.roots import Root
from fastai_deploy.learner.text.found import Tokenizer
from fastai_deploy.learner.text.rules import (
    DROP_TRAILING_NUL,
    PREFIX_SPACE,
    TextRules,
    length_of,
)
from fastai_deploy.learner.unproven import Unproven

_ASSUMED = (
    "its code is not in the file; it is taken to put the special tokens around the text and to cut "
    "it at the end"
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
    found = ["NUL characters at the end of a text vanish", "no fastai rules, no xxbos"]
    if prefix:
        found.append("a space is put before the text")
    if limit is not None:
        found.append(f"cut to {limit} tokens, special tokens included")
    order = "at the end" if "xlnet" in tokenizer.cls.module else "around the text"
    return (*found, f"special tokens {order}")


def _processor(processors: list[object], name: str) -> Call | None:
    for value in processors:
        cls = class_of(value)
        if cls is not None and cls.name == name and isinstance(value, Call):
            return value
    return None


def _problem(processors: list[object], tokenizing: Call | None) -> str:
    """Why the pipeline is not the one above, or nothing."""
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
        return "its ids come from a fastai vocabulary beside the tokenizer's own"
    return ""


def _name(value: object) -> str:
    return value.name if isinstance(value, Global) else str(class_of(value) or "a function")

"""The rules around a tokenizer: what is done to a text before it, and where it is cut."""

from __future__ import annotations

from dataclasses import dataclass

from fastai_deploy.learner.text.found import NO_LIMIT, Tokenizer
from fastai_deploy.learner.unproven import Unproven

DROP_TRAILING_NUL = "drop-trailing-nul"
PREFIX_SPACE = "prefix-space"

LENGTHS = ("max_seq_len", "max_len", "max_length", "max_seq_length", "seq_len", "maxlen")


@dataclass(frozen=True, eq=False, repr=False)
class TextRules:
    """How a text becomes ids.

    ``steps`` are named as in the bundle's manifest; ``prefix_space``: whether a byte-level
    tokenizer is asked to begin texts with a space; ``max_length`` is in tokens, special ones
    included, or None where nothing in the file says it. ``rules`` says all of it in words.
    ``unproven`` is the code that turns a text into ids and that the file does not prove;
    ``assumptions`` are what else is taken for granted; ``problem`` is why the rules cannot be
    served, empty when they can.
    """

    steps: tuple[str, ...]
    prefix_space: bool
    max_length: int | None
    rules: tuple[str, ...]
    unproven: tuple[Unproven, ...] = ()
    assumptions: tuple[str, ...] = ()
    problem: str = ""


def length_of(holder: dict[str, object], tokenizer: Tokenizer) -> int | None:
    """The length at which texts are cut: the wrapper's own, else the tokenizer's."""
    for name in LENGTHS:
        value = holder.get(name)
        if type(value) is int and 0 < value < NO_LIMIT:
            return value
    return tokenizer.max_length


def blank_residue(tokenizer: Tokenizer) -> str | None:
    """What the tokenizer's era does with a blank text, where that cannot be reproduced."""
    if tokenizer.era == "2.1":
        return (
            "a blank text: transformers 2.1 puts a random special token in its place; here it has "
            "none"
        )
    if tokenizer.kind != "byte-level BPE":
        return None
    return {
        "2.5": "an empty text: transformers 2.5 to 2.11 fail on it; here it has no tokens. "
        "Transformers 2.4, which looks the same in the file, also ignores spaces at the start",
        "3": "a blank text that is not empty: transformers 3 gives it no token; here it has one",
    }.get(tokenizer.era)


def residues(tokenizer: Tokenizer, *, python_37: bool) -> tuple[str, ...]:
    """Known differences from the learner's own tokenizer, each on unusual texts only."""
    if tokenizer.kind == "fast":
        return ()
    found = [blank_residue(tokenizer)]
    if tokenizer.kind == "WordPiece":
        found.append(
            "characters of 2018 and later, such as new emoji: the learner ignores those that its "
            "Python did not know, and the file does not say which Python that was; "
            + (
                "here those after Unicode 11 (Python 3.7) are ignored"
                if python_37
                else "here those after the newest Unicode are ignored"
            )
        )
    found.append(
        "control characters U+001C to U+001F at the ends of a text or next to a literal special "
        "token: Python counts them as blanks; here they are not"
    )
    return tuple(item for item in found if item)

"""spaCy's tokenization rules for a language, as data for the bundle.

A learner of fastai 2 contains them: its file has the tokenizer with special cases and patterns. A
learner of fastai 1 contains only the name of the language, so the rules come from the installed
spaCy; its tokenizer is loaded to read them, and never used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from fastai_deploy.errors import UnsupportedLearner, need_extra
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    class_of,
    elements,
    entries,
    named_entries,
)

Rules = dict[str, Any]

EXTRA = "ulmfit"
TOKENIZER = Global("spacy.tokenizer", "Tokenizer")
PATTERNS = ("prefix", "suffix", "infix", "token_match", "url_match")
ORTH = 65  # spaCy's number for a token's text; part of its file format, so it never changes
MAX_CASES = 100_000  # special cases; the largest language has 6,000
MAX_PATTERN = 1 << 22  # characters of a pattern; French has one of 1.5 million
_FLAGS = int(re.IGNORECASE | re.MULTILINE | re.DOTALL | re.UNICODE | re.VERBOSE | re.ASCII)
_METHODS = {"prefix": "search", "suffix": "search", "infix": "finditer",
            "token_match": "match", "url_match": "match"}  # fmt: skip


def rules_in_file(calls: Iterable[Call]) -> Rules | str | None:
    """The rules of the only spaCy tokenizer in a file; None if there is none.

    A string says why they cannot be used.
    """
    found = {id(call): call for call in calls if class_of(call) == TOKENIZER}
    if not found:
        return None
    if len(found) > 1:
        return "the file contains more than one spaCy tokenizer"
    return _read(next(iter(found.values())))


def _read(tokenizer: Call) -> Rules | str:
    """Vocabulary, special cases, and the patterns (one fewer in spaCy 2.2)."""
    arguments = tokenizer.args[1:]
    if not len(PATTERNS) <= len(arguments) <= len(PATTERNS) + 1:
        return "its spaCy tokenizer comes from an unknown version"
    cases, *searches = arguments
    rules: Rules = {"special": {}}
    for text, parts in named_entries(cases).items():
        split = [part for part in map(_orth, elements(parts)) if part is not None]
        # spaCy checks this too: a special case only says where its text is cut.
        if "".join(split) != text or not split or len(rules["special"]) > MAX_CASES:
            return f"a special case of its spaCy tokenizer cannot be read ({text[:40]!r})"
        rules["special"][text] = split
    for name, value in zip(PATTERNS, (*searches, None), strict=False):
        pattern = _pattern(value, _METHODS[name])
        if isinstance(pattern, str):
            return f"the {name} rule of its spaCy tokenizer cannot be read: {pattern}"
        rules[name] = pattern
    return rules


def _orth(part: object) -> str | None:
    found = dict(entries(part)).get(ORTH) if part is not None else None
    return found if isinstance(found, str) and found else None


def _pattern(value: object, method: str) -> list[Any] | str | None:
    """``[pattern, flags]`` of a compiled pattern's method; None for none; or else the reason.

    The pattern is not compiled here: a large one takes seconds, which inspection must not.
    """
    if value is None:
        return None
    match value:
        case Call(
            func=Global("builtins" | "__builtin__", "getattr"),
            args=(Call(func=Global("re", "_compile"), args=(str(pattern), int(flags))), str(name)),
        ):
            if name != method or len(pattern) > MAX_PATTERN or flags & ~_FLAGS:
                return "it is not used in the usual way"
            return [pattern, flags]
    return "it is a function, not a pattern"


def rules_of_language(language: str, marks: Iterable[str]) -> Rules:
    """The installed spaCy's rules for a language; ``marks`` are words that are never split.

    Raises ExtraMissing, or UnsupportedLearner for a language without such rules.
    """
    need_extra(EXTRA, "spacy")
    # The import takes a second, and few learners need it.
    import spacy  # noqa: PLC0415

    try:
        tokenizer: Any = spacy.blank(language).tokenizer
    except Exception as error:  # spaCy's errors for an unknown or incomplete language vary
        reason = str(error).splitlines()[0][:200]
        raise UnsupportedLearner(
            f"spaCy {version('spacy')} has no tokenizer for the language {language!r}: {reason}",
            hint="install the language package that the learner was trained with",
        ) from error
    if type(tokenizer).__name__ != "Tokenizer":
        raise UnsupportedLearner(
            f"spaCy splits {language!r} with code ({type(tokenizer).__name__}), not rules",
            hint=RUNTIME,
        )
    rules: Rules = {
        "special": {text: [_attribute(part) for part in parts]
                    for text, parts in tokenizer.rules.items()}
    }  # fmt: skip
    rules["special"].update({mark: [mark] for mark in marks})
    searches = (tokenizer.prefix_search, tokenizer.suffix_search, tokenizer.infix_finditer,
                tokenizer.token_match, tokenizer.url_match)  # fmt: skip
    for name, search in zip(PATTERNS, searches, strict=True):
        compiled = getattr(search, "__self__", None)
        if search is not None and not isinstance(compiled, re.Pattern):
            raise UnsupportedLearner(
                f"the {name} rule of spaCy for {language!r} is a function, not a pattern",
                hint="report this with the output of: fdeploy inspect",
            )
        rules[name] = None if compiled is None else [compiled.pattern, compiled.flags]
    return rules


def _attribute(part: Mapping[Any, Any]) -> str:
    """The text of part of a special case; its key is a number or a name."""
    return str(part[ORTH] if ORTH in part else part["ORTH"])

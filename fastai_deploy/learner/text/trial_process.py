"""The process in which a learner's text pipeline is tried: see ``trial``.

It imports neither torch nor transformers, and answers with one sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from fastai_deploy.environments.limited_process import answer

_ROW = 1_000  # characters per row: the maximum length of a word in ``runtime/word_tokenizer.py``
_LONG_ROW = 100_000  # long enough for anything that takes quadratic time to hit the limit
_KINDS = 64  # characters named in patterns that are tried in rows
_ALWAYS = "a1 .-_!\n\"'(@/<\u00e9\u4e2d"  # one of each character class in patterns
_LONG = " a"
_EXPANSION = 40  # most characters that one may become; Unicode's own normal forms make 18
_SHORT = 1_000  # characters to which that limit does not apply


def work(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Why the pipeline cannot be used; empty if it can."""
    tried = _try_tokenizer if "tokenizer" in given else _try_words
    return {"problem": next(tried(given), "")}


def _try_tokenizer(given: Mapping[str, Any]) -> Iterator[str]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - word rules do not need it

    from fastai_deploy.runtime.tokenizer import word_end  # noqa: PLC0415

    try:
        tokenizer = Tokenizer.from_str(given["tokenizer"])
        tokenizer.no_padding()
        tokenizer.enable_truncation(given["max_length"])
        word_end(tokenizer)
        around = tokenizer.num_special_tokens_to_add(is_pair=False)
    except BaseException as error:  # noqa: BLE001 - Exception itself, or a panic in Rust
        yield _told(error)
        return
    if around >= given["max_length"]:
        yield f"it puts {around:,} special tokens around a text, which leaves no room for the text"
    for name, text in _texts(given):
        try:
            longest = _EXPANSION * len(text) + _SHORT
            normalizer = tokenizer.normalizer
            if normalizer is not None and len(normalizer.normalize_str(text)) > longest:
                yield f"it makes {name} more than {_EXPANSION} times as long"
            tokenizer.encode(text)
        except BaseException as error:  # noqa: BLE001, PERF203 - likewise
            yield f"it fails on {name}: {_told(error)}"


def _try_words(given: Mapping[str, Any]) -> Iterator[str]:
    from fastai_deploy.runtime.word_tokenizer import (  # noqa: PLC0415 - a tokenizer needs none
        WordTokenizer,
        describe,
    )

    splitter = {"kind": "rules", "rules": given["rules"]}
    try:
        words = WordTokenizer(
            describe(
                given["before"], splitter, given["after"], {}, unknown=0, backwards=False, step=1
            )
        )
    except Exception as error:  # noqa: BLE001 - also RecursionError and OverflowError
        yield _told(error)
        return
    for name, text in _texts(given):
        try:
            words.split(text)
        except Exception as error:  # noqa: BLE001, PERF203 - likewise
            yield f"they fail on {name}: {_told(error)}"


def _texts(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Named texts: the given ones, then texts on which a careless pattern backtracks."""
    for number, text in enumerate(given["texts"], start=1):
        yield f"golden text {number}", text
    named = [char for char in dict.fromkeys("".join(given["patterns"])) if char.isprintable()]
    for char in dict.fromkeys((*_ALWAYS, *named[:_KINDS])):
        for unit in (char, f"{char}a", f"{char}1"):
            yield f"a row of {unit!r}", unit * (_ROW // len(unit)) + "\x01"
    for char in _LONG:
        yield f"a long row of {char!r}", char * _LONG_ROW + "\x01"


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


if __name__ == "__main__":
    answer(sys.argv[1:], work)

"""Text for a terminal: what would move, paint or hide there is shown as an escape instead.

A label, a class name or a path comes from a file, and whoever wrote the file chose it. Everything
that the command line prints goes through here: control characters (ESC and the others below 0x20,
DEL, 0x80 to 0x9f), line and paragraph separators, characters that change the direction of writing
or show nothing, and lone surrogates. Only the two joiners stay, which Persian and emoji need.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

_HIDDEN = ("Cc", "Cs", "Zl", "Zp", "Cf")
_JOINERS = "\u200c\u200d"

T = TypeVar("T")


def visible(text: str) -> str:
    """One line of text, in which a line break is an escape, too."""
    return _escaped(text, lambda char: ascii(char)[1:-1])


def visible_lines(text: str) -> str:
    """Text whose line breaks are its own."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """JSON of the same meaning; its line breaks stand between values and stay."""
    return "\n".join(
        _escaped(line, lambda char: json.dumps(char)[1:-1]) for line in text.split("\n")
    )


def visible_fields(value: T) -> T:
    """A record in which every text is :func:`visible`, those of the records in it included."""
    return _visible_value(value)  # type: ignore[no-any-return] # the type that it had


def shortened(text: str, length: int) -> str:
    """The first characters of a text, and how many more there are."""
    if len(text) <= length:
        return text
    return f"{text[:length]}... ({len(text) - length:,} more characters)"


def some(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _visible_value(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, tuple):
        return tuple(map(_visible_value, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value,
            **{each.name: _visible_value(getattr(value, each.name)) for each in fields(value)},
        )
    return value


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(escape(char) if _is_hidden(char) else char for char in text)


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN and char not in _JOINERS

"""Makes untrusted text safe for a terminal by showing control characters as escapes.

Labels, class names and paths come from files, so whoever wrote the file chose them. Everything the
command line prints passes through here. Escaped are control characters (those below 0x20 such as
ESC, DEL, 0x80 to 0x9f), line and paragraph separators, characters that change the writing direction
or are invisible, and lone surrogates. The two joiners, which Persian and emoji need, are kept.
"""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TextIO, TypeVar

_HIDDEN = ("Cc", "Cs", "Zl", "Zp", "Cf")
_JOINERS = "\u200c\u200d"

T = TypeVar("T")


STAND_INS = "fdeploy-stand-ins"
"""Error handler for streams whose encoding lacks some characters: ``Δ`` becomes ``d``."""

_SIMILAR = {
    **dict.fromkeys("█▓▇▆▅▄▃▂▁", "#"),
    "…": "...",
    "Δ": "d",
    "✓": "ok",
    "—": "-",
    "─": "-",
    "━": "-",
    "╸": "-",
    "·": "-",
}


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SIMILAR.get(char, ascii(char)[1:-1]) for char in lacking), error.end


codecs.register_error(STAND_INS, _stand_in)


def json_line(values: Any, stream: TextIO, plain: Callable[[Any], Any] | None = None) -> str:
    """Values as one line of JSON that a stream can write in its encoding.

    ``plain`` converts what JSON does not have.
    """
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    text = json.dumps(values, ensure_ascii=encoding != "utf8", default=plain)
    return visible_json(text)


def visible(text: str) -> str:
    """Escape one line of text, line breaks included."""
    return _escaped(text, lambda char: ascii(char)[1:-1])


def visible_lines(text: str) -> str:
    """Escape text but keep its line breaks."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """Escape JSON without changing its meaning; line breaks between values are kept."""
    return "\n".join(
        _escaped(line, lambda char: json.dumps(char)[1:-1]) for line in text.split("\n")
    )


def visible_fields(value: T) -> T:
    """Return a copy of a record with every text escaped, in nested records too."""
    return _visible_value(value)  # type: ignore[no-any-return] # the type that it had


def shortened(text: str, length: int) -> str:
    """Cut a text to ``length`` characters and say how many were left out."""
    if len(text) <= length:
        return text
    return f"{text[:length]}... ({len(text) - length:,} more characters)"


def some(names: Sequence[str], most: int) -> str:
    """Join the first ``most`` names and say how many more there are."""
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

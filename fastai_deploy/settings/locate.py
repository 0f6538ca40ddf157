"""Where in a TOML file a key stands.

The TOML parser gives values without positions, and an error without a line makes its reader search.
This finds the line of a key by the table headers and ``key =`` lines before it; a key inside an
inline table is reported at the line of the innermost key that is found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PART = r"""\s*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')\s*"""
_DOTTED = rf"{_PART}(?:\.{_PART})*"
_HEADER = re.compile(rf"^\s*\[({_DOTTED})\]")
_KEY = re.compile(rf"^({_DOTTED})=")
_NAME = re.compile(r"""[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'""")


def line_of(text: str, path: Sequence[str]) -> int | None:
    """The line, from 1, of the key at ``path``; else of its nearest table; else None."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = found = _names(header[1])
        elif key := _KEY.match(line):
            found = table + _names(key[1])
        else:
            continue
        if tuple(path[: len(found)]) == found and (best is None or len(found) > best[0]):
            best = (len(found), number)
    return best[1] if best else None


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in _NAME.findall(dotted))

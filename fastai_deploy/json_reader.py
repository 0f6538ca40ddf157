"""Strict JSON with typed access, for files that people may have edited.

Mistakes that ``json.loads`` accepts are errors here: duplicate keys, NaN and Infinity, lone
surrogates, and extreme nesting.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fastai_deploy import files
from fastai_deploy.errors import FileError

_LONGEST_NUMBER = 300  # digits; a float holds no more


class BadJson(ValueError):
    """The text is not valid JSON; the message says why."""


def parse(text: str | bytes, *, halves: bool = False) -> Any:
    """Parse a JSON text. Raises BadJson with the reason.

    ``halves`` accepts lone surrogates, as JSON does.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_whole
        )
        if not halves and "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise BadJson("not UTF-8") from None
    except UnicodeEncodeError:
        raise BadJson("a string contains half a character (a lone surrogate)") from None
    except RecursionError:
        raise BadJson("nested too deeply") from None
    return value


def read_object(path: Path, hint: str, *, most: int = files.MOST) -> Reader:
    """Read a JSON object from a file. Raises FileError, with ``hint`` if its content is invalid."""
    data = files.read(path, most=most)
    try:
        return Reader(parse(data), str(path), hint)
    except BadJson as error:
        raise FileError(f"{path} is damaged: {error}", hint=hint) from None


@dataclass(frozen=True)
class Reader:
    """A JSON object with typed access; ``where`` and ``hint`` go into its errors.

    Every method raises FileError, which names the key and the expected type.
    """

    value: Any
    where: str
    hint: str
    path: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.value, dict):
            self.wrong("", "expected an object")

    def wrong(self, key: str, what: str) -> NoReturn:
        """Raise FileError for a key."""
        name = f"{self.path}{key}".rstrip(".")
        raise FileError(f"{self.where}: {name + ': ' if name else ''}{what}", hint=self.hint)

    def has(self, key: str) -> bool:
        """Whether the key is present and not null."""
        return self.value.get(key) is not None

    def section(self, key: str) -> Reader:
        """An object."""
        return Reader(self._get(key), self.where, self.hint, f"{self.path}{key}.")

    def sections(self, key: str) -> Iterator[Reader]:
        """The objects of a list."""
        for number, value in enumerate(self.items(key)):
            yield Reader(value, self.where, self.hint, f"{self.path}{key}[{number}].")

    def items(self, key: str) -> list[Any]:
        """A list of any values."""
        value = self._get(key)
        if not isinstance(value, list):
            self.wrong(key, "expected a list")
        return value

    def text(self, key: str) -> str:
        """A string."""
        value = self._get(key)
        if not isinstance(value, str):
            self.wrong(key, "expected a string")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.wrong(key, "expected a list of strings")
        return tuple(value)

    def whole(self, key: str) -> int:
        """A non-negative integer."""
        value = self._get(key)
        if type(value) is not int or value < 0:
            self.wrong(key, "expected a non-negative integer")
        return value

    def integer(self, key: str) -> int:
        """A signed 64-bit integer."""
        value = self._get(key)
        if type(value) is not int or not -(2**63) <= value < 2**63:
            self.wrong(key, "expected a 64-bit integer")
        return value

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            self.wrong(key, "expected true or false")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong(key, "expected a number")
        if not math.isfinite(value):
            self.wrong(key, "expected a finite number")
        return float(value)

    def choice(self, key: str, *choices: str) -> str:
        """One of the given strings."""
        value = self._get(key)
        if value not in choices:
            self.wrong(key, f"expected one of: {', '.join(choices)}")
        return str(value)

    def matching(self, key: str, fits: Callable[[str], object], what: str) -> str:
        """A string for which ``fits`` is true; ``what`` describes it in the error."""
        value = self.text(key)
        if not fits(value):
            self.wrong(key, f"expected {what}")
        return value

    def _get(self, key: str) -> Any:
        if key not in self.value:
            self.wrong(key, "missing")
        return self.value[key]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise BadJson(f"duplicate key {name[:40]!a}")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise BadJson("a number has too many digits")
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not valid in JSON")

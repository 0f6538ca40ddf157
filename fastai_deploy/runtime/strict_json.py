"""Strict, bounded JSON for the contract: no duplicate keys, NaN, deep nesting or huge numbers."""

from __future__ import annotations

import json
from typing import Any, Dict, List, NoReturn, Sequence, Tuple, Union

from .error_responses import RequestError

Json = Any

MAX_PARTS = 4_000
"""Opening brackets outside strings in one document. A request of the contract needs two, and 1,000
wrong items a few more. The parser never sees a document whose memory (24 bytes for each byte of
``[],[],...``) or depth could grow far beyond the size of the body."""

LONGEST_INTEGER = 18
_LONGEST_FRACTION = 32
HUGE = 1_000_000_000_000_000_000
_BLANKS = " \t\r\n"
_TOO_DEEP = "the JSON is nested too deeply or has too many parts"


def load(text: str) -> Json:
    """The document; integers of more than 18 digits become 10**18, all fractions become one.

    Raises only RequestError 400, whatever the text is.
    """
    if _parts(text) > MAX_PARTS:
        bad_json(_TOO_DEEP)
    try:
        return _STRICT.decode(text)
    except RecursionError:
        bad_json(_TOO_DEEP)
    except ValueError:
        bad_json("the body is not JSON")


def is_object_with(text: str, keys: Sequence[str]) -> bool:
    """Whether a text is a JSON object with one of the keys, even if ``load`` would refuse it.

    Never raises. Text too large or too deep to be parsed counts as no object.
    """
    if text.lstrip(_BLANKS)[:1] != "{" or _parts(text) > MAX_PARTS:
        return False
    try:
        value = _LENIENT.decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and any(key in value for key in keys)


def encode(value: Json) -> bytes:
    """Compact UTF-8 JSON; raises ValueError for NaN and infinities, which are not JSON."""
    return _COMPACT.encode(value).encode("utf-8")


def bad_json(message: str, hint: str = 'send {"text": "..."} as UTF-8 JSON') -> NoReturn:
    """Raise RequestError 400."""
    raise RequestError(400, "invalid_json", message, hint) from None


def _parts(text: str) -> int:
    """How many arrays and objects the document opens, not counting brackets in strings.

    Strings are examined only if the plain count is suspicious, so the usual request costs two
    passes of ``str.count``.
    """
    plain = text.count("[") + text.count("{")
    if plain <= MAX_PARTS:
        return plain
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    return outside.count("[") + outside.count("{")


def _unique(pairs: List[Tuple[str, Json]]) -> Dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        bad_json("the JSON has a duplicate key")
    return value


def _integer(digits: str) -> int:
    """Parse an integer. More than 18 digits would take quadratic time; they become 10**18."""
    if len(digits) <= LONGEST_INTEGER:
        return int(digits)
    return -HUGE if digits.startswith("-") else HUGE


def _fraction(digits: str) -> Union[int, float]:
    """``3.0`` and ``3e0`` are integers, as in JSON Schema; any other fraction becomes the same one.

    No request of the contract has fractions, so their value is not worth computing.
    """
    value = float(digits) if len(digits) <= _LONGEST_FRACTION else 0.5
    return int(max(-HUGE, min(HUGE, value))) if value.is_integer() else 0.5


def _constant(_name: str) -> NoReturn:
    bad_json("NaN and Infinity are not JSON")


# Created once: json.loads and json.dumps with options create one for each call.
_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_constant,
    parse_int=_integer,
    parse_float=_fraction,
)
_LENIENT = json.JSONDecoder(parse_int=_integer, parse_float=_fraction)
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

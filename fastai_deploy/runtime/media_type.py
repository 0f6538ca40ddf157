"""The Content-Type header: which of the contract's kinds a body is, and in which charset."""

from __future__ import annotations

import re
from typing import Optional, Tuple

from .request_error import RequestError

JSON = "application/json"
TEXT = "text/plain"
JSON_LINES = ("application/jsonlines", "application/x-ndjson")

# Every spelling that is accepted, with Python's codec. A short list on purpose: some of Python's
# other codecs are no charsets (rot13, zlib), decode in quadratic time (punycode) or run escapes.
_CHARSETS = {
    "utf-8": "utf-8-sig",
    "utf8": "utf-8-sig",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}
_LONGEST_HEADER = 256
_CHARSET = re.compile(r'\bcharset\s*=\s*"?([^\s;,"]+)"?', re.IGNORECASE)


def media_type(content_type: Optional[str]) -> Tuple[str, str]:
    """The media type and Python's codec of a Content-Type header; JSON when there is none.

    JSON is UTF-8 whatever the header says (RFC 8259, section 8.1). A byte order mark is no text.
    Raises RequestError 415 for a type or a charset that the contract does not have.
    """
    if not content_type or not content_type.strip():
        return JSON, _CHARSETS["utf-8"]
    if len(content_type) > _LONGEST_HEADER:
        raise _unsupported("this content type is too long")
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip(" \t").lower()
    if kind == JSON or kind in JSON_LINES:
        return kind, _CHARSETS["utf-8"]
    if kind != TEXT:
        raise _unsupported("this content type is not supported")
    named = _CHARSET.search(parameters)
    if named is None:
        return TEXT, _CHARSETS["utf-8"]
    codec = _CHARSETS.get(named.group(1).lower())
    if codec is None:
        raise _unsupported("this charset is not supported")
    return TEXT, codec


def _unsupported(message: str) -> RequestError:
    hint = 'send application/json with {"text": "..."}, or text/plain in UTF-8'
    return RequestError(415, "unsupported_media_type", message, hint)

"""The documents shipped next to this file: the OpenAPI document and the try-it page.

Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from typing import Dict, Mapping, Optional

from ..contract import encode

OPENAPI, PAGE = "openapi.json", "page.html"
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def shipped(name: str) -> Optional[bytes]:
    """A document, from a folder or from the zip; None if it was not shipped."""
    loader = globals()["__loader__"]
    try:
        data: bytes = loader.get_data(os.path.join(os.path.dirname(__file__), name))  # noqa: PTH118, PTH120 a path in a zip
    except OSError:
        return None
    return data


def with_server(document: bytes, base: str) -> bytes:
    """The OpenAPI document with the server it was fetched from; ``base`` as in a Call."""
    value = json.loads(document.decode("utf-8"))
    value["servers"] = [{"url": base or "/"}]
    return encode(value)


def page_headers(page: bytes) -> Mapping[str, str]:
    """The headers of a page, which allow only the script and the style in the page itself.

    The page may connect only to its own origin.
    """
    hashes: Dict[str, str] = {}
    for kind, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
        hashes[kind.decode("ascii")] = f"'sha256-{digest}'"
    policy = {
        "default-src": "'none'",
        "script-src": hashes.get("script", "'none'"),
        "style-src": hashes.get("style", "'none'"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }

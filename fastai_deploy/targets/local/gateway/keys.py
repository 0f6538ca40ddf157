"""The API keys of a gateway: who sent a request, if anybody did."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import FileError

SHORTEST_KEY = 20  # API Gateway takes keys of 20 to 128 characters
_ID_LENGTH = 10
_LONGEST_FILE = 4096  # bytes


class KeyRing:
    """The keys in some files, one key a file.

    The files are read for every request, so that a new key counts at once and a removed one no
    longer does.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def check(self) -> None:
        """Raises FileError when a key file cannot be read."""
        for path in self._paths:
            files.read(path, most=_LONGEST_FILE)

    def identify(self, candidate: str | None) -> str | None:
        """The id of a key, or None when it is not one of ours; takes as long for either."""
        digest = hashlib.sha256((candidate or "").encode("utf-8", "surrogatepass")).digest()
        known = [key for key in self._digests() if hmac.compare_digest(key, digest)]
        return digest.hex()[:_ID_LENGTH] if known else None

    def _digests(self) -> Iterator[bytes]:
        for path in self._paths:
            try:
                key = files.read(path, most=_LONGEST_FILE).strip()
            except FileError:
                continue  # a removed key is no key
            if len(key) >= SHORTEST_KEY:
                yield hashlib.sha256(key).digest()

"""The blobs of images on this machine: base layers as downloaded, and fdeploy's own layers.

    <cache>/image/blobs/sha256/<hex>     the content, named by its hash
    <cache>/image/made/<key>.json        which layer was made from what

Everything here can be made or downloaded again, so the folder may be deleted at any time. What is
not used is removed: see :mod:`fastai_deploy.cache`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.cache import cache_folder, mark_used
from fastai_deploy.errors import FileError
from fastai_deploy.packaging.artifact import Writable


@dataclass(frozen=True)
class Layer:
    """A layer: the digest and bytes of its compressed blob, and the digest of the tar in it.

    Digests are written ``sha256:<hex>``. Source: OCI image specification, "Image Layer Filesystem
    Changeset" and "Image Configuration" (``diff_id``).
    """

    digest: str
    size: int
    diff_id: str


class BlobStore:
    """Blobs by digest, in ``folder``. It hashes a blob once, as long as its file stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: dict[str, tuple[int, ...]] = {}
        self._blobs = folder / "blobs" / "sha256"
        self._made = folder / "made"

    def find(self, digest: str, size: int) -> Path | None:
        """The file of a blob, if it is here and has not changed. Raises FileError."""
        path = self._path(digest)
        state = _state(path)
        if not state or state[0] != size:
            return None
        if self._verified.get(digest) != state:
            mark_used(path)
            state = _state(path)
            if f"sha256:{files.sha256(path)}" != digest:
                return None
            self._verified[digest] = state
        return path

    def add(self, chunks: Iterable[bytes], *, size: int) -> tuple[str, int]:
        """Store a blob of about ``size`` bytes; returns its digest and size. Raises FileError."""

        def fill(file: Writable) -> None:
            for chunk in chunks:
                file.write(chunk)

        return self._write(fill, size)

    def layer(self, key: str, write: Callable[[Writable], str], *, size: int) -> Layer:
        """The layer made from what ``key`` names, from the cache or by ``write``.

        ``write`` writes the compressed blob, of about ``size`` bytes, and returns its diff_id.
        Raises FileError.
        """
        found = self._known(key)
        if found is not None and self.find(found.digest, found.size):
            return found
        diff_id = ""

        def fill(file: Writable) -> None:
            nonlocal diff_id
            diff_id = write(file)

        digest, size = self._write(fill, size)
        layer = Layer(digest, size, diff_id)
        self.remember(key, asdict(layer))
        return layer

    def recall(self, key: str) -> dict[str, Any] | None:
        """What was remembered under a key, or None."""
        path = self._made / f"{key}.json"
        with suppress(FileError, ValueError):
            found = json.loads(files.read(path))
            mark_used(path)
            if isinstance(found, dict):
                return found
        return None

    def remember(self, key: str, values: dict[str, Any]) -> None:
        """Remember JSON values under a key. Raises FileError."""
        files.write(self._made / f"{key}.json", json.dumps(values, sort_keys=True).encode())

    def _known(self, key: str) -> Layer | None:
        try:
            return Layer(**(self.recall(key) or {}))
        except TypeError:
            return None

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _write(self, fill: Callable[[Writable], None], about: int) -> tuple[str, int]:
        """Write a blob under a temporary name, and rename it once its digest is known."""
        files.make_folder(self._blobs)
        with files.file_errors(self._blobs):
            descriptor, name = tempfile.mkstemp(prefix=".", dir=self._blobs)
        partial = Path(name)
        try:
            with (
                files.needing(about, self._blobs),
                files.file_errors(self._blobs),
                os.fdopen(descriptor, "wb") as file,
            ):
                hashed = _Hashed(file)
                fill(hashed)
                size = file.tell()
            with files.file_errors(partial):
                partial.replace(self._path(hashed.digest))
        finally:
            partial.unlink(missing_ok=True)
        self._verified[hashed.digest] = _state(self._path(hashed.digest))
        return hashed.digest, size


def default_store() -> BlobStore:
    """The store beside the cache of wheels."""
    return BlobStore(cache_folder("image"))


class _Hashed:
    """Passes on what is written, and has its digest."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data; return its length."""
        self._digest.update(data)
        return self._raw.write(data)

    @property
    def digest(self) -> str:
        """The digest of what was written."""
        return f"sha256:{self._digest.hexdigest()}"


def _state(path: Path) -> tuple[int, ...]:
    """What changes with a file's content, its size first; empty if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    if not stat.S_ISREG(found.st_mode):
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino

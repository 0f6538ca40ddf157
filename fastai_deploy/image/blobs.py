"""The blobs of images on this machine: base layers as downloaded, and fdeploy's own layers.

    <cache>/image/blobs/sha256/<hex>     the content, named by its hash
    <cache>/image/made/<key>.json        which layer was made from what

Everything here can be made or downloaded again, so the folder may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.errors import FileError
from fastai_deploy.packaging.wheels import default_cache


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
    """Blobs by digest, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "blobs" / "sha256"
        self._made = folder / "made"

    def find(self, digest: str, size: int) -> Path | None:
        """The file of a blob, if it is here and has not changed. Raises FileError."""
        path = self._path(digest)
        if files.size_of(path) != size:
            return None
        return path if f"sha256:{files.sha256(path)}" == digest else None

    def add(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Store a blob; returns its digest and size. Raises FileError."""
        return self._write(lambda file: _copy(chunks, file))

    def layer(self, key: str, write: Callable[[BinaryIO], str]) -> Layer:
        """The layer made from what ``key`` names, from the cache or by ``write``.

        ``write`` writes the compressed blob and returns its diff_id. Raises FileError.
        """
        found = self._known(key)
        if found is not None and self.find(found.digest, found.size):
            return found
        diff_id = ""

        def fill(file: BinaryIO) -> None:
            nonlocal diff_id
            diff_id = write(file)

        digest, size = self._write(fill)
        layer = Layer(digest, size, diff_id)
        self.remember(key, asdict(layer))
        return layer

    def recall(self, key: str) -> dict[str, Any] | None:
        """What was remembered under a key, or None."""
        with suppress(FileError, ValueError):
            found = json.loads(files.read(self._made / f"{key}.json"))
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

    def _write(self, fill: Callable[[BinaryIO], None]) -> tuple[str, int]:
        """Write a blob under a temporary name, and rename it once its digest is known."""
        files.make_folder(self._blobs)
        with files.file_errors(self._blobs):
            descriptor, name = tempfile.mkstemp(prefix=".", dir=self._blobs)
        partial = Path(name)
        try:
            with files.file_errors(partial), os.fdopen(descriptor, "wb") as file:
                fill(file)
                size = file.tell()
            digest = f"sha256:{files.sha256(partial)}"
            with files.file_errors(partial):
                partial.replace(self._path(digest))
        finally:
            partial.unlink(missing_ok=True)
        return digest, size


def default_store() -> BlobStore:
    """The store beside the cache of wheels."""
    return BlobStore(default_cache().parent / "image")


def _copy(chunks: Iterable[bytes], file: BinaryIO) -> None:
    file.writelines(chunks)

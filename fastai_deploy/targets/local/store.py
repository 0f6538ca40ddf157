"""A content-addressed store of artifacts: ``store/<sha256>/model.tar.gz``.

Stands in for the S3 bucket: the same artifact is never stored twice, and what is read back is
checked against the name that it is stored under.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import FileError, FileMissing
from fastai_deploy.progress import Advanced, Reporter

_HASH = re.compile("[0-9a-f]{64}")


class Store:
    """The store in ``folder``."""

    def __init__(self, folder: Path, report: Reporter) -> None:
        self._folder = folder
        self._report = report

    def path(self, sha256: str) -> Path:
        """Where the artifact with this hash stands, if it does. Raises FileError for no hash."""
        if not _HASH.fullmatch(sha256):
            raise FileError(
                f"{sha256[:80]!r} is not the SHA-256 of an artifact", hint="run fdeploy upload"
            )
        return self._folder / sha256 / "model.tar.gz"

    def has(self, sha256: str, size: int) -> bool:
        """Whether the artifact is there in full length; :meth:`checked` reads its bytes."""
        return files.size_of(self.path(sha256)) == size

    def put(self, source: Path, sha256: str, size: int) -> Path:
        """Copy an artifact in, checked while it is copied. Raises FileError when it differs."""
        path = self.path(sha256)
        digest = hashlib.sha256()
        done = 0
        with files.reading(source) as reader, files.replacing(path) as copy:
            while chunk := reader.read(files.CHUNK):
                digest.update(chunk)
                copy.write(chunk)
                done += len(chunk)
                self._report(Advanced("upload", done, size))
            if digest.hexdigest() != sha256:
                raise FileError(
                    f"{source} is not the artifact that package made: its checksum differs",
                    hint="run fdeploy package",
                )
        return path

    def checked(self, sha256: str) -> Path:
        """The artifact, after its checksum was found right. Raises FileError."""
        path = self.path(sha256)
        try:
            found = files.sha256(path)
        except FileMissing:
            raise FileMissing(
                f"the stored artifact {sha256[:12]} is gone", hint="run fdeploy upload"
            ) from None
        if found != sha256:
            raise FileError(
                f"the stored artifact {sha256[:12]} is damaged: its checksum differs",
                hint=f"remove {path.parent} and run fdeploy upload",
            )
        return path

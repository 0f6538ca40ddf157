"""The bytes of a learner: a file, a part of one, or bytes in memory, and a stream over them."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastai_deploy.errors import FileError, LearnerTruncated
from fastai_deploy.files import open_regular

BUFFER = 1 << 16  # bytes that a stream reads at a time
CHUNK = 1 << 22  # bytes hashed at a time
DOWNLOAD_AGAIN = "copy or download the file again, or call learn.export() again"


class Source(Protocol):
    """Bytes that can be read at any offset."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``; LearnerTruncated if there are fewer."""
        ...


def truncated(message: str) -> LearnerTruncated:
    """The error for a file that ends too early or contradicts itself."""
    return LearnerTruncated(message, hint=DOWNLOAD_AGAIN)


def check_range(offset: int, size: int, total: int) -> None:
    """Raise LearnerTruncated unless ``size`` bytes at ``offset`` lie within ``total`` bytes."""
    if offset < 0 or size < 0 or offset + size > total:
        raise truncated(
            f"the file is damaged or incomplete: {size} bytes are needed at {offset}, "
            f"but there are only {total}"
        )


@dataclass(frozen=True)
class BytesSource:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``. Raises LearnerTruncated."""
        check_range(offset, size, len(self.data))
        return self.data[offset : offset + size]


@dataclass(frozen=True)
class Slice:
    """``size`` bytes of another source, from ``start``."""

    source: Source
    start: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` within the slice. Raises LearnerTruncated."""
        check_range(offset, size, self.size)
        return self.source.read(self.start + offset, size)


@dataclass(frozen=True)
class Fingerprint:
    """File metadata that any write changes."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class FileSource:
    """A regular file, kept open; reads never move a shared position."""

    def __init__(self, path: Path) -> None:
        """Open ``path``. Raises FileMissing, FileDenied or FileError."""
        self.path = path
        self._fd = open_regular(path)
        try:
            self.fingerprint = self._fingerprint()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Number of bytes when the file was opened."""
        return self.fingerprint.size

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``. Raises LearnerTruncated or FileError."""
        check_range(offset, size, self.size)
        parts: list[bytes] = []
        while size:
            try:
                part = os.pread(self._fd, min(size, 1 << 30), offset)
            except OSError as error:
                raise FileError(
                    f"{self.path} cannot be read: {error.strerror}", hint="try another copy"
                ) from error
            if not part:
                raise self.changed()
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def digest(self, notify: Callable[[int], None] = lambda _bytes: None) -> str:
        """The SHA-256 of the whole file; ``notify`` is called with the bytes read so far."""
        found = hashlib.sha256()
        for offset in range(0, self.size, CHUNK):
            size = min(CHUNK, self.size - offset)
            found.update(self.read(offset, size))
            notify(offset + size)
        return found.hexdigest()

    def check_unchanged(self) -> None:
        """Raise LearnerTruncated if the file was written to since it was opened."""
        if self._fingerprint() != self.fingerprint:
            raise self.changed()

    def changed(self) -> LearnerTruncated:
        """The error for a file that has changed since it was opened."""
        return LearnerTruncated(
            f"{self.path} changed while fdeploy was reading it",
            hint="wait until it is completely written, then try again",
        )

    def close(self) -> None:
        """Close the file; reading it afterwards is an error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _fingerprint(self) -> Fingerprint:
        status = os.fstat(self._fd)
        return Fingerprint(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


class Stream:
    """Reads a source forward from ``start``, through a buffer of fixed size.

    ``pickletools`` calls ``read`` with sizes from the file, which it does not check; they are
    checked here before memory is allocated. ``next_byte(1)`` returns the next byte, or ``b""`` at
    the end.
    """

    __slots__ = ("_file", "next_byte", "source")

    def __init__(self, source: Source, start: int = 0) -> None:
        self.source = source
        self._file = io.BufferedReader(_RawSource(source, start), BUFFER)
        self.next_byte = self._file.read

    @property
    def offset(self) -> int:
        """Offset in the source of the next byte."""
        return self._file.tell()

    @property
    def left(self) -> int:
        """Number of bytes from here to the end of the source."""
        return self.source.size - self.offset

    def check_left(self, size: int) -> None:
        """Raise LearnerTruncated if fewer than ``size`` bytes are left."""
        if size > self.left:
            raise truncated("the file ends in the middle of a value")

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes. Raises LearnerTruncated if there are fewer."""
        if size > BUFFER:
            self.check_left(size)
        data = self._file.read(size)
        if len(data) < size:
            raise truncated("the file ends in the middle of a value")
        return data

    def line(self, limit: int) -> bytes:
        """The next line with its newline, at most ``limit`` bytes long. Raises LearnerTruncated."""
        line = self._file.readline(limit + 1)
        if not line.endswith(b"\n"):
            raise truncated(f"a line before byte {self.offset} does not end")
        return line

    def skip(self, size: int) -> Slice:
        """Skip the next ``size`` bytes and return their location. Raises LearnerTruncated."""
        self.check_left(size)
        skipped = Slice(self.source, self.offset, size)
        self._file.seek(size, os.SEEK_CUR)
        return skipped


class _RawSource(io.RawIOBase):
    """A source as a raw stream for ``io.BufferedReader``."""

    def __init__(self, source: Source, position: int) -> None:
        self._source = source
        self._position = position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        size = min(len(buffer), BUFFER, self._source.size - self._position)
        buffer[:size] = self._source.read(self._position, size)
        self._position += size
        return size

"""Reading and writing files so that an interruption never leaves half a file.

A file is written beside its place under a name that starts with a dot and ends with ``.partial``,
and renamed when it is whole: a reader sees the old file or the new one. What the operating system
refuses becomes a FileError with the path and the reason.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fastai_deploy.errors import DiskFull, FileDenied, FileError, FileMissing

CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about ``path`` into FileErrors."""
    try:
        yield
    except OSError as error:
        raise _translated(error, path) from error


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well, else vanishes."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with file_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file at once, or nothing."""
    with replacing(path, mode=mode) as file:
        file.write(data)


def sha256(path: Path, *, told: Callable[[int], None] = lambda _bytes: None) -> str:
    """The SHA-256 of a file in hexadecimal; ``told`` hears how many bytes were read so far."""
    digest = hashlib.sha256()
    done = 0
    with file_errors(path), path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            told(done)
    return digest.hexdigest()


def _translated(error: OSError, path: Path) -> FileError:
    subject = Path(os.fsdecode(error.filename)) if error.filename else path
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFull(
            f"{subject} cannot be written: {reason}",
            hint="free some space and run the same command again; nothing half-written was kept",
        )
    if error.errno in _DENIED:
        return FileDenied(
            f"{subject} cannot be used: {reason}", hint=f"check the permissions of {subject}"
        )
    if error.errno == errno.ENOENT:
        return FileMissing(f"{subject} does not exist", hint="check the path, then run it again")
    return FileError(f"{subject}: {reason}", hint="check the path, then run it again")

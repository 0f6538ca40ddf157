"""A log file of this machine's servers: its lines with their dates, and those that still come."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import FileMissing
from fastai_deploy.reports import LogLine
from fastai_deploy.runtime.log import rotated

_FOLLOW_SECONDS = 0.2
_MOST = 256 << 20  # bytes of a log that are looked through
_MS = 1_000


def since(path: Path, start: datetime) -> Iterator[LogLine]:
    """The lines since a date, of the rotated file, too; none where there is no file."""
    at = start
    for text in (*_lines(rotated(path)), *_lines(path)):
        at = date_of(text) or at
        if at >= start and text:
            yield LogLine(at, path.name, text)


def follow(path: Path, start: datetime, sleep: Callable[[float], None]) -> Iterator[LogLine]:
    """The same, and what comes after, without end; a file that was begun anew is read anew."""
    at, read, rest, inode = start, 0, b"", 0
    while True:
        data = b""
        now, size = _identity(path)
        if now != inode or size < read:
            if not inode or _identity(rotated(path))[0] == inode:
                data = _from(rotated(path), read)
            inode, read = now, 0
        if size > read:
            new = _from(path, read)
            read += len(new)
            data += new
        if not data:
            sleep(_FOLLOW_SECONDS)
            continue
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            text = line.decode(errors="replace")
            at = date_of(text) or at
            if at >= start and text:
                yield LogLine(at, path.name, text)


def date_of(text: str) -> datetime | None:
    """When a line was written, where it says so: the servers' lines do, a traceback's do not."""
    try:
        values = json.loads(text)
        seconds = values["time"] if "time" in values else values["_aws"]["Timestamp"] / _MS
        return datetime.fromtimestamp(seconds, tz=timezone.utc)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None


def _lines(path: Path) -> list[str]:
    """The lines of a log, the last of it where it is very long. Raises FileError."""
    try:
        with files.reading(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST))
            return file.read(_MOST).decode(errors="replace").splitlines()
    except FileMissing:
        return []


def _identity(path: Path) -> tuple[int, int]:
    """Which file it is, and how large; 0 and 0 where there is none."""
    try:
        with files.reading(path) as file:
            found = os.fstat(file.fileno())
    except FileMissing:
        return 0, 0
    return found.st_ino, found.st_size


def _from(path: Path, position: int) -> bytes:
    try:
        with files.reading(path) as file:
            file.seek(position)
            return file.read()
    except FileMissing:
        return b""

"""A log file of this machine's servers: its lines with their dates, and those that still come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from fastai_deploy.reports import LogLine

_FOLLOW_SECONDS = 0.2
_MS = 1_000


def since(path: Path, start: datetime) -> Iterator[LogLine]:
    """The lines since a date; none where there is no file."""
    at = start
    for text in _lines(path):
        at = date_of(text) or at
        if at >= start and text:
            yield LogLine(at, path.name, text)


def follow(path: Path, start: datetime, sleep: Callable[[float], None]) -> Iterator[LogLine]:
    """The same, and what comes after, without end; a new server begins its file anew."""
    at, read, rest = start, 0, ""
    while True:
        size = path.stat().st_size if path.exists() else 0
        if size < read:
            read, rest = 0, ""
        if size > read:
            with path.open("rb") as file:
                file.seek(read)
                data = file.read()
            read += len(data)
            *whole, rest = (rest + data.decode(errors="replace")).split("\n")
            for text in whole:
                at = date_of(text) or at
                if at >= start and text:
                    yield LogLine(at, path.name, text)
        else:
            sleep(_FOLLOW_SECONDS)


def date_of(text: str) -> datetime | None:
    """When a line was written, where it says so: the servers' lines do, a traceback's do not."""
    try:
        values = json.loads(text)
        seconds = values["time"] if "time" in values else values["_aws"]["Timestamp"] / _MS
        return datetime.fromtimestamp(seconds, tz=timezone.utc)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

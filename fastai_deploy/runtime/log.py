"""A log of one JSON object per line, without anything that a user sent."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, TextIO, Tuple

LOG_VARIABLE = "FDEPLOY_LOG_FILE"  # set by the local target: the file of stderr; rotated at 10 MB
_MINUTE = 60.0  # seconds
_STDOUT, _STDERR = 1, 2


class Log:
    """Writes events. Thread-safe. ``now`` returns the seconds since 1970."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._now = now
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one line; if the stream is gone or full, the line is lost without an error."""
        line = json.dumps({"time": round(self._now(), 3), "event": event, **fields})
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            pass

    def defect(self, request: str, error: BaseException) -> None:
        """Log where an exception was raised.

        Its message is left out, because it may quote what a user sent, unless it comes from ONNX
        Runtime, which sees only numbers.
        """
        frames = traceback.extract_tb(error.__traceback__)[-5:]
        at = " < ".join(f"{_file(frame)}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        kind = type(error)
        is_harmless = kind.__module__.startswith("onnxruntime")
        message = " ".join(str(error).split())[:300] if is_harmless else ""
        self("defect", request=request, error=kind.__name__, message=message, at=at)


class OncePerMinute:
    """Events that may occur thousands of times a second.

    Of those with the same fields, one a minute is logged, with the number left out before it.
    ``clock`` counts seconds. Fields must have few values, because each combination is stored.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._known: Dict[Tuple[Any, ...], Tuple[float, int]] = {}

    def __call__(self, event: str, **fields: Any) -> None:
        """Log an event, or count it."""
        key = (event, *fields.values())
        now = self._clock()
        logged, left_out = self._known.get(key, (-math.inf, 0))
        if now - logged < _MINUTE:
            self._known[key] = (logged, left_out + 1)
            return
        self._known[key] = (now, 0)
        self._log(event, **fields, left_out=left_out)


class LoggingBridge(logging.Handler):
    """Turns ``logging`` records of libraries into events, without their arguments."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write the template of the message, without the values filled into it."""
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        self._log("library", source=record.name, message=str(record.msg)[:200], error=error)


class LogRotation:
    """Keeps the file of stdout and stderr below about ``limit`` bytes.

    A larger file is renamed to end in ``.1``, replacing the previous one, and a new one is started.
    The new one takes over the file descriptors, so C libraries write to it too.
    """

    def __init__(self, path: Path, limit: int = 10_000_000) -> None:
        self._path = path
        self._limit = limit

    def rotate_if_large(self) -> None:
        """Check the size of the file; a failure changes nothing."""
        with suppress(OSError):
            if os.fstat(_STDERR).st_size >= self._limit:
                self._rotate()

    def _rotate(self) -> None:
        # The file may have been deleted or replaced; a file that is not ours is left alone.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(_STDERR), os.lstat(self._path)):
                self._path.replace(rotated(self._path))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            for stream in (_STDOUT, _STDERR):
                os.dup2(descriptor, stream)
        finally:
            os.close(descriptor)


def rotated(path: Path) -> Path:
    """The path of the older lines of a log file."""
    return path.with_name(f"{path.name}.1")


def _file(frame: traceback.FrameSummary) -> str:
    return frame.filename.replace("\\", "/").rsplit("/", 1)[-1]

"""One JSON object a line on a stream, without any word that a user sent."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from typing import Any, Callable, TextIO


class Log:
    """Writes events. Thread-safe. ``now`` tells the seconds since 1970."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._now = now
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one line; a stream that is gone or full loses it, and nobody is troubled."""
        line = json.dumps({"time": round(self._now(), 3), "event": event, **fields})
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            pass

    def defect(self, request: str, error: BaseException) -> None:
        """Where an exception came from.

        Its message stays out, because it may quote what a user sent; but not ONNX Runtime's, which
        sees numbers only.
        """
        frames = traceback.extract_tb(error.__traceback__)[-5:]
        at = " < ".join(f"{_file(frame)}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        kind = type(error)
        told = kind.__module__.startswith("onnxruntime")
        message = " ".join(str(error).split())[:300] if told else ""
        self("defect", request=request, error=kind.__name__, message=message, at=at)


class LoggingBridge(logging.Handler):
    """Turns what libraries say through ``logging`` into events, without their arguments."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write the template of the message, not what was filled into it."""
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        self._log("library", source=record.name, message=str(record.msg)[:200], error=error)


def _file(frame: traceback.FrameSummary) -> str:
    return frame.filename.replace("\\", "/").rsplit("/", 1)[-1]

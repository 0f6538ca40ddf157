"""Progress and errors on stderr: rich on a terminal, plain lines in CI, JSON lines with --json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, TextIO

from fastai_deploy.cli.escaping import (
    json_line,
    shortened,
    visible_fields,
    visible_lines,
)
from fastai_deploy.errors import FdeployError
from fastai_deploy.progress import (
    Advanced,
    Event,
    Happened,
    LoadMeasured,
    Planned,
    StageFinished,
    StageStarted,
    Step,
    Warned,
)

_UNIT = 1_000_000
_LONGEST = 4_000  # characters of an error message that are shown
_WORTH_A_LINE = 10 * _UNIT  # anything smaller is done before the line is read


class ShownReporter:
    """A reporter on a stream. Only a terminal knows more than to print events."""

    def __call__(self, event: Event) -> None:
        """Show the event."""
        raise NotImplementedError

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Take note of how long each stage may take."""

    def paused(self) -> AbstractContextManager[None]:
        """A block in which nothing is painted, because it writes to the stream itself."""
        return nullcontext()


class QuietReporter(ShownReporter):
    """Passes warnings on, and nothing else."""

    def __init__(self, only: ShownReporter) -> None:
        self._only = only

    def __call__(self, event: Event) -> None:
        """Pass a warning on."""
        if isinstance(event, Warned):
            self._only(event)


class PlainReporter(ShownReporter):
    """Prints one line per event; long work is reported once, when it is done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Print the event."""
        line = plain_line(visible_fields(event))
        if line is not None:
            print(line, file=self._stream, flush=True)


class JsonReporter(ShownReporter):
    """Prints one JSON object per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._percent = -1

    def __call__(self, event: Event) -> None:
        """Print the event; of a long task, only every tenth percent."""
        if isinstance(event, Advanced) and not self._moved(event):
            return
        if isinstance(event, LoadMeasured) and not event.done:
            return
        values = {"event": _event_name(event), **asdict(event)}
        _print_json(values, self._stream)

    def _moved(self, event: Advanced) -> bool:
        """Whether a task has passed another ten percent: ten lines are enough for a log."""
        percent = 100 if event.done >= event.total else event.done * 10 // event.total * 10
        moved = percent != self._percent
        self._percent = percent if percent < 100 else -1  # noqa: PLR2004 - per cent
        return moved


def plain_line(event: Event) -> str | None:
    """Return an event as text, or None if it is not worth a line."""
    line = None
    match event:
        case StageStarted(stage):
            line = f"{stage}:"
        case Step(message):
            line = f"  {message}"
        case Warned(message, hint):
            line = f"  warning: {message}" + (f" ({hint})" if hint else "")
        case Planned(stack) if event.changes:
            line = "\n".join([f"  {stack}:", *(f"    {row}" for row in event.message.split("\n"))])
        case Happened():
            line = f"  {event.message}"
        case LoadMeasured(done=True):
            line = f"  {event.message}"
        case StageFinished(_, summary, seconds):
            line = f"  done: {summary} ({seconds:.1f} s)"
        case Advanced(task, done, total, unit) if done >= total >= _WORTH_A_LINE:
            amount = f"{total / _UNIT:,.1f} MB" if unit == "bytes" else f"{total:,} {unit}"
            line = f"  {task}: {amount}"
    return line


def show_error(error: FdeployError, stream: TextIO, *, as_json: bool) -> None:
    """Print an error: what happened and why, then what to type next."""
    if as_json:
        _print_json({"event": "error", **error.values()}, stream)
        return
    from rich.console import Console  # noqa: PLC0415 - not needed with --json
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, highlight=False, soft_wrap=True)
    message, hint = (
        visible_lines(shortened(each, _LONGEST)) for each in (error.message, error.hint)
    )
    console.print(Text.assemble(("error: ", "bold red"), message))
    console.print(Text.assemble(("  try: ", "bold"), hint))


def show_next(command: str, stream: TextIO) -> None:
    """Print what to type next."""
    from rich.console import Console  # noqa: PLC0415 - not needed with --json
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("next: ", "bold"), visible_lines(command)))


def _print_json(values: dict[str, Any], stream: TextIO) -> None:
    print(json_line(values, stream), file=stream, flush=True)


def _event_name(event: Event) -> str:
    """The class name in snake case: ``StageStarted`` becomes ``stage_started``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()

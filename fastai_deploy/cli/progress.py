"""Progress and errors on stderr: rich on a terminal, plain lines in CI, JSON lines with --json."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fastai_deploy.cli.escaping import (
    shortened,
    visible,
    visible_fields,
    visible_json,
    visible_lines,
)
from fastai_deploy.errors import FdeployError
from fastai_deploy.progress import (
    Advanced,
    Ask,
    Event,
    Happened,
    Planned,
    Reporter,
    StageFinished,
    StageStarted,
    Step,
    Warned,
)
from fastai_deploy.records import some_names

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


_A_SECOND = 4.0  # repaints per second
_WAITS = "waits"
_STYLES = {"complete": "green", "progress": "cyan", "failed": "red"}


@dataclass
class _Row:
    action: str
    type: str
    states: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    began: float | None = None
    ended: float | None = None

    @property
    def status(self) -> str:
        """The state that all share, else the first failure, else how many are done."""
        states = list(self.states.values())
        if len(set(states)) == 1:
            return states[0]
        failed = [state for state in states if state.endswith("failed")]
        done = sum(state.endswith("complete") for state in states)
        return failed[0] if failed else f"{done} of {len(states)} in progress"


class StackTable:
    """A live table of a stack's resources on a console; ``clock`` returns seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None

    def plan(self, event: Planned) -> None:
        """Show the planned changes."""
        self.stop()
        for change in event.changes:
            self._row(change.type, change.action).states[change.name] = _WAITS
        self._start()

    def tell(self, event: Happened) -> None:
        """Update the table with a stack event."""
        row = self._row(event.type)
        row.states[event.name] = event.status.lower().replace("_", " ")
        if event.failed and not row.reason:
            row.reason = event.reason  # the first failure is the cause; later ones are its rollback
        row.began = self._clock() if row.began is None else row.began
        row.ended = None if row.status.endswith("progress") else self._clock()
        if self._live is None:
            self._start()
        if event.ended:
            self.stop()

    def stop(self) -> None:
        """Freeze the table; the next event starts a new one."""
        live, self._live = self._live, None
        if live is not None:
            live.vertical_overflow = "visible"  # print the final table whole
            live.stop()
        self._rows = {}

    def _row(self, kind: str, action: str = "") -> _Row:
        return self._rows.setdefault(
            f"{action} {kind}" if action else self._of(kind), _Row(action, kind)
        )

    def _of(self, kind: str) -> str:
        """The key of a type's row: the planned row, else a new one."""
        return next((key for key, row in self._rows.items() if row.type == kind), kind)

    def _start(self) -> None:
        self._live = Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=_A_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _table(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
        table.add_column(width=2)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", style="dim", no_wrap=True)
        for row in self._rows.values():
            status = row.status
            style = _STYLES.get(status.rpartition(" ")[2], "dim")
            table.add_row(
                "",
                row.action,
                row.type,
                some_names(list(row.states)),
                Text(status, style="red" if row.reason else style),
                self._seconds(row),
            )
        # Below the table: a reason is a sentence and needs the whole width.
        reasons = [
            Text(f"  {row.type}: {row.reason}", style="red")
            for row in self._rows.values()
            if row.reason
        ]
        return Group(table, *reasons)

    def _seconds(self, row: _Row) -> str:
        if row.began is None:
            return ""
        return f"{(row.ended or self._clock()) - row.began:.0f} s"


_UNIT = 1_000_000
_LONGEST = 4_000  # characters of an error message that are shown
_WORTH_A_LINE = 10 * _UNIT  # anything smaller is done before the line is read


@contextmanager
def reporter(stream: TextIO, *, as_json: bool) -> Iterator[Reporter]:
    """The reporter that suits the stream; the terminal is restored however the block ends."""
    if as_json:
        yield JsonReporter(stream)
    elif stream.isatty():
        painter = RichReporter(stream)
        try:
            yield painter
        finally:
            painter.stop()
    else:
        yield PlainReporter(stream)


def asker(answers: TextIO, stream: TextIO) -> Ask | None:
    """A function that asks on the terminal; None if there is none to read and to write on."""
    if not (answers.isatty() and stream.isatty()):
        return None

    def ask(question: str) -> bool:
        stream.write(visible(f"{question} [y/N] "))
        stream.flush()
        return answers.readline().strip().lower() in ("y", "yes")

    return ask


class PlainReporter:
    """Prints one line per event; long work is reported once, when it is done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Print the event."""
        line = plain_line(visible_fields(event))
        if line is not None:
            print(line, file=self._stream, flush=True)


class JsonReporter:
    """Prints one JSON object per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._percent = -1

    def __call__(self, event: Event) -> None:
        """Print the event; of a long task, only every tenth percent."""
        if isinstance(event, Advanced) and not self._moved(event):
            return
        values = {"event": _event_name(event), **asdict(event)}
        _print_json(values, self._stream)

    def _moved(self, event: Advanced) -> bool:
        """Whether a task has passed another ten percent: ten lines are enough for a log."""
        percent = 100 if event.done >= event.total else event.done * 10 // event.total * 10
        moved = percent != self._percent
        self._percent = percent if percent < 100 else -1  # noqa: PLR2004 - per cent
        return moved


class RichReporter:
    """Prints in colour, with a progress bar for long tasks and a table for stack events."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415 - not needed in CI

        self._console: Console = Console(file=stream, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._table = StackTable(self._console)

    def __call__(self, event: Event) -> None:
        """Show the event."""
        from rich.text import Text  # noqa: PLC0415

        event = visible_fields(event)
        match event:
            case Advanced():
                self._advance(event)
            case Planned():
                self._table.plan(event)
            case Happened():
                self._table.tell(event)
            case StageStarted(stage):
                self._console.print(Text(stage, style="bold cyan"))
            case Step(message):
                self._console.print(Text(f"  {message}", style="dim"))
            case Warned(message, hint):
                self._console.print(Text(f"  warning: {message}", style="yellow"))
                if hint:
                    self._console.print(Text(f"           {hint}", style="yellow"))
            case StageFinished(_, summary, seconds):
                self._table.stop()
                line = Text("  ✓ ", style="green")
                line.append(summary, style="default")
                line.append(f"  {seconds:.1f} s", style="dim")
                self._console.print(line)

    def _advance(self, event: Advanced) -> None:
        if self._progress is None:
            self._start(event)
        if self._progress is None or self._task is None:
            return
        self._progress.update(self._task, completed=event.done, total=event.total)
        if event.done >= event.total:
            self.stop()

    def stop(self) -> None:
        """Remove the progress bar and freeze the table."""
        self._table.stop()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _start(self, event: Advanced) -> None:
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            *((DownloadColumn(), TransferSpeedColumn()) if event.unit == "bytes" else ()),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(event.task, total=event.total)
        self._progress.start()


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


def _print_json(values: dict[str, Any], stream: TextIO) -> None:
    print(visible_json(json.dumps(values, ensure_ascii=False)), file=stream, flush=True)


def _event_name(event: Event) -> str:
    """The class name in snake case: ``StageStarted`` becomes ``stage_started``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()

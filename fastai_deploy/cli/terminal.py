"""Progress on a terminal: finished lines above, and below them what is going on.

The part below is painted several times a second: the table of a stack's resources, the bar of a
long task, and how long the current step has taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fastai_deploy.cli.escaping import visible, visible_fields
from fastai_deploy.cli.load_chart import LoadChart
from fastai_deploy.cli.progress import ShownReporter
from fastai_deploy.progress import (
    Advanced,
    Ask,
    Event,
    Happened,
    LoadMeasured,
    Planned,
    Prompt,
    StageFinished,
    StageStarted,
    Step,
    Warned,
)
from fastai_deploy.stage_reports import some_names

_A_SECOND = 8.0  # repaints per second
_SHOW_AFTER = 0.5  # seconds that a step may take before its time is shown
_WAITS = "waits"
_STYLES = {"complete": "green", "progress": "cyan", "failed": "red"}
Clock = Callable[[], float]  # seconds
Pause = Callable[[], AbstractContextManager[None]]


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
    """The resources of a stack that is being changed, one row for each type and action."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}

    def plan(self, event: Planned) -> None:
        """Show the planned changes."""
        self._rows = {}
        for change in event.changes:
            self._row(change.type, change.action).states[change.name] = _WAITS

    def tell(self, event: Happened) -> None:
        """Update the table with a stack event."""
        row = self._row(event.type)
        row.states[event.name] = event.status.lower().replace("_", " ")
        if event.failed and not row.reason:
            row.reason = event.reason  # the first failure is the cause; later ones are its rollback
        row.began = self._clock() if row.began is None else row.began
        row.ended = None if row.status.endswith("progress") else self._clock()

    def _row(self, kind: str, action: str = "") -> _Row:
        return self._rows.setdefault(
            f"{action} {kind}" if action else self._of(kind), _Row(action, kind)
        )

    def _of(self, kind: str) -> str:
        """The key of a type's row: the planned row, else a new one."""
        return next((key for key, row in self._rows.items() if row.type == kind), kind)

    def __rich__(self) -> Group:
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


class _RateColumn(ProgressColumn):
    """``1,200 of 5,000 texts, 310 a second``."""

    def render(self, task: Task) -> Text:
        total = f" of {task.total:,.0f}" if task.total else ""
        rate = f", {task.speed:,.0f} a second" if task.speed else ""
        return Text(f"{task.completed:,.0f}{total} {task.fields['unit']}{rate}", style="dim")


class TerminalReporter(ShownReporter):
    """Prints events in colour; ``clock`` returns seconds."""

    def __init__(
        self, stream: TextIO, console: Console | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._console = console or Console(file=stream, highlight=False)
        self._clock = clock
        self._table: StackTable | LoadChart | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._spinner = Spinner("dots" if self._console.encoding.startswith("utf") else "line")
        self._since: float | None = None
        self._stage: tuple[str, float] | None = None  # and when it began
        self._expected: Mapping[str, float] = {}
        self._live: Live | None = None

    def __call__(self, event: Event) -> None:
        """Show the event."""
        event = visible_fields(event)
        match event:
            case Advanced():
                self._advance(event)
            case Planned():
                self._freeze()
                self._table = StackTable(self._clock)
                self._table.plan(event)
            case LoadMeasured():
                self._chart(event)
            case Happened():
                self._happened(event)
            case _:
                if isinstance(event, StageStarted):
                    self._stage = event.stage, self._clock()
                elif isinstance(event, StageFinished):
                    self._stage = None
                    self._freeze()
                self._bar = self._task = None
                for line in _lines(event):
                    self._console.print(line)
        goes_on = not isinstance(event, StageFinished | Warned)
        self._since = self._clock() if goes_on else None
        if goes_on and self._live is None:
            self._start()

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Say how long each stage may take."""
        self._expected = seconds

    def _advance(self, event: Advanced) -> None:
        if self._bar is None or self._task is None:
            self._bar = _bar(event, self._console)
            self._task = self._bar.add_task(f"  {event.task}", total=event.total, unit=event.unit)
        self._bar.update(self._task, completed=event.done, total=event.total)
        if event.done >= event.total:
            self._bar = self._task = None

    def _happened(self, event: Happened) -> None:
        if not isinstance(self._table, StackTable):
            self._table = StackTable(self._clock)
        self._table.tell(event)
        if event.ended:
            self._freeze()

    def _chart(self, event: LoadMeasured) -> None:
        if not isinstance(self._table, LoadChart):
            self._freeze()
            self._table = LoadChart()
        self._table.tell(event)

    def _freeze(self) -> None:
        """Print the table as it is now; the next event starts a new one."""
        table, self._table = self._table, None
        if table is not None:
            self._console.print(table)

    def _start(self) -> None:
        self._live = Live(
            console=self._console,
            get_renderable=self._below,
            refresh_per_second=_A_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._live.start()

    def _below(self) -> RenderableType:
        """What is painted again and again below the lines."""
        parts: list[RenderableType] = [
            each for each in (self._table, self._bar) if each is not None
        ]
        taken = 0.0 if self._since is None else self._clock() - self._since
        if self._bar is None and taken >= _SHOW_AFTER:
            self._spinner.update(text=Text(f"{taken:.0f} s{self._of_total()}", style="dim"))
            row = Table.grid(padding=(0, 1))
            row.add_row(" ", self._spinner)
            parts.append(row)
        return Group(*parts)

    def _of_total(self) -> str:
        """How much of the stage's usual time has passed, where that is known."""
        name, began = self._stage or ("", 0.0)
        usual = self._expected.get(name)
        if usual is None:
            return ""
        return f"; {self._clock() - began:.0f} of about {usual:.0f} s for {name}"

    def stop(self) -> None:
        """Remove what is below the lines; a table stays as it is."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        self._bar = self._task = self._since = None
        self._freeze()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Paint nothing in the block, which writes to the terminal itself."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        yield
        if live is not None:
            self._since = self._clock()
            self._start()


def _lines(event: StageStarted | Step | Warned | StageFinished) -> Iterator[Text]:
    match event:
        case StageStarted(stage):
            yield Text(stage, style="bold cyan")
        case Step(message):
            yield Text(f"  {message}", style="dim")
        case Warned(message, hint):
            yield Text(f"  warning: {message}", style="yellow")
            if hint:
                yield Text(f"           {hint}", style="yellow")
        case StageFinished(_, summary, seconds):
            line = Text("  ✓ ", style="green")
            line.append(summary, style="default")
            line.append(f"  {seconds:.1f} s", style="dim")
            yield line


def _bar(event: Advanced, console: Console) -> Progress:
    """The bar of a task; of bytes with their speed, else with a rate and the time left."""
    bytes_ = event.unit == "bytes"
    own = (DownloadColumn(), TransferSpeedColumn()) if bytes_ else (_RateColumn(),)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        *own,
        TimeRemainingColumn(compact=True),
        console=console,
    )


def asker(answers: TextIO, stream: TextIO, pause: Pause) -> Ask | None:
    """A function that asks on the terminal; None if there is none to read and to write on.

    ``pause`` is a context in which nobody else writes on it.
    """
    ask = prompter(answers, stream, pause)
    return ask and (lambda question: ask(question, "y/N").lower() in ("y", "yes"))


def prompter(answers: TextIO, stream: TextIO, pause: Pause) -> Prompt | None:
    """A function that asks for a word on the terminal; None if there is none."""
    if not (answers.isatty() and stream.isatty()):
        return None

    def prompt(question: str, default: str) -> str:
        with pause():
            stream.write(visible(f"{question} [{default}] "))
            stream.flush()
            return answers.readline().strip() or default

    return prompt

"""What happens to a stack, as a table that lives while AWS works: a row for each type of resource.

An API has sixteen answers to errors; that each of them was made is no news, that all were is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fastai_deploy.progress import Happened, Planned
from fastai_deploy.reports import some_names

_A_SECOND = 4.0  # how often it is painted
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
        """The state of all, or how many are done."""
        states = list(self.states.values())
        if len(set(states)) == 1:
            return states[0]
        failed = [state for state in states if state.endswith("failed")]
        done = sum(state.endswith("complete") for state in states)
        return failed[0] if failed else f"{done} of {len(states)} in progress"


class StackTable:
    """Painted on a console; ``clock`` counts seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._live: Live | None = None

    def plan(self, event: Planned) -> None:
        """Show what is going to be changed."""
        self.stop()
        for change in event.changes:
            self._row(change.type, change.action).states[change.name] = _WAITS
        self._start()

    def tell(self, event: Happened) -> None:
        """Take up what has happened."""
        row = self._row(event.type)
        row.states[event.name] = event.status.lower().replace("_", " ")
        if event.failed and not row.reason:
            row.reason = event.reason  # the first is the cause; what comes after undoes it
        row.began = self._clock() if row.began is None else row.began
        row.ended = None if row.status.endswith("progress") else self._clock()
        if self._live is None:
            self._start()
        if event.ended:
            self.stop()

    def stop(self) -> None:
        """Leave the table as it is then, and begin a new one with the next event."""
        live, self._live = self._live, None
        if live is not None:
            live.vertical_overflow = "visible"  # while it lives it may be cut, in the end not
            live.stop()
        self._rows = {}

    def _row(self, kind: str, action: str = "") -> _Row:
        return self._rows.setdefault(
            f"{action} {kind}" if action else self._of(kind), _Row(action, kind)
        )

    def _of(self, kind: str) -> str:
        """The row of a type: the planned one, else one of its own."""
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
        # Below it, and not in it: a reason is a sentence, and takes the whole width.
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

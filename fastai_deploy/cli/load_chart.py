"""The chart of a load test that is painted while it runs: one bar for each level."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from fastai_deploy.progress import LoadMeasured

_WIDTH = 24


class LoadChart:
    """The levels of a load test; the longest bar is the highest throughput."""

    def __init__(self) -> None:
        self._levels: dict[str, LoadMeasured] = {}

    def tell(self, event: LoadMeasured) -> None:
        """Show the figures of a level."""
        self._levels[event.level] = event

    def __rich__(self) -> Table:
        best = max((level.throughput for level in self._levels.values()), default=0.0) or 1.0
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(width=_WIDTH, no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
        for level in self._levels.values():
            style = "green" if level.done else "cyan"
            filled = round(_WIDTH * level.throughput / best)
            table.add_row(
                "",
                level.level,
                Text("━" * filled, style=style),
                f"{level.throughput:,.0f}/s",
                _latency(level),
            )
        return table


def _latency(level: LoadMeasured) -> Text:
    shown = Text(
        "  ".join(
            f"{name} {value:,.1f} ms"
            for name, value in (("p50", level.p50_ms), ("p95", level.p95_ms), ("p99", level.p99_ms))
            if value is not None
        )
    )
    if level.errors:
        shown.append(f"  {level.errors:,} errors", style="red")
    return shown

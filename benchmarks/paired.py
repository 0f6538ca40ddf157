"""Time whole commands in interleaved rounds, so that a busy moment affects all of them alike."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """The times of one command in all rounds, in seconds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.seconds)

    def line(self, base: Timing) -> str:
        """Minimum, median, maximum in ms, and the ratio of the medians to ``base``."""
        low, high = min(self.seconds) * 1e3, max(self.seconds) * 1e3
        ratio = self.median / base.median
        return f"{self.name:<34} {low:9.1f} {self.median * 1e3:9.1f} {high:9.1f} {ratio:7.2f}x"


def compare(commands: Mapping[str, Sequence[str]], *, rounds: int, cwd: Path) -> list[Timing]:
    """Run the commands in turn, ``rounds`` times, after a warm-up round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=cwd)
            seconds[name].append(time.perf_counter() - began)
    return [Timing(name, tuple(times[1:])) for name, times in seconds.items()]


def table(title: str, timings: Sequence[Timing]) -> None:
    """Print the timings; the first one is the base of the ratios."""
    print(f"\n{title}\n{'':<34} {'min ms':>9} {'median':>9} {'max':>9} {'ratio':>8}")
    for timing in timings:
        print(timing.line(timings[0]))

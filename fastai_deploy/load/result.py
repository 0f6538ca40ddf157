"""The result of a load test: shown, written to ``bench.json``, and read back by ``cost``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import FileError, InvocationError
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.load.measure import THROTTLED, Advice, Level

_HEAD = ("", "answers/s", "p50", "p90", "p95", "p99", "requests", "errors")


@dataclass(frozen=True)
class Bench:
    """A load test of ``on``: the endpoint, the API, or the bundle in this process.

    ``at`` is when it ended, in UTC. ``where`` says what answered. ``instance`` is the type on AWS
    and ``instances`` how many there were; empty and 0 for this machine. ``cost_per_million`` is the
    price of a million requests at the throughput of the knee, in ``currency``, None if the price or
    the knee is unknown. ``ended`` says why it ended early; empty if it did not.
    """

    at: str
    stage: str
    target: str
    on: str
    where: str
    version: str
    instance: str
    instances: int
    texts: int
    source: str
    levels: tuple[Level, ...]
    advice: Advice
    cost_per_million: Decimal | None
    currency: str
    ended: str
    interrupted: bool
    data: str
    page: str

    @property
    def answered(self) -> int:
        """How many requests were answered in all levels."""
        return sum(level.requests - level.failed for level in self.levels)

    @property
    def throttled(self) -> bool:
        """Whether every error was a 429, which a note explains."""
        return all(set(level.errors) <= {THROTTLED} for level in self.levels)

    @property
    def failure(self) -> BaseException | None:
        """The error to end with after the result is shown, else None."""
        if self.interrupted:
            return KeyboardInterrupt()
        if self.ended:
            return InvocationError(
                f"{self.where} {self.ended}; what was measured before is kept",
                hint="run fdeploy status and fdeploy logs to see why",
            )
        if not self.answered and not self.throttled:
            return InvocationError(
                f"no request was answered by {self.where}",
                hint="the errors above say why; run fdeploy logs to see more",
            )
        return None

    def values(self) -> Bench:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """A table of the levels, then what to set."""
        yield f"{self.where}; {self.texts} texts from {self.source}, one per request"
        yield ""
        yield from table(self.levels)
        yield ""
        yield from advice_lines(self)
        yield f"report      {self.page}"


def table(levels: tuple[Level, ...]) -> Iterator[str]:
    """One line for each level, latencies in ms."""
    rows = [
        (
            level.name,
            f"{level.throughput:,.1f}",
            *(_ms(each) for each in (level.p50_ms, level.p90_ms, level.p95_ms, level.p99_ms)),
            f"{level.requests:,}",
            errors_of(level),
        )
        for level in levels
    ]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    for row in (_HEAD, *rows):
        first, *middle, last = row
        cells = [f"{cell:>{width}}" for cell, width in zip(middle, widths[1:-1], strict=True)]
        yield "  ".join((f"{first:<{widths[0]}}", *cells, last)).rstrip()


def errors_of(level: Level) -> str:
    """``429: 12, timeout: 1``."""
    return ", ".join(f"{code}: {count:,}" for code, count in level.errors.items()) or "0"


def advice_lines(found: Bench) -> Iterator[str]:
    """What the levels say, one fact per line."""
    advice = found.advice
    if advice.clients is not None and advice.throughput is not None:
        yield (
            f"knee        {advice.clients} at once, {advice.throughput:,.1f} answers a second: the "
            "fewest clients with 90 % of the highest throughput"
        )
    if found.cost_per_million is not None:
        amount = f"{found.cost_per_million:,.2f} {found.currency}"
        yield f"cost        {amount} per million requests, with the instances always that busy"
    if advice.scaling_target is not None:
        yield (
            f"autoscaling {advice.scaling_target:,} invocations per instance and minute: half of "
            "the knee's, as AWS recommends to begin with"
        )
    if advice.instances is not None:
        yield f"instances   {advice.instances} for the rate of the open loop"
    for command in advice.commands:
        yield f"            {command}"
    yield from (f"note        {note}" for note in advice.notes)


def save(found: Bench) -> None:
    """Write the result as JSON. Raises FileError."""
    text = json.dumps(asdict(found), ensure_ascii=False, indent=1, default=str)
    files.write(Path(found.data), text.encode("utf-8", "replace") + b"\n")


@dataclass(frozen=True)
class LastBench:
    """What ``cost`` needs of the last load test.

    ``rate`` is the throughput of the knee for one instance, in texts per second; ``latency_ms`` the
    median of the level with the fewest clients. ``instance`` is empty for this machine.
    """

    at: str
    on: str
    instance: str
    rate: float
    latency_ms: float | None

    @property
    def where(self) -> str:
        """Where it was measured."""
        return self.instance or "this machine"


def last_bench(path: Path) -> LastBench | None:
    """The last load test; None if there is none, or none that can be used."""
    try:
        found = parse(files.read(path))
        throughput = found["advice"]["throughput"]
        closed = [level for level in found["levels"] if level["kind"] == "closed"]
        calmest = min(closed, key=lambda level: level["clients"])
        latency = calmest["p50_ms"]
        return LastBench(
            at=str(found["at"]),
            on=str(found["on"]),
            instance=str(found["instance"]),
            rate=float(throughput) / max(1, int(found["instances"])),
            latency_ms=None if latency is None else float(latency),
        )
    except (FileError, BadJson, LookupError, TypeError, ValueError, AttributeError):
        return None


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f} ms"

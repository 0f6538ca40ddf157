"""Progress events that a stage passes to a reporter while it runs.

A reporter is any callable that takes an event. The command line shows events on stderr (rich, plain
lines or JSON lines); a library user passes ``print``, a list's ``append`` or :func:`silent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastai_deploy.errors import UsageError
from fastai_deploy.stage_reports import PlannedChange, change_rows


@dataclass(frozen=True)
class StageStarted:
    """A stage begins."""

    stage: str


@dataclass(frozen=True)
class Step:
    """Something worth a line happened or is about to happen."""

    message: str


@dataclass(frozen=True)
class Advanced:
    """``done`` of ``total`` units of a long task are finished."""

    task: str
    done: int
    total: int
    unit: str = "bytes"


@dataclass(frozen=True)
class Warned:
    """Nothing failed, but the user should know this; ``hint`` says what to do about it."""

    message: str
    hint: str = ""


@dataclass(frozen=True)
class Planned:
    """The changes that are about to be made to a stack."""

    stack: str
    changes: tuple[PlannedChange, ...]

    @property
    def message(self) -> str:
        """One line per row."""
        return "\n".join(
            f"{row.action:<8} {row.type} {row.what}"
            + (" (service interruption)" if row.interrupts else "")
            for row in change_rows(self.changes)
        )


@dataclass(frozen=True)
class Happened:
    """A stack event; ``ended`` marks the last one of an operation."""

    stack: str
    type: str
    name: str
    status: str
    reason: str
    failed: bool
    ended: bool

    @property
    def message(self) -> str:
        """The event as one line."""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.status:<27} {self.type} {self.name}{reason}"


@dataclass(frozen=True)
class StageFinished:
    """A stage has ended; ``summary`` is its result in one line, ``seconds`` its duration."""

    stage: str
    summary: str
    seconds: float


@dataclass(frozen=True)
class LoadMeasured:
    """A level of a load test, measured so far or, if ``done``, as a whole.

    ``throughput`` is in answers per second; latencies are in ms, None without an answer.
    """

    level: str
    seconds: float
    throughput: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    errors: int
    done: bool

    @property
    def message(self) -> str:
        """The level as one line."""
        latency = ", ".join(
            f"{name} {value:.1f} ms"
            for name, value in (("p50", self.p50_ms), ("p95", self.p95_ms), ("p99", self.p99_ms))
            if value is not None
        )
        errors = f", {self.errors:,} errors" if self.errors else ""
        return f"{self.level}: {self.throughput:,.1f} answers a second, {latency or 'none'}{errors}"


Ask = Callable[[str], bool]  # asks a question; True for yes
Prompt = Callable[[str, str], str]  # asks a question with a default; the answer


@dataclass(frozen=True)
class Consent:
    """What the user has agreed to on the command line, and how to ask for the rest.

    ``yes``: to deploy a new stage, or to delete one; ``adopt``: to take over a stage of another id.
    ``ask`` and ``prompt`` are None without a terminal: then ``yes`` is taken for granted, and
    nothing else is.
    """

    yes: bool = False
    adopt: bool = False
    ask: Ask | None = None
    prompt: Prompt | None = None

    def agree(self, question: str, *, refused: str) -> None:
        """Ask, unless that is agreed or there is no terminal. Raises UsageError for a no."""
        if self.ask is not None and not self.yes and not self.ask(question):
            raise UsageError(refused, hint="run the same command again, and answer y; or add --yes")


UNASKED = Consent()  # nothing is agreed, and there is no terminal

Event = StageStarted | Step | Advanced | LoadMeasured | Warned | Planned | Happened | StageFinished
Reporter = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Ignore every event."""

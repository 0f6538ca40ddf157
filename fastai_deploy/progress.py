"""What a stage tells while it works: frozen events, handed to a reporter.

A reporter is any callable that takes an event. The command line paints events on stderr (rich,
plain lines or JSON lines); a library user passes ``print``, a list's ``append`` or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastai_deploy.records import PlannedChange, change_rows


@dataclass(frozen=True)
class StageStarted:
    """A stage begins."""

    stage: str


@dataclass(frozen=True)
class Step:
    """Something worth a line happened or is about to."""

    message: str


@dataclass(frozen=True)
class Advanced:
    """``done`` of ``total`` units of a long piece of work are finished."""

    task: str
    done: int
    total: int
    unit: str = "bytes"


@dataclass(frozen=True)
class Warned:
    """Nothing failed, but the user should know; ``hint`` says what to do about it."""

    message: str
    hint: str = ""


@dataclass(frozen=True)
class Planned:
    """What is about to be changed in a stack."""

    stack: str
    changes: tuple[PlannedChange, ...]

    @property
    def message(self) -> str:
        """A line a row."""
        return "\n".join(
            f"{row.action:<8} {row.type} {row.what}"
            + ("; the service stops meanwhile" if row.interrupts else "")
            for row in change_rows(self.changes)
        )


@dataclass(frozen=True)
class Happened:
    """Something happened to a part of a stack; ``ended``: nothing more will, to the stack."""

    stack: str
    type: str
    name: str
    status: str
    reason: str
    failed: bool
    ended: bool

    @property
    def message(self) -> str:
        """One line."""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.status:<27} {self.type} {self.name}{reason}"


@dataclass(frozen=True)
class StageFinished:
    """A stage ends; ``summary`` is its result in one line, ``seconds`` its wall time."""

    stage: str
    summary: str
    seconds: float


Event = StageStarted | Step | Advanced | Warned | Planned | Happened | StageFinished
Reporter = Callable[[Event], None]


def silent(_event: Event) -> None:
    """The reporter that says nothing."""

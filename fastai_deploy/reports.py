"""What is told of a stage beside the flow: frozen records, the same for every target.

    plan      StagePlan     what a deploy would change, and what the endpoint costs then
    status    Status        what is there, how it is doing, what it costs
    logs      LogLine       what servers and functions wrote
    versions  Version       what was deployed, and what is live
    doctor    Checkup       whether a deploy would work
    template  Templates     the stacks as they would be sent

What is unknown is None, and never 0. Dates are in UTC; amounts are decimal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

Outcome = Literal["passed", "warned", "failed"]
Action = Literal["add", "change", "replace", "remove"]

# AWS counts a month as 730 hours in its own calculator.
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class PlannedChange:
    """What happens to one part of a stage; ``properties`` are those that change.

    ``interrupts``: the service stops meanwhile.
    """

    stack: str
    action: Action
    type: str
    name: str
    properties: tuple[str, ...]
    interrupts: bool


@dataclass(frozen=True)
class ChangeRow:
    """Changes that are shown in one row, because they are of one kind."""

    action: Action
    type: str
    what: str
    interrupts: bool


_MOST_NAMES = 3  # in a row


def change_rows(changes: Sequence[PlannedChange]) -> tuple[ChangeRow, ...]:
    """A row for each change; parts of one type that are all added or removed share one."""
    groups: dict[tuple[Any, ...], list[PlannedChange]] = {}
    for change in changes:
        alone = change.name if change.properties else ""
        kind = (change.action, change.type, change.interrupts, alone)
        groups.setdefault(kind, []).append(change)
    rows = []
    for group in groups.values():
        names = [change.name for change in group]
        what = some_names(names)
        if group[0].properties:
            what += f" ({some_names(group[0].properties)})"
        rows.append(ChangeRow(group[0].action, group[0].type, what, group[0].interrupts))
    return tuple(rows)


def some_names(names: Sequence[str]) -> str:
    """The first three of many names, and how many there are."""
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{len(names)}: {', '.join(names[: _MOST_NAMES - 1])}, ..."


@dataclass(frozen=True)
class Cost:
    """What an endpoint costs while it runs: at least, and at most where it scales.

    ``note`` says what the figures leave out, or why there are none.
    """

    least_per_hour: Decimal | None
    most_per_hour: Decimal | None
    currency: str
    note: str

    def __str__(self) -> str:
        if self.least_per_hour is None or self.most_per_hour is None:
            return f"unknown: {self.note}"
        hour, month = money(self.least_per_hour), f"{self.least_per_month:,.2f}"
        if self.most_per_hour != self.least_per_hour:
            hour = f"{hour} to {money(self.most_per_hour)}"
            month = f"{month} to {self.most_per_month:,.2f}"
        return f"{hour} {self.currency} an hour, {month} a month"

    @property
    def least_per_month(self) -> Decimal | None:
        """For a month of :data:`HOURS_A_MONTH` hours."""
        return None if self.least_per_hour is None else self.least_per_hour * HOURS_A_MONTH

    @property
    def most_per_month(self) -> Decimal | None:
        """Likewise."""
        return None if self.most_per_hour is None else self.most_per_hour * HOURS_A_MONTH


def money(amount: Decimal) -> str:
    """An amount with all its digits and no zeros behind them."""
    return f"{amount.normalize():f}"


@dataclass(frozen=True)
class StagePlan:
    """What deploying would change, and what the endpoint costs then.

    ``ends`` is when the stage would delete itself then, ``ends_now`` when it does without a deploy;
    empty for never. A date that moves on is no change.
    """

    changes: tuple[PlannedChange, ...]
    cost: Cost
    ends: str = ""
    ends_now: str = ""

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes)


@dataclass(frozen=True)
class Part:
    """A part of a stage, such as a stack or a server, and since when it has been so."""

    name: str
    state: str
    since: str


@dataclass(frozen=True)
class LastHour:
    """What was asked in the last hour; latencies are in ms."""

    invocations: int | None
    errors: int | None
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True)
class Bill:
    """What the endpoint costs, in ``currency``; ``note`` says how that is counted, or why not."""

    per_hour: Decimal | None
    so_far: Decimal | None
    currency: str
    note: str


@dataclass(frozen=True)
class Status:
    """One stage; ``endpoint_status`` and ``version`` are empty where there is no endpoint.

    ``ends`` is when the stage deletes itself, empty for never. ``unproven``: not all of the
    answers of the version that is served are proven to be the learner's.
    """

    target: str
    parts: tuple[Part, ...]
    endpoint: str
    endpoint_status: str
    reason: str
    version: str
    instances: int
    url: str
    ends: str
    last_hour: LastHour
    bill: Bill
    unproven: bool = False


@dataclass(frozen=True)
class LogLine:
    """One line; ``stream`` names the instance, the function's sandbox or the file."""

    at: datetime
    stream: str
    message: str


@dataclass(frozen=True)
class Version:
    """A version that was deployed and verified; ``by`` is who deployed it last, at ``at``."""

    version: str
    at: str
    by: str
    bytes: int
    uri: str
    live: bool


@dataclass(frozen=True)
class Check:
    """What was looked at, and how it is; ``hint`` says what mends it."""

    name: str
    outcome: Outcome
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Checkup:
    """All checks, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those for which a deploy would fail."""
        return tuple(check for check in self.checks if check.outcome == "failed")


@dataclass(frozen=True)
class Templates:
    """The documents by the name of their stack."""

    stacks: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Policies:
    """Permission documents by what they are for."""

    documents: Mapping[str, Mapping[str, Any]]

"""Frozen records: what plan, status, logs, versions, doctor and template say about a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from fastai_deploy.records import ModelSummary, stage_place

Outcome = Literal["passed", "warned", "failed"]
Action = Literal["add", "change", "replace", "remove"]

HOURS_A_MONTH = 730
"""As AWS's own calculator counts them."""
BY_USAGE = "billed by usage"
_MOST_NAMES = 3  # per row


@dataclass(frozen=True)
class PlannedChange:
    """A change to one resource of a stage; ``properties`` are those that change.

    ``interrupts``: the service is interrupted while it is made.
    """

    stack: str
    action: Action
    type: str
    name: str
    properties: tuple[str, ...]
    interrupts: bool


@dataclass(frozen=True)
class ChangeRow:
    """Changes of the same kind, shown in one row."""

    action: Action
    type: str
    what: str
    interrupts: bool


def change_rows(changes: Sequence[PlannedChange]) -> tuple[ChangeRow, ...]:
    """Group changes into rows: resources of one type that are all added or removed share one."""
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
    """Join up to three names; for more, show their number and the first two."""
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{len(names)}: {', '.join(names[: _MOST_NAMES - 1])}, ..."


@dataclass(frozen=True)
class Extra:
    """A cost beside the instances, such as alarms; ``per_month`` None depends on the use.

    ``note`` says how it is counted.
    """

    what: str
    per_month: Decimal | None
    note: str


@dataclass(frozen=True)
class Cost:
    """What an endpoint costs while it runs: the least, and the most if it scales.

    ``note`` says what the figures leave out, or why there are none. ``extras`` are not in them.
    """

    least_per_hour: Decimal | None
    most_per_hour: Decimal | None
    currency: str
    note: str
    extras: tuple[Extra, ...] = ()

    def __str__(self) -> str:
        if self.least_per_hour is None or self.most_per_hour is None:
            return without_hour(self.note)
        hour, month = money(self.least_per_hour), f"{self.least_per_month:,.2f}"
        if self.most_per_hour != self.least_per_hour:
            hour = f"{hour} to {money(self.most_per_hour)}"
            month = f"{month} to {self.most_per_month:,.2f}"
        return f"{hour} {self.currency} per hour, {month} per month"

    @property
    def least_per_month(self) -> Decimal | None:
        """The lowest cost of a month of :data:`HOURS_A_MONTH` hours."""
        return None if self.least_per_hour is None else self.least_per_hour * HOURS_A_MONTH

    @property
    def most_per_month(self) -> Decimal | None:
        """The highest cost of a month of :data:`HOURS_A_MONTH` hours."""
        return None if self.most_per_hour is None else self.most_per_hour * HOURS_A_MONTH


def without_hour(note: str) -> str:
    """A price that is none per hour: ``note`` says that usage is billed, or why it is unknown."""
    return note if BY_USAGE in note else f"unknown: {note}"


def money(amount: Decimal) -> str:
    """Format an amount with all its digits but no trailing zeros."""
    return f"{amount.normalize():f}"


@dataclass(frozen=True)
class ModelChange:
    """The live version and the one that would replace it; ``live`` is empty without one.

    ``before`` and ``after`` are None where nothing is known of a version.
    """

    live: str
    version: str
    before: ModelSummary | None
    after: ModelSummary | None

    @property
    def labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The labels that would be added and removed."""
        if self.before is None or self.after is None:
            return (), ()
        old, new = self.before.labels, self.after.labels
        return tuple(x for x in new if x not in old), tuple(x for x in old if x not in new)

    @property
    def breaks_callers(self) -> str:
        """What would change in every answer, as a clause; empty if nothing is known to."""
        if self.before is None or self.after is None:
            return ""
        if self.before.task != self.after.task:
            return f"the model becomes {self.after.task} instead of {self.before.task}"
        added, removed = self.labels
        clauses = [f"adds {some_names(added)}"] * bool(added)
        clauses += [f"removes {some_names(removed)}"] * bool(removed)
        return f"the new version {' and '.join(clauses)}" if clauses else ""


@dataclass(frozen=True)
class StagePlan:
    """What deploying would change, and what the endpoint would then cost.

    ``ends`` is when the stage would delete itself after the deploy, ``ends_now`` when it does so
    without one; empty means never. A later date alone does not count as a change. ``model`` is None
    if the version stays.
    """

    changes: tuple[PlannedChange, ...]
    cost: Cost
    ends: str = ""
    ends_now: str = ""
    model: ModelChange | None = None

    @property
    def changed(self) -> bool:
        """Whether a deploy would change anything."""
        return bool(self.changes)


@dataclass(frozen=True)
class Part:
    """A part of a stage, such as a stack or a server; ``since`` is when its state began."""

    name: str
    state: str
    since: str


@dataclass(frozen=True)
class LastHour:
    """Requests of the last hour; latencies are in ms."""

    invocations: int | None
    errors: int | None
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True)
class Bill:
    """What the endpoint costs, in ``currency``; ``note`` says what is counted or missing.

    ``so_far`` is since the stack was created, ``this_month`` since then or since the month began.
    """

    per_hour: Decimal | None
    so_far: Decimal | None
    currency: str
    note: str
    this_month: Decimal | None = None


@dataclass(frozen=True)
class Status:
    """The state of a stage; ``endpoint_status`` and ``version`` are empty without an endpoint.

    ``region`` and ``account`` are those of AWS, empty for another target. ``ends`` is when the
    stage deletes itself, empty for never; ``overdue``: that time has passed, and nothing deletes
    it. ``unproven``: some answers of the live version are not proven to match the learner's.
    ``image`` is the container image that serves, empty without one.
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
    region: str = ""
    account: str = ""
    overdue: bool = False
    image: str = ""

    @property
    def where(self) -> str:
        """Where the stage was searched, for people."""
        return stage_place(self.target, self.account, self.region)


@dataclass(frozen=True)
class LogLine:
    """A log line; ``stream`` names the instance, the Lambda's log stream or the file."""

    at: datetime
    stream: str
    message: str


@dataclass(frozen=True)
class Version:
    """A deployed and verified version; ``by`` is who deployed it last, ``at`` when.

    ``image`` is the container image that it was verified in, empty without one.
    """

    version: str
    at: str
    by: str
    bytes: int
    uri: str
    live: bool
    image: str = ""


@dataclass(frozen=True)
class Check:
    """The result of one check; ``hint`` says how to fix it."""

    name: str
    outcome: Outcome
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Checkup:
    """All checks, in the order they were made."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks because of which a deploy would fail."""
        return tuple(check for check in self.checks if check.outcome == "failed")


@dataclass(frozen=True)
class Templates:
    """CloudFormation templates in YAML, by the name of their stack."""

    stacks: Mapping[str, str]


@dataclass(frozen=True)
class Policies:
    """IAM policy documents by purpose."""

    documents: Mapping[str, Mapping[str, Any]]

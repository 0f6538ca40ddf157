"""What each stage returns, and the next one starts from: frozen records.

    Bundle --package--> Artifact --upload--> StoredArtifact --deploy--> Endpoint --create-api--> Api

Every record names what it was made from, so that a stage can tell whether it is still current.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

UNPROVEN = "not all of its answers are proven to be the learner's"
_SHOWN = 12  # hexadecimal digits of a version
DEPLOYED_AT = "%Y%m%dT%H%M%SZ"  # how the date of a deploy is written


@dataclass(frozen=True)
class Source:
    """The learner file as it was when it was exported."""

    path: str
    sha256: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Bundle:
    """A converted learner in ``path``; ``version`` is the SHA-256 of its manifest.

    ``proven`` counts the goldens that hold the learner's own answers, and ``max_difference`` is the
    largest |Δprobability| of the ONNX model against all goldens. ``golden`` is the user's golden
    file. ``made_from`` is a digest of the learner, the golden file and the settings of the export.
    ``definitions``, ``requirements`` and ``tokenizer`` are the user's files, ``runtime`` and
    ``python`` are those of the settings. ``unproven`` is what the manifest says is unproven.
    """

    path: str
    version: str
    name: str
    task: str
    labels: tuple[str, ...]
    proven: int
    max_difference: float
    source: Source
    golden: str | None
    made_from: str
    definitions: str | None = None
    requirements: str | None = None
    tokenizer: str | None = None
    runtime: str = "onnx"
    python: str | None = None
    unproven: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """``model.tar.gz``; ``made_from`` is the digest of the bundle and the settings of package.

    ``fits`` is the Python and the platform of the image that its wheels are for; empty without any.
    ``unproven``: not all of the model's answers are proven, which every answer says.
    """

    path: str
    sha256: str
    bytes: int
    made_from: str
    fits: str = ""
    unproven: bool = False

    @property
    def version(self) -> str:
        """What answers call the model's version: the first 12 hexadecimal digits."""
        return self.sha256[:_SHOWN]


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact where the target can read it; ``made_from`` is the artifact's SHA-256.

    ``region`` is AWS's, empty for another target.
    """

    target: str
    uri: str
    sha256: str
    bytes: int
    made_from: str
    region: str = ""
    unproven: bool = False

    @property
    def version(self) -> str:
        """That of the artifact."""
        return self.sha256[:_SHOWN]


@dataclass(frozen=True)
class Deployed:
    """A version that was verified; ``at`` is in UTC, ``by`` who deployed it."""

    version: str
    sha256: str
    uri: str
    bytes: int
    at: str
    by: str
    unproven: bool = False

    @classmethod
    def of(cls, stored: StoredArtifact, at: datetime, by: str) -> Deployed:
        """The version of a stored artifact, verified at a date in UTC."""
        return cls(
            version=stored.version,
            sha256=stored.sha256,
            uri=stored.uri,
            bytes=stored.bytes,
            at=f"{at:{DEPLOYED_AT}}",
            by=by,
            unproven=stored.unproven,
        )

    def stored(self, target: str) -> StoredArtifact:
        """The artifact, to be deployed again."""
        return StoredArtifact(
            target, self.uri, self.sha256, self.bytes, self.sha256, unproven=self.unproven
        )


@dataclass(frozen=True)
class Endpoint:
    """A model server that answered its goldens; ``made_from`` is the artifact's SHA-256.

    ``region`` is AWS's, empty for another target.
    """

    target: str
    name: str
    url: str
    version: str
    made_from: str
    region: str = ""


@dataclass(frozen=True)
class Api:
    """The public API; its key stands in ``key_file`` and nowhere else.

    ``made_from`` is the endpoint's name; ``auth`` is who may call; ``document`` and ``page`` are
    the URLs of the OpenAPI document and of the page to try it, empty where there is none.
    """

    target: str
    url: str
    endpoint: str
    key_file: str
    made_from: str
    auth: Literal["key", "iam", "jwt", "none"] = "key"
    document: str = ""
    page: str = ""


@dataclass(frozen=True)
class Teardown:
    """The proof of a teardown: what was found, what was deleted, and what is left (nothing).

    ``kept`` is what was to stay: stored artifacts. ``begun`` is what nobody waited for: it is
    neither deleted nor left yet.
    """

    target: str
    found: tuple[str, ...]
    deleted: tuple[str, ...]
    left: tuple[str, ...]
    kept: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()


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
    """CloudFormation templates in YAML, by the name of their stack."""

    stacks: Mapping[str, str]


@dataclass(frozen=True)
class Policies:
    """Permission documents by what they are for."""

    documents: Mapping[str, Mapping[str, Any]]

"""What measured requests say: percentiles, throughput, the knee, and what to set.

    samples --level_of--> Level, for each number of clients or rate --advise--> Advice

All functions are pure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

OK = "ok"
TIMEOUT = "timeout"
NO_ANSWER = "no answer"
THROTTLED, BUSY = "429", "503"

# The knee is the fewest clients with this share of the highest throughput.
KNEE_SHARE = 0.9
# A level with a larger share of errors says nothing about how many requests can be answered.
MOST_ERRORS = 0.01
# AWS recommends to begin with this factor: "Load testing your auto scaling configuration" in the
# SageMaker developer guide, https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-loadtest.html
SAFETY = 0.5
_BUCKETS = 30  # of the latency distribution


@dataclass(frozen=True)
class Sample:
    """One request: when it was due, in seconds since the level began, and what came of it.

    ``seconds`` is the time from ``due`` to the end of the answer. ``outcome`` is ``ok``, the status
    of another answer such as ``429``, ``timeout`` or ``no answer``.
    """

    due: float
    seconds: float
    outcome: str

    @property
    def ended(self) -> float:
        """When the answer had arrived."""
        return self.due + self.seconds


@dataclass(frozen=True)
class Bucket:
    """Requests that took up to ``to_ms`` and longer than the bucket before."""

    to_ms: float
    requests: int


@dataclass(frozen=True)
class Level:
    """What was measured with one number of clients, or at one rate.

    ``clients`` is how many requests can be open at once; ``rate`` is how many were due each second,
    None in a closed loop. ``throughput`` counts answers per second, without errors; latencies are
    of answers, in ms, None without any. ``warm_up`` requests were left out. ``cpu`` is the share of
    one core that the load generator took, None if the model ran in the same process.
    """

    kind: Literal["closed", "open"]
    clients: int
    rate: float | None
    seconds: float
    warm_up: int
    requests: int
    errors: Mapping[str, int]
    throughput: float
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    cpu: float | None
    distribution: tuple[Bucket, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """``4 clients``, or ``50/s``."""
        if self.rate is not None:
            return f"{self.rate:g}/s"
        return f"{self.clients} client{'' if self.clients == 1 else 's'}"

    @property
    def failed(self) -> int:
        """The requests without an answer."""
        return sum(self.errors.values())

    @property
    def sound(self) -> bool:
        """Whether nearly all requests were answered."""
        return self.requests > 0 and self.failed <= MOST_ERRORS * self.requests


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The least of some sorted values that at least ``percent`` of them do not exceed."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def level_of(
    samples: Sequence[Sample],
    *,
    clients: int,
    rate: float | None,
    warm_up: float,
    until: float,
    cpu: float | None,
) -> Level:
    """The figures of a level, without the requests due in its first ``warm_up`` seconds.

    ``until`` is when no more requests were sent, in seconds since the level began. Throughput
    counts the answers that arrived between the two, latency the answers to all requests that were
    due then, also if they arrived later: leaving them out would hide the slowest.
    """
    counted = [sample for sample in samples if sample.due >= warm_up]
    window = max(until - warm_up, 0.0)
    answered = sorted(1000 * sample.seconds for sample in counted if sample.outcome == OK)
    arrived = sum(sample.outcome == OK and warm_up <= sample.ended <= until for sample in samples)
    errors = Counter(sample.outcome for sample in counted if sample.outcome != OK)
    return Level(
        kind="closed" if rate is None else "open",
        clients=clients,
        rate=rate,
        seconds=window,
        warm_up=len(samples) - len(counted),
        requests=len(counted),
        errors=dict(sorted(errors.items())),
        throughput=arrived / window if window > 0 else 0.0,
        p50_ms=percentile(answered, 50),
        p90_ms=percentile(answered, 90),
        p95_ms=percentile(answered, 95),
        p99_ms=percentile(answered, 99),
        max_ms=answered[-1] if answered else None,
        cpu=cpu,
        distribution=distribution(answered),
    )


def distribution(ordered: Sequence[float]) -> tuple[Bucket, ...]:
    """How sorted latencies in ms are distributed, in buckets of equal width on a log scale."""
    if not ordered:
        return ()
    low, high = max(ordered[0], 1e-3), max(ordered[-1], 1e-3)
    if high <= low:
        return (Bucket(high, len(ordered)),)
    step = (math.log(high) - math.log(low)) / _BUCKETS
    counts = Counter(
        min(_BUCKETS - 1, int((math.log(max(each, low)) - math.log(low)) / step))
        for each in ordered
    )
    return tuple(
        Bucket(high if at == _BUCKETS - 1 else low * math.exp(step * (at + 1)), counts[at])
        for at in range(_BUCKETS)
    )


def knee(levels: Sequence[Level]) -> Level | None:
    """The level of a closed loop from which more clients gain little.

    It is the one with the fewest clients that reaches 90 % of the highest throughput; levels with
    over 1 % errors do not count. None without a level that counts.
    """
    sound = sorted(
        (level for level in levels if level.kind == "closed" and level.sound),
        key=lambda level: level.clients,
    )
    if not sound:
        return None
    best = max(level.throughput for level in sound)
    return next(level for level in sound if level.throughput >= KNEE_SHARE * best)


def still_rises(levels: Sequence[Level]) -> bool:
    """Whether the knee is the level with the most clients, so that more clients might gain more."""
    found = knee(levels)
    most = max((level.clients for level in levels if level.kind == "closed"), default=0)
    return found is not None and found.clients == most


@dataclass(frozen=True)
class Advice:
    """What to set after a load test.

    ``clients`` is how many requests to keep open at once, at ``throughput`` requests per second.
    ``scaling_target`` is in invocations per instance and minute and ``instances`` the number of
    instances for the rate of the open loop; both are None unless measured on AWS's instances, and
    where the API's rate was reached before theirs.
    ``commands`` make these settings; ``notes`` say what limits all of this.
    """

    clients: int | None
    throughput: float | None
    scaling_target: int | None
    instances: int | None
    commands: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Served:
    """What answered: ``instances`` of AWS, 0 for this machine; ``rate_limit`` is that of the API.

    ``scales``: the number of instances follows the load. ``most`` is the largest number that the
    settings allow, 0 for no autoscaling.
    """

    instances: int = 0
    scales: bool = False
    most: int = 0
    rate_limit: float | None = None


def advise(levels: Sequence[Level], served: Served) -> Advice:
    """What to set, from all levels of a run."""
    found = knee(levels)
    target, count = None, None
    commands: list[str] = []
    # Where the API's rate ended the closed loop, the instances could do more than was measured.
    throttled = any(level.errors.get(THROTTLED) for level in levels if level.kind == "closed")
    if found is not None and found.throughput > 0 and served.instances and not throttled:
        each = found.throughput / served.instances
        # (MAX_RPS * SAFETY_FACTOR) * 60, see SAFETY.
        target = max(1, math.floor(each * SAFETY * 60))
        wanted = max((level.rate or 0.0 for level in levels), default=0.0)
        if wanted:
            count = max(1, math.ceil(wanted / (each * SAFETY)))
        commands = list(_commands(target, count, served))
    return Advice(
        clients=found.clients if found else None,
        throughput=found.throughput if found else None,
        scaling_target=target,
        instances=count,
        commands=tuple(commands),
        notes=tuple(_notes(levels, served)),
    )


def _commands(target: int, count: int | None, served: Served) -> list[str]:
    commands = [f"fdeploy config set endpoint.scaling.target {target}"]
    if count is not None:
        if served.scales:
            most = max(count, served.most)
            commands.append(f"fdeploy config set endpoint.scaling.max_instances {most}")
        else:
            commands = [f"fdeploy config set endpoint.instance_count {count}"]
    elif not served.scales:
        commands.append("fdeploy config set endpoint.scaling.max_instances 2")
    return commands


def _notes(levels: Sequence[Level], served: Served) -> list[str]:
    errors: Counter[str] = Counter()
    for level in levels:
        errors.update(level.errors)
    notes = []
    if errors[THROTTLED]:
        limit = "" if served.rate_limit is None else f" of {served.rate_limit:g} requests a second"
        notes.append(
            f"{errors[THROTTLED]:,} requests were throttled (429): the limit{limit} was measured, "
            "not the model; raise it with fdeploy config set api.rate and api.burst, then fdeploy "
            "create-api, or use --on endpoint"
        )
    if errors[BUSY]:
        notes.append(f"{errors[BUSY]:,} requests found the server's queue full (503)")
    closed = [level for level in levels if level.kind == "closed"]
    if closed and knee(levels) is None:
        notes.append("no level of the closed loop was answered without errors, so it has no knee")
    elif closed and still_rises(levels):
        notes.append("throughput still rises at the last level: try more with --clients")
    if any(level.cpu is not None and level.cpu > _BUSY_GENERATOR for level in levels):
        notes.append(
            "the load generator took over 80 % of a core, so the server may be faster than measured"
        )
    notes += [
        f"at {level.name} only {level.throughput:.1f} a second were answered: requests queued up"
        for level in levels
        if level.rate is not None and level.throughput < KNEE_SHARE * level.rate
    ]
    return notes


_BUSY_GENERATOR = 0.8

"""``fdeploy bench``: a load test of a stage's endpoint, its API, or the bundle in this process."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from fastai_deploy import files
from fastai_deploy.errors import FileError, UsageError
from fastai_deploy.load import generator
from fastai_deploy.load.connections import (
    HttpConnection,
    InProcess,
    bodies_of,
    bundle_predictor,
)
from fastai_deploy.load.generator import OPEN_CLIENTS, Connection, Load
from fastai_deploy.load.measure import Level, Served, advise
from fastai_deploy.load.report import page
from fastai_deploy.load.result import Bench, save
from fastai_deploy.naming import short
from fastai_deploy.parity.gate import patient, stored_goldens
from fastai_deploy.progress import LoadMeasured, StageFinished, StageStarted, Step, Warned
from fastai_deploy.project import Project
from fastai_deploy.records import Api, Bundle, Endpoint, counted
from fastai_deploy.runtime.bundle import ModelError
from fastai_deploy.settings.aws_sections import ServerlessSettings
from fastai_deploy.stage_reports import Status, money

On = Literal["endpoint", "api", "bundle"]
CLIENTS = (1, 2, 4, 8)
SECONDS = 5.0
_MOST_CLIENTS = 256
_HOUR = 3_600
_MILLION = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What to measure: each number of ``clients`` in a closed loop, and ``rate`` in an open loop.

    ``seconds`` and ``requests`` bound each level. ``texts`` come from ``source``; None takes those
    of the goldens.
    """

    on: On = "endpoint"
    clients: tuple[int, ...] = CLIENTS
    rate: float | None = None
    seconds: float = SECONDS
    requests: int | None = None
    texts: Sequence[str] | None = None
    source: str = "the goldens"

    @property
    def loads(self) -> tuple[Load, ...]:
        """The levels, from the fewest clients to the most, then the open loop."""
        closed = [Load(clients, self.seconds, self.requests) for clients in sorted(self.clients)]
        if self.rate is None:
            return tuple(closed)
        return (*closed, Load(OPEN_CLIENTS, self.seconds, self.requests, self.rate))


def parse_clients(given: str | None, rate: float | None) -> tuple[int, ...]:
    """``1,2,4,8`` as numbers; without any, the default, or none for an open loop alone.

    Raises UsageError.
    """
    if given is None:
        return CLIENTS if rate is None else ()
    try:
        found = sorted({int(each) for each in given.split(",") if each.strip()})
    except ValueError:
        found = []
    if not found or found[0] < 1 or found[-1] > _MOST_CLIENTS:
        raise UsageError(
            f"--clients takes numbers from 1 to {_MOST_CLIENTS} with commas, not {given!r}",
            hint="fdeploy bench --clients 1,2,4,8",
        )
    return tuple(found)


def bench(project: Project, plan: Plan) -> Bench:
    """Measure, write ``bench.json`` and ``bench.html``, and return the result.

    On AWS, asks first. Ctrl-C, and a server that stops answering, end the run; what was measured is
    kept. Raises RecordMissing, UsageError, InvocationError or FileError.
    """
    began = project.clock()
    project.report(StageStarted("bench"))
    subject = _subject(project, plan)
    texts = [text for text in plan.texts or _golden_texts(project) if text.strip()]
    if not texts:
        raise FileError(
            f"{plan.source} holds no text that can be sent", hint="use a file with texts"
        )
    if subject.status is not None:
        _agree(project, plan, subject.status)
    connect = subject.open(texts)
    levels: list[Level] = []
    ended, interrupted = "", False
    try:
        subject.warm_up(texts[0])
        for load in plan.loads:
            measured = generator.run(
                load,
                texts,
                connect,
                tick=lambda level: project.report(_event(level, done=False)),
                own_cpu=subject.own_cpu,
            )
            levels.append(measured.level)
            project.report(_event(measured.level, done=True))
            interrupted = measured.interrupted
            if measured.dead:
                ended = f"stopped answering at {measured.level.name}"
            if measured.dead or interrupted:
                break
    except KeyboardInterrupt:
        interrupted = True
    if not levels:
        raise KeyboardInterrupt
    found = _result(
        project, plan, subject, texts, tuple(levels), ended=ended, interrupted=interrupted
    )
    save(found)
    files.write(Path(found.page), page(found).encode("utf-8", "replace"))
    summary = f"{found.answered:,} requests answered"
    project.report(StageFinished("bench", summary, project.clock() - began))
    return found


@dataclass(frozen=True)
class _Subject:
    """What is measured. ``status`` is that of a stage on AWS, else None."""

    where: str
    version: str
    served: Served
    open: Callable[[Sequence[str]], Callable[[], Connection]]
    warm_up: Callable[[str], object]
    own_cpu: Callable[[], float] | None
    status: Status | None = None


def _subject(project: Project, plan: Plan) -> _Subject:
    if plan.on == "bundle":
        return _bundle(project)
    endpoint = project.workspace.need(Endpoint)
    target = project.target
    invoke: Callable[[Any], Any]
    if plan.on == "api":
        api = project.workspace.need(Api)
        quota = project.settings.sections.api.quota
        if quota is not None:
            project.report(
                Warned(
                    f"these requests count in the key's quota of {quota:,} a day",
                    hint="--on endpoint has no quota",
                )
            )
        route, invoke = target.api_route(api), lambda request: target.call_api(api, request)
    else:
        route = target.endpoint_route(endpoint)
        invoke = lambda request: target.invoke(endpoint, request)  # noqa: E731

    def opened(texts: Sequence[str]) -> Callable[[], Connection]:
        bodies = bodies_of(texts)
        return lambda: HttpConnection(route, bodies)

    sections = project.settings.sections
    status = project.operations.status() if target.name == "aws" else None
    real_time = status is not None and sections.endpoint.kind == "real-time"
    most = sections.endpoint.scaling.max_instances or 0
    ask = patient(invoke, time.sleep)
    return _Subject(
        where=_where(plan, endpoint, status),
        version=endpoint.version,
        served=Served(
            instances=status.instances if status is not None and real_time else 0,
            scales=most > 0,
            most=most,
            rate_limit=sections.api.rate if plan.on == "api" else None,
        ),
        open=opened,
        warm_up=lambda text: ask({"text": text}),
        own_cpu=time.process_time,
        status=status,
    )


def _bundle(project: Project) -> _Subject:
    record = project.workspace.need(Bundle)
    folder = Path(record.path)
    if record.runtime != "onnx":
        raise UsageError(
            "a learner that is served from its original pickle is not loaded into this process",
            hint="fdeploy bench --on endpoint",
        )
    project.report(Step("loading the bundle and checking its goldens"))
    try:
        predict = bundle_predictor(folder)
    except ModelError as error:
        raise FileError(f"{folder} cannot be loaded: {error}", hint="run fdeploy export") from None
    return _Subject(
        where=f"the bundle in this process ({_cores()})",
        version=short(record.version),
        served=Served(),
        open=lambda _texts: lambda: InProcess(predict),
        warm_up=lambda text: predict([text]),
        own_cpu=None,
    )


def _where(plan: Plan, endpoint: Endpoint, status: Status | None) -> str:
    what = f"the API of {endpoint.name}" if plan.on == "api" else f"the endpoint {endpoint.name}"
    if status is None:
        return f"{what} on this machine ({_cores()})"
    instances = counted(status.instances, "instance") if status.instances else "serverless"
    return f"{what} in {status.region} ({instances})"


def _cores() -> str:
    return counted(os.cpu_count() or 1, "core")


def _golden_texts(project: Project) -> Iterator[str]:
    _, goldens = stored_goldens(project.workspace.bundle)
    yield from (golden.text for golden in goldens)


def _agree(project: Project, plan: Plan, status: Status) -> None:
    """Say what a load test on AWS costs at most, and ask. Raises UsageError for a no."""
    seconds = sum(load.seconds for load in plan.loads)
    bounds = f"{len(plan.loads)} levels of {plan.seconds:g} s"
    if plan.requests is not None:
        bounds += f" and {plan.requests:,} requests"
    project.report(Step(f"sends requests for at most {seconds:g} s: {bounds}"))
    project.report(Step(_price(project, plan, status, seconds)))
    consent = project.consent
    if consent.yes:
        return
    again = "add --yes to agree"
    if consent.ask is None:
        raise UsageError("a load test on AWS may cost money and nobody can be asked", hint=again)
    if not consent.ask(f"Send load to {status.endpoint}?"):
        raise UsageError("no load was sent", hint=again)


def _price(project: Project, plan: Plan, status: Status, seconds: float) -> str:
    """What is known of the price, as a sentence."""
    endpoint, bill = project.settings.sections.endpoint, status.bill
    if endpoint.kind == "serverless":
        return _serverless_price(plan, status.region, endpoint.serverless)
    if bill.per_hour is None:
        return f"price: unknown ({bill.note}); requests of the API are billed on top"
    each = bill.per_hour * Decimal(math.ceil(seconds)) / _HOUR
    more = endpoint.scaling.max_instances
    scales = f"; autoscaling may start up to {more} instances" if more else ""
    return (
        f"price: the instances cost {money(bill.per_hour)} {bill.currency} per hour with or "
        f"without load, {each:.4f} for this time{scales}. Requests of the API are billed on top"
    )


def _serverless_price(plan: Plan, region: str, settings: ServerlessSettings) -> str:
    """At most every second of as many requests as run at a time is billed."""
    from fastai_deploy.aws.list_prices import default_folder, price_book  # noqa: PLC0415 - for AWS

    busy = sum(load.seconds * min(load.clients, settings.concurrency) for load in plan.loads)
    second = price_book(region, default_folder()).second_by_gb.get(settings.memory // 1024)
    amount = "unknown" if second is None else f"{second * Decimal(str(busy)):.4f} USD"
    return (
        f"price: at most {busy:,.0f} s of {settings.memory:,} MB, {amount}; requests of the API "
        "are billed on top"
    )


def _instance(project: Project) -> str:
    """The instance type on AWS, or the kind of what has none."""
    from fastai_deploy.aws.capacity import DEFAULT_INSTANCE  # noqa: PLC0415 - boto's data

    endpoint = project.settings.sections.endpoint
    if endpoint.kind in ("serverless", "lambda"):
        return endpoint.kind
    return endpoint.instance or DEFAULT_INSTANCE


def _event(level: Level, *, done: bool) -> LoadMeasured:
    return LoadMeasured(
        level.name,
        level.seconds,
        level.throughput,
        level.p50_ms,
        level.p95_ms,
        level.p99_ms,
        level.failed,
        done,
    )


def _result(
    project: Project,
    plan: Plan,
    subject: _Subject,
    texts: Sequence[str],
    levels: tuple[Level, ...],
    *,
    ended: str,
    interrupted: bool,
) -> Bench:
    advice = advise(levels, subject.served)
    status, data = subject.status, project.workspace.bench
    bill = status.bill if status is not None else None
    per_million = None
    if bill is not None and bill.per_hour is not None and advice.throughput:
        each = bill.per_hour / _HOUR / Decimal(str(advice.throughput))
        per_million = (each * _MILLION).quantize(Decimal("0.01"))
    return Bench(
        at=f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        stage=project.settings.stage,
        target="" if plan.on == "bundle" else project.target.name,
        on=plan.on,
        where=subject.where,
        version=subject.version,
        instance=_instance(project) if status is not None else "",
        instances=subject.served.instances,
        texts=len(texts),
        source=plan.source,
        levels=levels,
        advice=advice,
        cost_per_million=per_million,
        currency=bill.currency if bill is not None else "USD",
        ended=ended,
        interrupted=interrupted,
        data=str(data),
        page=str(data.with_suffix(".html")),
    )

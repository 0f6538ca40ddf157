"""What ``plan``, ``status``, ``logs``, ``versions`` and ``doctor`` show to people: lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import groupby

from fastai_deploy.records import DEPLOYED_AT, UNPROVEN
from fastai_deploy.reports import (
    Bill,
    Checkup,
    Cost,
    LogLine,
    StagePlan,
    Status,
    Version,
    change_rows,
    money,
)

_UNKNOWN = "unknown"
_MARKS = {"passed": "ok", "warned": "warning", "failed": "FAILED"}


def plan(result: StagePlan) -> Iterator[str]:
    """A table of the changes, and the price."""
    if not result.changed:
        yield "unchanged: there is nothing to deploy"
    for stack, changes in groupby(result.changes, key=lambda change: change.stack):
        yield stack
        rows = change_rows(tuple(changes))
        cells = [(row.action, row.type, row.what) for row in rows]
        for row, line in zip(rows, _columns(cells), strict=True):
            yield f"  {line}{'  the service stops meanwhile' if row.interrupts else ''}"
    if result.changed:
        stops = [change.name for change in result.changes if change.interrupts]
        yield f"interrupts  {', '.join(stops) if stops else 'nothing'}"
    if result.ends or result.ends_now:
        so_far = f"if it is deployed now; so far {result.ends_now or 'never'}"
        yield f"ends        {result.ends or 'never'}, {so_far}"
    yield from cost(result.cost)


def cost(found: Cost) -> Iterator[str]:
    """What it costs by the hour and the month."""
    yield f"price       {found}"
    if found.least_per_hour is not None:
        yield f"            {found.note}"


def status(result: Status) -> Iterator[str]:
    """A fact a line."""
    yield from _columns(
        [
            (part.name, part.state, f"since {part.since}" if part.since else "")
            for part in result.parts
        ]
    )
    if not result.endpoint:
        yield "nothing is deployed" if not result.parts else "there is no endpoint"
        return
    instances = f"{result.instances} instance{'' if result.instances == 1 else 's'}"
    where = f", {instances}" if result.target == "aws" else ""
    yield f"endpoint    {result.endpoint}, {result.endpoint_status or 'gone'}{where}"
    if result.reason:
        yield f"            {result.reason}"
    yield f"version     {result.version or _UNKNOWN}"
    if result.unproven:
        yield f"unproven    {UNPROVEN}"
    yield f"url         {result.url or 'none: fdeploy create-api makes one'}"
    if result.ends:
        yield f"ends        {result.ends}: the stage deletes itself then"
    hour = result.last_hour
    asked = _UNKNOWN if hour.invocations is None else f"{hour.invocations:,} requests"
    if hour.errors is not None:
        asked += f", {hour.errors:,} errors"
    if hour.p50_ms is not None and hour.p95_ms is not None:
        asked += f", latency p50 {hour.p50_ms:.0f} ms, p95 {hour.p95_ms:.0f} ms"
    yield f"last hour   {asked}"
    yield from _bill(result.bill)


def versions(listed: Sequence[Version]) -> Iterator[str]:
    """A version a line, newest first."""
    if not listed:
        yield "no version was deployed yet"
    yield from _columns(
        [
            (
                "live" if each.live else "",
                each.version,
                _date(each.at),
                f"{each.bytes:,} bytes",
                each.by,
            )
            for each in listed
        ]
    )


def checkup(result: Checkup) -> Iterator[str]:
    """A check a line, and below it what mends it."""
    for check in result.checks:
        yield f"{_MARKS[check.outcome]:<8} {check.name}: {check.message}"
        if check.hint and check.outcome != "passed":
            yield f"           try: {check.hint}"
    failed = len(result.failed)
    yield f"{failed} of {len(result.checks)} checks failed" if failed else "a deploy should work"


def log_line(line: LogLine) -> str:
    """When, and what; of a line that is an object its members, without the date in them."""
    return f"{line.at:%Y-%m-%d %H:%M:%S}  {_readable(line.message)}"


def _readable(message: str) -> str:
    try:
        values = json.loads(message)
    except ValueError:
        return message.expandtabs(1)
    if not isinstance(values, dict):
        return message
    event = values.pop("event", "")
    members = (
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
        if name not in ("time", "_aws")
    )
    return " ".join(filter(None, (str(event), *members)))


def _bill(bill: Bill) -> Iterator[str]:
    if bill.per_hour is None:
        yield f"price       {_UNKNOWN}: {bill.note}"
        return
    so_far = "" if bill.so_far is None else f", {bill.so_far:,.2f} so far"
    yield f"price       {money(bill.per_hour)} {bill.currency} an hour{so_far}"
    yield f"            {bill.note}"


def _date(at: str) -> str:
    """20260101T120000Z, as people write it."""
    date = datetime.strptime(at, DEPLOYED_AT).replace(tzinfo=timezone.utc)
    return f"{date:%Y-%m-%d %H:%M} UTC"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows whose cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]

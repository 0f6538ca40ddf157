"""How stack events are shown: as a live table in a terminal, as lines elsewhere."""

from __future__ import annotations

import io
import itertools
import json
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from rich.console import Console

from fastai_deploy.cli import reports
from fastai_deploy.cli.progress import JsonReporter, PlainReporter, plain_line
from fastai_deploy.cli.terminal import TerminalReporter
from fastai_deploy.errors import UsageError
from fastai_deploy.progress import (
    Advanced,
    Event,
    Happened,
    LoadMeasured,
    Planned,
    StageFinished,
    StageStarted,
    Step,
)
from fastai_deploy.settings.sections import duration
from fastai_deploy.stage_reports import Cost, LogLine, PlannedChange, StagePlan, change_rows
from tests.terminal import on_screen


def change(name: str, kind: str, action: str = "add", *properties: str) -> PlannedChange:
    chosen = {"add": "add", "replace": "replace"}[action]
    return PlannedChange("demo-dev-api", chosen, kind, name, properties, action == "replace")  # type: ignore[arg-type]


def happened(name: str, kind: str, status: str, reason: str = "") -> Happened:
    of_stack = name == "demo-dev-api"
    return Happened(
        stack="demo-dev-api",
        type=kind,
        name=name,
        status=status,
        reason=reason,
        failed=status.endswith("_FAILED"),
        ended=of_stack and not status.endswith("_IN_PROGRESS"),
    )


ANSWERS = [change(f"Answer{number}", "ApiGateway::GatewayResponse") for number in range(5)]
PLAN = Planned(
    "demo-dev-api",
    (*ANSWERS, change("Function", "Lambda::Function"), change("Api", "X::Api", "replace", "Name")),
)


def painted(*events: Event) -> str:
    """What is on the terminal in the end, without what was painted over."""
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None)
    seconds = itertools.count()
    reporter = TerminalReporter(stream, console, clock=lambda: float(next(seconds)))
    for event in events:
        reporter(event)
    reporter.stop()
    return on_screen(stream.getvalue())


def test_parts_of_one_type_share_a_row() -> None:
    rows = change_rows(PLAN.changes)
    assert [(row.action, row.type, row.what) for row in rows] == [
        ("add", "ApiGateway::GatewayResponse", "5: Answer0, Answer1, ..."),
        ("add", "Lambda::Function", "Function"),
        ("replace", "X::Api", "Api (Name)"),
    ]


def test_the_table_shows_the_plan_and_what_became_of_it() -> None:
    made = [happened(each.name, each.type, "CREATE_COMPLETE") for each in ANSWERS]
    half = painted(PLAN, *made[:2], happened("Function", "Lambda::Function", "CREATE_IN_PROGRESS"))
    lines = [line.split() for line in half.splitlines() if line.strip()]
    assert "2 of 5 in progress" in " ".join(lines[0])
    assert lines[1][:3] == ["add", "Lambda::Function", "Function"]
    assert "create in progress" in half
    assert "waits" in half
    whole = painted(PLAN, *made)
    assert "create complete" in whole


def test_the_first_reason_is_shown_whole() -> None:
    reason = "The account-level service limit is 0 Instances. " * 4
    ended = painted(
        PLAN,
        happened("Function", "Lambda::Function", "CREATE_FAILED", reason.strip()),
        happened("Api", "X::Api", "CREATE_FAILED", "Resource creation cancelled"),
        happened("demo-dev-api", "CloudFormation::Stack", "ROLLBACK_COMPLETE"),
    )
    assert " ".join(ended.split()).count("The account-level service limit is 0 Instances.") == 4
    assert "rollback complete" in ended


def test_a_long_step_shows_how_long_it_takes_and_nothing_of_it_stays() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=60, force_terminal=True, color_system=None)
    seconds = itertools.count()
    reporter = TerminalReporter(stream, console, clock=lambda: float(next(seconds)))
    reporter(StageStarted("export"))
    reporter(Step("rebuilding the model"))
    with reporter.paused():
        during = on_screen(stream.getvalue())
    for done in (10, 20):
        reporter(Advanced("invoke", done, 40, "texts"))
    with reporter.paused():  # paints once more before it stops
        pass
    reporter(StageFinished("export", "3 labels", 4.0))
    reporter.stop()
    assert during.splitlines()[:2] == ["export", "  rebuilding the model"]
    assert re.search(r"[0-9]+ s", stream.getvalue())
    assert "of 40 texts" in stream.getvalue()
    assert on_screen(stream.getvalue()).rstrip("\n").split("\n") == [
        *("export", "  rebuilding the model", "  ✓ 3 labels  4.0 s")
    ]


def test_a_load_test_is_a_chart_and_in_ci_a_line_for_each_level() -> None:
    begun = LoadMeasured("1 client", 0.5, 50.0, 8.0, 9.0, 9.5, 0, done=False)
    first = LoadMeasured("1 client", 4.0, 100.0, 8.0, 9.0, 9.5, 0, done=True)
    second = LoadMeasured("8 clients", 4.0, 200.0, None, None, None, 1_000, done=True)
    shown = painted(StageStarted("bench"), begun, first, second).splitlines()
    bars = [line.count("━") for line in shown if "client" in line]
    assert bars == [12, 24]
    assert "100/s" in shown[1]
    assert "p50 8.0 ms  p95 9.0 ms  p99 9.5 ms" in shown[1]
    assert "1,000 errors" in shown[2]
    for kind in (PlainReporter, JsonReporter):
        stream = io.StringIO()
        for event in (begun, first, second):
            kind(stream)(event)
        assert len(stream.getvalue().splitlines()) == 2
    assert plain_line(first) == (
        "  1 client: 100.0 answers a second, p50 8.0 ms, p95 9.0 ms, p99 9.5 ms"
    )
    assert "200.0 answers a second, none, 1,000 errors" in (plain_line(second) or "")


def test_lines_in_ci() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream)
    reporter(PLAN)
    reporter(happened("Function", "Lambda::Function", "CREATE_FAILED", "no capacity"))
    assert stream.getvalue().splitlines() == [
        "  demo-dev-api:",
        "    add      ApiGateway::GatewayResponse 5: Answer0, Answer1, ...",
        "    add      Lambda::Function Function",
        "    replace  X::Api Api (Name) (service interruption)",
        "  CREATE_FAILED               Lambda::Function Function: no capacity",
    ]


def test_programs_get_every_change() -> None:
    stream = io.StringIO()
    JsonReporter(stream)(PLAN)
    told = json.loads(stream.getvalue())
    assert told["event"] == "planned"
    assert len(told["changes"]) == 7


def test_a_plan_is_a_table_and_a_price() -> None:
    cost = Cost(Decimal("0.1380000000"), Decimal("0.276"), "USD", "instances only")
    lines = list(reports.plan(StagePlan(PLAN.changes, cost)))
    assert lines[0] == "demo-dev-api"
    assert lines[3].endswith("Api (Name)  (service interruption)")
    assert lines[4:] == [
        "interrupts  Api",
        "price       0.138 to 0.276 USD per hour, 100.74 to 201.48 per month",
        "            instances only",
    ]
    unknown = Cost(None, None, "USD", "AWS lists no price for this instance")
    assert list(reports.plan(StagePlan((), unknown))) == [
        "no changes: there is nothing to deploy",
        "price       unknown: AWS lists no price for this instance",
    ]


def test_a_log_line_is_readable() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    event = LogLine(at, "s", '{"time": 1, "event": "ready", "port": 80, "name": "a"}')
    assert reports.log_line(event) == "2026-01-02 03:04:05  ready port=80 name=a"
    assert reports.log_line(LogLine(at, "s", "REPORT\tx")).endswith("REPORT x")
    assert reports.log_line(LogLine(at, "s", "[1]")).endswith("[1]")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7_200), ("1d", 86_400)]
)
def test_spans_of_time(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1 h", "1w", "123456s"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        duration(text)

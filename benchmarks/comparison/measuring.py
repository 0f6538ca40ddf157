"""Measure every competitor in turn, in rounds, until the time is up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.comparison import matrix
from benchmarks.comparison.competitors.base import Competitor
from benchmarks.comparison.models import LOADS, Model
from benchmarks.comparison.running import Failed, Server, serving

_LEAST = 16  # answers per cell: each text once
_MOST = 5.0  # seconds per cell, for slow servers
_PATIENCE = 8.0  # seconds that the requests in flight may take; a slower cell is skipped
_OPEN_SETTLE = 0.5
_OVERLOAD_SETTLE = 1.5  # the queue must fill first


@dataclass(frozen=True)
class Plan:
    """``seconds`` per cell; at most ``rounds`` rounds, until ``deadline`` (monotonic clock)."""

    seconds: float
    rounds: int
    deadline: float
    quick: bool


@dataclass
class Results:
    """The measurements, as in the JSON file."""

    visits: list[dict[str, Any]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def measure(
    competitors: Sequence[Competitor],
    models: Sequence[Model],
    pythons: Mapping[str, Path],
    plan: Plan,
) -> Results:
    """Run the rounds; ``skipped`` lists what did not fit into the time."""
    results = Results()
    took: dict[tuple[str, str], float] = {}
    for number in range(1, plan.rounds + 1):
        for model in models:
            names = [
                each.key
                for each in competitors
                if plan.quick or matrix.takes_part(each.key, model.shape)
            ]
            for name in ("limits", *names):
                place = (model.shape, name)
                began = time.monotonic()
                if began + took.get(place, 0.0) > plan.deadline:
                    results.skipped.append(f"round {number}: {model.shape}, {name}")
                    continue
                if name == "limits":
                    results.limits.append({"round": number, **limits(model, plan, number)})
                else:
                    competitor = next(each for each in competitors if each.key == name)
                    results.visits.append(
                        {"round": number, **visit(competitor, model, pythons[name], plan)}
                    )
                took[place] = time.monotonic() - began
    return results


def limits(model: Model, plan: Plan, number: int) -> dict[str, Any]:
    """The rates of the bare sessions, int8 and float32."""
    found: dict[str, Any] = {"shape": model.shape}
    # float32 is slow and matters less, so it is measured once.
    for precision in ("int8",) if plan.quick or number > 1 else ("int8", "float32"):
        command = [sys.executable, "-m", "benchmarks.comparison.limits"]
        command += [str(model.artifact(precision, "local")), str(model.folder / LOADS)]
        command += ["--seconds", str(plan.seconds / 4)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found[precision] = json.loads(done.stdout)
        rates = {kind: each["best"] for kind, each in found[precision].items() if "best" in each}
        _say(f"{model.shape} bare {precision}", rates)
    return found


def visit(competitor: Competitor, model: Model, python: Path, plan: Plan) -> dict[str, Any]:
    """Start a server, check it, measure its cells, stop it."""
    found: dict[str, Any] = {
        "shape": model.shape,
        "competitor": competitor.key,
        "load_before": os.getloadavg()[0],
        "cells": {},
    }
    try:
        with serving(competitor, model, python) as server:
            found["start_s"] = server.seconds
            found["deviation"] = server.check(model)
            for cell in matrix.cells(model.shape, quick=plan.quick):
                found["cells"][cell.name] = _cell(server, model, cell, found["cells"], plan)
                if cell.share != matrix.OVERLOAD:
                    found["memory"] = vars(server.memory())
    except Failed as error:
        found["failed"] = str(error)
        print(f"{model.shape} {competitor.name}: FAILED {error}", flush=True)
    rates = {name: cell["rate"] for name, cell in found["cells"].items() if cell}
    _say(f"{model.shape} {competitor.name} ({found.get('start_s', 0):.1f} s)", rates)
    return found


def _cell(
    server: Server, model: Model, cell: matrix.Cell, before: Mapping[str, Any], plan: Plan
) -> dict[str, Any] | None:
    """Measure one load; None if the server is too slow for it."""
    requests = load.requests_of(model.texts[cell.texts], server.competitor.path)
    asked = [name for name in before if name.split("/")[0] == cell.texts and "open" not in name]
    known = [
        (found["rate"], name)
        for name, found in before.items()
        if found and found["rate"] and name.split("/")[0] == cell.texts and "open" not in name
    ]
    if cell.clients:
        if len(known) < len(asked) or (known and cell.clients / known[-1][0] > _PATIENCE):
            return None
        met = load.closed_loop(
            server.port, requests, cell.clients, plan.seconds, least=_LEAST, most=_MOST
        )
        return _told(met)
    if not known:
        return None
    peak = max(known)[0]
    overload = cell.share == matrix.OVERLOAD
    met = load.open_loop(
        server.port,
        requests,
        peak * cell.share,
        plan.seconds * 1.5,
        settle=_OVERLOAD_SETTLE if overload else _OPEN_SETTLE,
        wait=not overload,
    )
    return {
        **_told(met),
        "peak": peak,
        "share": cell.share,
        "retry_after": met.with_retry_after,
        "unanswered": met.unanswered,
    }


def _told(met: load.Load) -> dict[str, Any]:
    return {
        "rate": met.rate,
        "p50": met.percentile(50),
        "p95": met.percentile(95),
        "p99": met.percentile(99),
        "answers": len(met.latencies),
        "statuses": dict(met.statuses),
        "seconds": met.seconds,
        "client_cores": met.client,
    }


def _say(what: str, rates: Mapping[str, float]) -> None:
    message = "  ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    print(f"{time.strftime('%H:%M:%S')} {what}: {message}", flush=True)

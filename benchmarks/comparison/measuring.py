"""Measure every competitor in turn, in rounds, until the time is up."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.comparison import matrix
from benchmarks.comparison.answers import check, model_of
from benchmarks.comparison.competitors.base import Competitor, Failed
from benchmarks.comparison.models import Model
from benchmarks.comparison.running import Server, serving

_LEAST = 16  # answers per cell: each text once
_MOST = 4.0  # seconds per cell, for slow servers
_PATIENCE = 8.0  # seconds that the requests in flight may take; a slower cell is skipped
_OVERLOAD_SETTLE = 1.5  # the queue must fill first


Visit = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """``seconds`` per cell; at most ``rounds`` rounds, until ``deadline`` (monotonic clock)."""

    seconds: float
    rounds: int
    deadline: float


@dataclass(frozen=True)
class Kept:
    """The document of the run, and how to keep it after each visit.

    ``visits`` may hold some already, which are not repeated. ``skipped`` lists what did not fit
    into the time.
    """

    document: dict[str, Any]
    keep: Callable[[], None]

    def begin(self) -> set[tuple[int, str, str]]:
        """Forget the visits that failed; return which are there."""
        visits = [each for each in self.document["visits"] if "failed" not in each]
        self.document["visits"] = visits
        return {(each["round"], each["learner"], each["competitor"]) for each in visits}

    def add(self, found: Visit) -> None:
        """Keep one more visit."""
        self.document["visits"].append(found)
        self.keep()

    def skip(self, number: int, learner: str, competitor: str) -> None:
        """Note a visit that there was no time for."""
        self.document["skipped"].append(f"round {number}: {learner}, {competitor}")


def measure(
    competitors: Sequence[Competitor],
    models: Sequence[Model],
    pythons: Mapping[str, Path],
    plan: Plan,
    kept: Kept,
) -> None:
    """Run the rounds."""
    took: dict[tuple[str, str], float] = {}
    there = kept.begin()
    for number in range(1, plan.rounds + 1):
        for model, each in itertools.product(models, competitors):
            place = number, model.name, each.key
            if place in there or not matrix.takes_part(each.key, model.name, number):
                continue
            if each.form and not model.has(each.form):
                continue
            began = time.monotonic()
            if began + took.get(place[1:], 0.0) > plan.deadline:
                kept.skip(*place)
                continue
            kept.add(visit(each, model, pythons[each.key], plan, number))
            took[place[1:]] = time.monotonic() - began


def visit(competitor: Competitor, model: Model, python: Path, plan: Plan, number: int) -> Visit:
    """Start a server, check its answers in the first round, measure its cells, stop it."""
    found: Visit = {
        "round": number,
        "learner": model.name,
        "competitor": competitor.key,
        "load_before": os.getloadavg()[0],
        "cells": {},
    }
    try:
        with serving(competitor, model, python) as server:
            found["start_s"] = server.seconds
            if number == 1:
                found["model"] = model_of(server.port, competitor, model.goldens[0])
                found["answers"] = asdict(check(server.port, competitor, model.heldout))
            for cell in matrix.cells(model.name, number):
                found["cells"][cell.name] = _cell(server, model, cell, found["cells"], plan)
                if not cell.share:
                    found["memory"] = vars(server.memory())
    except Failed as error:
        found["failed"] = str(error)
        print(f"{model.name} {competitor.name}: FAILED {error}", flush=True)
    _say(f"{model.name} {competitor.name} ({found.get('start_s', 0):.1f} s)", found)
    return found


def _cell(
    server: Server, model: Model, cell: matrix.Cell, before: Mapping[str, Any], plan: Plan
) -> dict[str, Any] | None:
    """Measure one load; None if the server is too slow for it."""
    competitor = server.competitor
    requests = load.requests_of(model.texts[cell.texts], competitor.path, competitor.body)
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
    met = load.open_loop(
        server.port,
        requests,
        peak * cell.share,
        plan.seconds * 1.5,
        settle=_OVERLOAD_SETTLE,
        wait=False,
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


def _say(what: str, found: Visit) -> None:
    rates = [f"{name} {cell['rate']:.1f}" for name, cell in found["cells"].items() if cell]
    if "answers" in found:
        answers = found["answers"]
        rates.append(f"changed {answers['changed']}, worst {answers['worst']:.4f}")
    print(f"{time.strftime('%H:%M:%S')} {what}: {'  '.join(rates)}", flush=True)

"""The page of a load test: throughput and latency by clients, and how latencies are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from fastai_deploy.load.measure import Level, knee
from fastai_deploy.load.result import Bench, advice_lines, errors_of
from fastai_deploy.parity.page import cell, document

_STYLE = """
.p50{stroke:#3b6ea5}.p95{stroke:#c9822b}.p99{stroke:#c0392b}polyline{fill:none;stroke-width:2}
circle{fill:#3b6ea5}circle.knee{fill:#c0392b}.axis{stroke:#999;stroke-width:1}
td.n,th.n{text-align:right}td:first-child{white-space:nowrap}h3{margin-bottom:.2rem}
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 900, 220, 70, 34


def page(found: Bench) -> str:
    """The report as one HTML file; every text in it is escaped."""
    closed = sorted(
        (each for each in found.levels if each.kind == "closed"), key=lambda each: each.clients
    )
    return document(
        f"Load test of {found.where}",
        (
            f"<p>{escape(_about(found))}",
            *(f"<p>{escape(line)}" for line in advice_lines(found)),
            _levels(found.levels),
            *(_by_clients(closed) if closed else ()),
            "<h2>Latency distribution</h2>",
            *(_distribution(level) for level in found.levels if level.distribution),
        ),
        _STYLE,
    )


def _about(found: Bench) -> str:
    ended = f" It {found.ended}." if found.ended else ""
    stopped = " It was interrupted." if found.interrupted else ""
    version = f", version {found.version}" if found.version else ""
    return (
        f"{found.at}, stage {found.stage}{version}. {found.texts} texts from {found.source}, one "
        f"per request.{ended}{stopped}"
    )


def _levels(levels: Sequence[Level]) -> str:
    names = ("answers/s", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms", "requests", "warm-up")
    head = "".join(f"<th class=n>{name}" for name in names)
    body = "".join(
        f"<tr><td>{escape(level.name)}<td class=n>{level.throughput:,.1f}"
        + "".join(
            f"<td class=n>{cell(each, ',.1f')}"
            for each in (level.p50_ms, level.p90_ms, level.p95_ms, level.p99_ms, level.max_ms)
        )
        + f"<td class=n>{level.requests:,}<td class=n>{level.warm_up:,}"
        f"<td>{escape(errors_of(level))}"
        f"<td class=n>{'—' if level.cpu is None else f'{level.cpu:.0%}'}"
        for level in levels
    )
    return (
        f"<table><tr><th>load{head}<th>errors<th class=n>load generator{body}</table><p>Requests "
        "of the warm-up are left out. The last column is the share of one core that the load "
        "generator took. In an open loop, latency counts from when a request was due."
    )


def _by_clients(levels: Sequence[Level]) -> Iterator[str]:
    yield "<h2>Throughput by clients</h2>"
    best = max(level.throughput for level in levels) or 1.0
    chosen = knee(levels)
    points = [(_x(at, len(levels)), _y(level.throughput, best)) for at, level in enumerate(levels)]
    marks = "".join(
        f'<circle r=5{" class=knee" if level is chosen else ""} cx="{x:.1f}" cy="{y:.1f}">'
        f"<title>{escape(level.name)}: {level.throughput:,.1f} answers/s</title></circle>"
        for level, (x, y) in zip(levels, points, strict=True)
    )
    yield _svg(
        "answers per second by number of clients",
        _axes(levels, best, "/s") + _line("p50", points) + marks,
    )
    yield "<p>The knee is red: the fewest clients with 90 % of the highest throughput."
    tails = [each for level in levels for each in (level.p50_ms, level.p99_ms) if each is not None]
    if tails:
        top = max(tails)
        yield "<h2>Latency by clients</h2>"
        yield _svg(
            "latency by number of clients",
            _axes(levels, top, " ms")
            + "".join(
                _line(
                    name,
                    [
                        (_x(at, len(levels)), _y(value, top))
                        for at, level in enumerate(levels)
                        if (value := getattr(level, f"{name}_ms")) is not None
                    ],
                )
                for name in ("p50", "p95", "p99")
            ),
        )
        yield "<p>Blue is the median, orange the 95th and red the 99th percentile."


def _distribution(level: Level) -> str:
    """One bar for each bucket, whose height is its number of requests."""
    buckets = level.distribution
    most = max(bucket.requests for bucket in buckets)
    step = (_WIDTH - _LEFT) / len(buckets)
    bars = "".join(
        f'<rect class=bar x="{_LEFT + at * step:.1f}" y="{_y(bucket.requests, most):.1f}" '
        f'width="{step * 0.85:.1f}" height="{_HEIGHT - _y(bucket.requests, most):.1f}">'
        f"<title>up to {bucket.to_ms:,.2f} ms: {bucket.requests:,}</title></rect>"
        for at, bucket in enumerate(buckets)
    )
    shown = max(1, math.ceil(len(buckets) / 6))
    labels = "".join(
        f'<text text-anchor=end x="{_LEFT + (at + 1) * step:.1f}" y="{_HEIGHT + 16}">'
        f"{_short(bucket.to_ms)} ms</text>"
        for at, bucket in enumerate(buckets)
        if at % shown == shown - 1 or at == len(buckets) - 1
    )
    scale = (
        f'<text x=0 y="{_y(most, most) + 8:.0f}">{most:,}</text><text x=0 y="{_HEIGHT}">0</text>'
    )
    return f"<h3>{escape(level.name)}</h3>" + _svg(
        f"latencies with {escape(level.name)}", bars + labels + scale
    )


def _axes(levels: Sequence[Level], top: float, unit: str) -> str:
    names = "".join(
        f'<text text-anchor=middle x="{_x(at, len(levels)):.1f}" y="{_HEIGHT + 18}">'
        f"{level.clients}</text>"
        for at, level in enumerate(levels)
    )
    scale = "".join(
        f'<text x=0 y="{_y(top * share, top) + 4:.0f}">{_short(top * share)}{unit}</text>'
        f'<line class=axis x1={_LEFT} x2={_WIDTH} y1="{_y(top * share, top):.1f}" '
        f'y2="{_y(top * share, top):.1f}" opacity="{1 if share == 0 else 0.3}"/>'
        for share in (0.0, 0.5, 1.0)
    )
    return scale + names


def _line(kind: str, points: Sequence[tuple[float, float]]) -> str:
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class={kind} points="{drawn}"/>'


def _svg(label: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _BOTTOM}" role=img aria-label="{label}">'
        f"{content}</svg>"
    )


def _x(at: int, of: int) -> float:
    return _LEFT + (_WIDTH - _LEFT) * (at + 0.5) / of


def _y(value: float, top: float) -> float:
    """The height of a value in pixels from above; there is a margin over the highest."""
    return _HEIGHT - (_HEIGHT - 12) * (value / top if top > 0 else 0.0)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:,.2g}"  # noqa: PLR2004 - digits

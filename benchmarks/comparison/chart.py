"""A bar chart of requests per second, in SVG."""

from __future__ import annotations

from html import escape

from benchmarks.comparison.competitors import COMPETITORS
from benchmarks.comparison.figures import TITLES, Document, Figure, learners, of_cell, short

_CLIENTS = 8
_KINDS = (("12", "12 tokens"), ("92", "92 tokens"), ("mixture", "mixture of lengths"))
_LABELS, _BARS, _ROW, _GAP, _TOP = 230, 470, 20, 40, 34
_OURS, _OTHERS = "#2563eb", "#94a3b8"


def chart(document: Document) -> str:
    """One block of bars per kind of text, with 8 clients, for the first learner."""
    learner = learners(document)[0]
    parts: list[str] = []
    at = _TOP
    for kind, title in _KINDS:
        bars = _bars(document, learner, kind)
        if not bars:
            continue
        parts.append(f'<text x="8" y="{at - 10}" font-weight="bold">{escape(title)}</text>')
        longest = max(found.middle for _, found, _ in bars)
        for name, found, colour in bars:
            parts.append(_bar(at, name, found, colour, longest))
            at += _ROW
        at += _GAP
    width = _LABELS + _BARS + 90
    title = f"{TITLES[learner]}, {_CLIENTS} clients: requests per second"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {at}" width="{width}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(document: Document, learner: str, kind: str) -> list[tuple[str, Figure, str]]:
    bars = []
    for each in COMPETITORS:
        found = of_cell(document, learner, each.key, f"{kind}/{_CLIENTS}")
        if found:
            name = each.name.replace("`", "")
            bars.append((name, found, _OURS if "fdeploy" in each.key else _OTHERS))
    return bars


def _bar(at: int, name: str, found: Figure, colour: str, longest: float) -> str:
    scale = _BARS / longest
    width = found.middle * scale
    low, high = min(found.values) * scale, max(found.values) * scale
    middle = at + (_ROW - 4) / 2
    return (
        f'<text x="{_LABELS - 6}" y="{at + 12}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{_LABELS}" y="{at}" width="{width:.1f}" height="{_ROW - 4}" fill="{colour}"/>'
        f'<line x1="{_LABELS + low:.1f}" x2="{_LABELS + high:.1f}" y1="{middle}" y2="{middle}" '
        f'stroke="#0f172a"/>'
        f'<text x="{_LABELS + max(width, high) + 5:.1f}" y="{at + 12}">{short(found.middle)}</text>'
    )

"""The parity report as one HTML page, with nothing in it that a browser would load or run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #ddd;
text-align:left;vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
tr.changed{background:#fdecea}td.t{max-width:34rem;overflow-wrap:anywhere;white-space:pre-wrap}
svg{width:100%;height:auto}.bar{fill:#3b6ea5}.bad{fill:#c0392b}.line{stroke:#c0392b;
stroke-dasharray:4 3}text{font:11px system-ui,sans-serif;fill:#555}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}
tr.changed{background:#4a2320}text{fill:#aaa}}
"""
_WIDTH, _HEIGHT, _MARGIN = 900, 170, 60
_DECADES = (-9, 0)  # |Δ| from 1e-9 to 1, on a logarithmic scale
_BARS = 200  # texts in the chart; the table has all of them
_SHORT = 400  # characters of a text in the table


def page(summary: Mapping[str, Any]) -> str:
    """The page for the summary of a comparison; every text of a user's is escaped."""
    return "".join(
        (
            "<!doctype html><html lang=en><meta charset=utf-8><title>Parity report</title>",
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; ',
            "style-src 'unsafe-inline'\">",
            f"<style>{_STYLE}</style><h1>Parity report</h1>",
            *(f"<p>{escape(line)}" for line in headline(summary)),
            _chart(summary["rows"], summary["tolerance"]),
            _table(summary["rows"]),
            "</html>\n",
        )
    )


def headline(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the report comes to, in a few lines."""
    yield (
        f"{summary['texts']} texts, {summary['learner_answers']} with the learner's own answers; "
        f"{summary['changed']} answers changed; tolerance {summary['tolerance']:g}"
    )
    for form, difference in summary["max_difference"].items():
        if difference is not None:
            yield f"{form}: max |Δprobability| {difference:.1e} to the learner"
    for form, found in summary["accuracy"].items():
        yield f"{form}: accuracy {found['accuracy']:.3f} on {found['texts']} labelled texts"


def _chart(rows: Sequence[Mapping[str, Any]], tolerance: float) -> str:
    """One bar a text: its largest |Δprobability| on a logarithmic scale, and the tolerance."""
    shown = rows[:_BARS]
    step = (_WIDTH - _MARGIN) / max(1, len(shown))
    label = "largest difference of a probability, text by text"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 24}" role=img aria-label="{label}">']
    for decade in range(_DECADES[0], _DECADES[1] + 1, 3):
        y = _HEIGHT - _height(10.0**decade)
        parts.append(f'<text x=0 y="{y + 4:.0f}">1e{decade}</text>')
    for place, row in enumerate(shown):
        height = max(1.0, _height(row["difference"]))
        bad = row["changed"] or row["difference"] is None or row["difference"] > tolerance
        parts.append(
            f'<rect class="{"bad" if bad else "bar"}" x="{_MARGIN + place * step:.1f}" '
            f'y="{_HEIGHT - height:.1f}" width="{max(1.0, step * 0.8):.1f}" '
            f'height="{height:.1f}"/>'
        )
    y = _HEIGHT - _height(tolerance)
    parts.append(f'<line class=line x1={_MARGIN} x2={_WIDTH} y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(
        f"<text x={_MARGIN} y={_HEIGHT + 18}>max |Δprobability| of each text, largest first; "
        "the dashed line is the tolerance</text></svg>"
    )
    return "".join(parts)


def _height(difference: float | None) -> float:
    """Pixels of a bar."""
    if difference is None:
        return _HEIGHT
    low, high = _DECADES
    decade = math.log10(difference) if difference > 0 else low
    return _HEIGHT * (min(max(decade, low), high) - low) / (high - low)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    forms = list(dict.fromkeys(form for row in rows for form in row["answers"]))
    head = "".join(f"<th>{escape(form)}" for form in forms)
    body = "".join(_table_row(row, forms) for row in rows)
    return f"<table><tr><th>text<th>expected{head}<th>|Δ|{body}</table>"


def _table_row(row: Mapping[str, Any], forms: Sequence[str]) -> str:
    text = row["text"] if len(row["text"]) <= _SHORT else row["text"][: _SHORT - 1] + "…"
    cells = "".join(f"<td>{_answered(row['answers'].get(form))}" for form in forms)
    difference = "—" if row["difference"] is None else f"{row['difference']:.1e}"
    return (
        f"<tr{' class=changed' if row['changed'] else ''}><td class=t>{escape(text)}"
        f"<td>{escape(', '.join(row['expected'] or []))}{cells}<td class=n>{difference}"
    )


def _answered(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    probabilities = found["probabilities"]
    shown = (f"{label} {_number(probabilities[label])}" for label in found["labels"])
    return escape(", ".join(shown) or "(no label)")


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4f}"

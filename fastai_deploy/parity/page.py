"""What every report page shares: one file that loads no resources and runs no scripts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #ddd;
text-align:left;vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
tr.changed{background:#fdecea}td.t{max-width:34rem;overflow-wrap:anywhere;white-space:pre-wrap}
svg{width:100%;height:auto}.bar{fill:#3b6ea5}.bad{fill:#c0392b}.line{stroke:#c0392b;
stroke-dasharray:4 3}text{font:11px system-ui,sans-serif;fill:#555}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}
tr.changed{background:#4a2320}text{fill:#aaa}}
"""
SHORT = 400  # characters shown of a text in a table


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """A page of these parts, which are HTML; ``style`` is added to the style of all pages."""
    return "".join(
        (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>",
            '<meta name=viewport content="width=device-width,initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; ',
            "style-src 'unsafe-inline'\">",
            f"<style>{STYLE}{style}</style><main><h1>{escape(title)}</h1>",
            *parts,
            "</main></html>\n",
        )
    )


def cell(value: float | None, layout: str) -> str:
    """A number in a table, or a dash."""
    return "—" if value is None else format(value, layout)


def shortened(text: str) -> str:
    """A text as HTML, cut if it is long."""
    return escape(text if len(text) <= SHORT else text[: SHORT - 1] + "…")

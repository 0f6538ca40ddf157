"""The demo page of an API: one file that sends requests only to the API that serves it.

The template's script and style are the same for every API and contain no values: whatever differs
is written, escaped, into the page's text and attributes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from fastai_deploy import files
from fastai_deploy.api_docs.openapi import ApiDescription

_TEMPLATE = Path(__file__).with_name("page.html")
_MOST_LABELS = 6
_METADATA = re.compile(r"\A---\n.*?\n---(?:\n|\Z)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CARD = """
  <details class="card" id="card">
    <summary><h2>Model card</h2></summary>
    <pre class="prose" tabindex="0" role="region" aria-label="Model card">{}</pre>
  </details>
"""
_WARNING = (
    "Unproven: this model was converted without proof that it gives the same answers as the "
    "original learner."
)


def page(described_api: ApiDescription, examples: Sequence[str], card: str = "") -> bytes:
    """Render an API's page; ``examples`` are texts to try. Raises FileError.

    ``card`` is the model card, in Markdown; it is shown as text, without its metadata.
    """
    with files.file_errors(_TEMPLATE):
        template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    shown = "\n".join(
        f'      <li><button type="button">{html.escape(text)}</button></li>' for text in examples
    )
    return template.substitute(
        title=html.escape(described_api.title),
        lead=html.escape(_lead(described_api)),
        warning=f'<p class="note">{html.escape(_WARNING)}</p>' if described_api.unproven else "",
        route=html.escape(described_api.route),
        auth=described_api.auth,
        limit=described_api.max_body,
        examples=shown,
        card=_CARD.format(html.escape(_body(card))) if _body(card) else "",
    ).encode("utf-8")


def _body(card: str) -> str:
    """A card without its metadata (YAML between lines of dashes, at its head) and comments."""
    return _COMMENT.sub("", _METADATA.sub("", card.strip(), count=1)).strip()


def _lead(described_api: ApiDescription) -> str:
    """Name the labels in a sentence."""
    if not described_api.labels:
        return "Type a text and see how the model labels it."
    names = ", ".join(described_api.labels[:_MOST_LABELS])
    more = len(described_api.labels) - _MOST_LABELS
    rest = f" and {more} more" if more > 0 else ""
    return f"{'Finds' if described_api.several else 'Tells apart'}: {names}{rest}."

"""What is published of the comparison is what its run measured."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.comparison.chart import chart
from benchmarks.comparison.headline import replaced
from benchmarks.comparison.report import report

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((ROOT / "docs/comparison.json").read_bytes())


def test_the_page_and_the_chart() -> None:
    page = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    assert report(DOCUMENT, "comparison.svg", None) == page
    assert chart(DOCUMENT) == (ROOT / "docs/comparison.svg").read_text(encoding="utf-8")


def test_the_paragraph_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replaced(readme, DOCUMENT) == readme

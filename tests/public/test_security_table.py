"""Every row of the security table names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "`test_" in line]


def defined() -> set[str]:
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "tests/page").glob("check_*.py")]
    return {
        node.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


TESTS = defined()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_a_row_is_tested(row: str) -> None:
    names = re.findall(r"`(test_\w+)`", row)
    assert names
    assert set(names) <= TESTS


def test_the_table_was_found() -> None:
    assert len(ROWS) > 20

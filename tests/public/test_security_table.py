"""Every row of the tables in docs/security.md names tests, or test files, that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if line.startswith("| ") and "test_" in line]
FAULTS = [line for line in LINES if ".py`" in line]
ROWS = [line for line in LINES if line not in FAULTS]


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


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_a_fault_is_tested(row: str) -> None:
    files = re.findall(r"`([\w/]+\.py)`", row)
    assert files
    assert [
        name for name in files if not any((ROOT / base / name).is_file() for base in ("tests", "."))
    ] == []


def test_the_tables_were_found() -> None:
    assert len(ROWS) > 20
    assert len(FAULTS) > 15

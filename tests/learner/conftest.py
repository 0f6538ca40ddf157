from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LEARNERS = Path(__file__).parent.parent / "learners"


@pytest.fixture
def deep_recursion() -> Iterator[None]:
    """Room for the test's own assembler, which recurses; the reader does not."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)

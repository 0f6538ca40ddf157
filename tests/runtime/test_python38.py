"""The runtime works with Python 3.8, which the oldest supported container has."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastai_deploy.runtime

SOURCES = sorted(Path(fastai_deploy.runtime.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_syntax_is_that_of_python_38(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_newer_syntax_would_be_seen() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match 1:\n    case 1: pass", feature_version=(3, 8))

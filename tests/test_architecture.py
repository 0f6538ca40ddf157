"""docs/architecture.md shows the layers that import-linter checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomli

import fastai_deploy

PACKAGE = Path(fastai_deploy.__file__).parent
ROOT = PACKAGE.parent
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def contracts() -> list[dict[str, Any]]:
    document = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = document["tool"]["importlinter"]["contracts"]
    return found


def rows(heading: str) -> list[list[str]]:
    table = PAGE.split(heading, 1)[1].split("|---|---|\n", 1)[1].split("\n\n", 1)[0]
    return [re.findall(r"`([\w/]+)`", line.split("|")[1]) for line in table.splitlines()]


def test_the_table_of_layers_is_the_contract() -> None:
    (layers,) = [each["layers"] for each in contracts() if each["id"] == "layers"]
    in_contract = [sorted(re.split(r"\s*[|:]\s*", layer)) for layer in layers]
    assert [sorted(name.strip("/") for name in row) for row in rows("## The layers")] == in_contract


def test_the_packages_of_learner_are_described() -> None:
    packages = {path.parent.name for path in (PACKAGE / "learner").glob("*/__init__.py")}
    assert {name.strip("/") for row in rows("Inside `learner/`") for name in row} == packages


def test_the_files_to_change_exist() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Where do I change")[1]
    files = re.findall(r"`([\w./]+(?:\.\w+|/))`", table)
    assert len(files) > 30
    homes = (PACKAGE, ROOT, PACKAGE / "learner/user_code")
    assert [name for name in files if not any((home / name).exists() for home in homes)] == []

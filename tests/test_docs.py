"""The documentation is checked like code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastai_deploy import errors
from fastai_deploy.settings.docs import markdown

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def every_error(base: type[errors.FdeployError]) -> Iterator[type[errors.FdeployError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from every_error(kind)


ERRORS = sorted(set(every_error(errors.FdeployError)), key=lambda kind: kind.__name__)
BASES = {kind for kind in ERRORS if kind.__subclasses__()}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_documented(kind: type[errors.FdeployError]) -> None:
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    assert f"| `{kind.code}` | {kind.exit_code} |" in page
    assert kind.__name__ in (errors.__doc__ or "")


@functools.cache
def called() -> set[str]:
    """The names that the package calls anywhere; parsing all of it takes a second."""
    return {
        node.func.id
        for path in Path(errors.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_raised_somewhere(kind: type[errors.FdeployError]) -> None:
    assert kind.__name__ in called() or kind in BASES


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in ERRORS]
    assert len(codes) == len(set(codes))


def test_the_reference_of_the_settings_is_current() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == markdown(), "make schema"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the docs site write them."""
    text = page.read_text(encoding="utf-8")
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", outside, re.MULTILINE):
        said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", said.strip().lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
        if "://" not in target:
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor and file.suffix == ".md":
                assert anchor[1:] in anchors(file), f"{page.name}: {target}{anchor}"

"""The templates match the golden files; ``python -m …golden`` rewrites those on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.aws_templates.golden import GOLDEN, is_kept, kept, name, rendered
from tests.aws_templates.scenarios import (
    BOUNDARY,
    BUCKET,
    CERTIFICATE,
    EXECUTION_ROLE,
    KMS_KEY,
    LAMBDA_ROLE,
    TOPIC,
    Golden,
    goldens,
)

DOCUMENTS = list(goldens())
NAMED = (
    *(BOUNDARY, BUCKET, CERTIFICATE, EXECUTION_ROLE, KMS_KEY, LAMBDA_ROLE, TOPIC, ".dkr.ecr."),
    ":repository/fdeploy/",  # of the image that the user's own account has
)


@pytest.mark.parametrize("golden", [*filter(is_kept, DOCUMENTS)], ids=lambda golden: golden.name)
def test_a_document_is_its_golden_file(golden: Golden) -> None:
    path = GOLDEN / name(golden)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    now = rendered(golden)
    difference = "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True), now.splitlines(keepends=True), path.name, "now"
        )
    )
    assert not difference, f"{difference}\nif this is meant: python -m tests.aws_templates.golden"


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(kept())


def test_the_same_settings_give_the_same_bytes_and_order() -> None:
    assert [rendered(golden) for golden in goldens()] == [rendered(one) for one in DOCUMENTS]
    assert [golden.template for golden in goldens()] == [one.template for one in DOCUMENTS]


@pytest.mark.parametrize("golden", DOCUMENTS, ids=lambda golden: golden.name)
def test_nothing_of_this_machine_or_day_is_in_a_document(golden: Golden) -> None:
    text = rendered(golden) + (golden.template.with_defaults() if golden.template else "")
    for word in ("/home/", "/root/", "/work/", "/tmp/", "localhost"):  # noqa: S108 - looked for
        assert word not in text


@pytest.mark.parametrize(
    "golden", [one for one in DOCUMENTS if "Resources" in one.document], ids=lambda one: one.name
)
def test_accounts_and_regions_are_pseudo_parameters(golden: Golden) -> None:
    """So that a template works anywhere; only names that the user gave are literal."""
    for text in texts(golden.document["Resources"]):
        if "123456789012" in text or "eu-central-1" in text:
            assert any(own in text for own in NAMED), text


def texts(value: Any) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value

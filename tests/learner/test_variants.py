"""Variants of standard learners: harmless ones convert as before, others only with proof.

This is the quick part of ``make test-variants``, which covers hundreds. The variants and their
answers come from the real fastai (``learners/generators/fastai2_variants.py``).
"""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.learner.files import LEARNERS
from tests.learner.variants import Judged, Tally, Variant, judge, read_variants

HARMLESS = (
    "to_float", "dropout_module", "printed", "mask_method", "pick_key", "sequential_dropout",
    "return_tensors", "callback_counts",
)  # fmt: skip
CHANGING = (
    "divide", "permute_list", "scale_in_place", "helper_function", "inverted_mask",
    "type_ids_ones", "twice_added", "without_pooler", "sequential_softmax", "outer_scale",
    "prefix_formatted", "second_text", "head_tail", "loss_four_times", "callback_permuted",
    "batch_transform", "dropout_shadowed", "alias_changed", "split_changed",
)  # fmt: skip


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    """The stored variants, by inserted operation."""
    folder = tmp_path_factory.mktemp("variants")
    with tarfile.open(LEARNERS / "variants.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return {each.operation: each for each in read_variants(folder)}


@pytest.mark.parametrize("operation", HARMLESS)
def test_a_harmless_operation_is_converted_without_goldens(
    variants: dict[str, Variant], operation: str
) -> None:
    found = judge(variants[operation])
    assert (found.outcome, found.reason) == ("same answers", "")


@pytest.mark.parametrize("operation", CHANGING)
def test_an_operation_that_changes_answers_is_not_converted_unseen(
    variants: dict[str, Variant], operation: str
) -> None:
    found = judge(variants[operation])
    assert found.outcome in ("wants goldens", "refused")
    assert found.gate == "refused"


def test_every_variant_that_is_kept_is_tried(variants: dict[str, Variant]) -> None:
    assert sorted(variants) == sorted((*HARMLESS, *CHANGING))


def test_the_table_names_every_exception(variants: dict[str, Variant]) -> None:
    harmless, changing = variants["printed"], variants["divide"]
    good = Tally((Judged(harmless, "same answers", 1e-7),
                  Judged(changing, "wants goldens", gate="refused")), 40, ())  # fmt: skip
    assert good.passed
    wrong = replace(good, variants=(Judged(changing, "other answers", 0.3, gate="refused"),))
    assert not wrong.passed
    assert f"  {changing.name} (scores, off by 3.0e-01)" in wrong.lines()
    let_through = replace(good, variants=(Judged(changing, "refused", gate="other answers"),))
    assert not let_through.passed
    missed = replace(good, variants=(Judged(harmless, "wants goldens", None, "print is unknown"),))
    assert not missed.passed
    assert f"  {harmless.name} (scores): print is unknown" in missed.lines()
    assert not replace(good, problems=("bert: its wrapper is unknown",)).passed


def test_a_variant_that_could_not_be_made_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "variants.jsonl").write_text('{"name": "000_x", "failed": "TypeError"}\n')
    assert read_variants(tmp_path) == []

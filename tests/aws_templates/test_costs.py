"""Instances and serverless side by side, from made-up prices."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fastai_deploy.aws.costs import CostReport, Fits, Usage, compare
from fastai_deploy.aws.list_prices import PriceBook

GIB = 1 << 30
PRICES = PriceBook(
    "eu-west-1",
    "https://example.com",
    "2026-09-22",
    {"ml.t2.medium": Decimal("0.05"), "ml.c5.large": Decimal("0.1"), "ml.m5.large": Decimal("0.2")},
    {1: Decimal("0.00002"), 3: Decimal("0.00006")},
)
FITS = Fits(
    (
        ("ml.m5.large", 8 * GIB),
        ("ml.t2.medium", 4 * GIB),
        ("ml.c5.large", 4 * GIB),
        ("ml.c6i.large", 4 * GIB),
    ),
    3_072,
    "ml.m5.large",
)
MEASURED = Usage(10.0, 100.0, "as given")


def compared(usage: Usage = MEASURED, **more: object) -> CostReport:
    return compare(FITS, PRICES, usage, **more)  # type: ignore[arg-type]


def test_the_price_of_a_million() -> None:
    found = compared()
    by_place = {option.place: option for option in found.instances}
    assert list(by_place) == ["ml.t2.medium", "ml.c5.large", "ml.m5.large"]
    small = by_place["ml.c5.large"]
    assert (small.per_month, small.idle_per_month) == (Decimal("73.0"), Decimal("73.0"))
    # 36,000 texts an hour for 0.10 USD
    assert small.per_million == Decimal("2.78")
    assert by_place["ml.m5.large"].chosen
    assert found.serverless is not None
    assert found.serverless.per_million == Decimal("6.00")  # a million times 0.1 s of 3 GB
    assert found.serverless.idle_per_month == 0
    assert found.unpriced == 1


def test_the_cheapest_is_not_burstable() -> None:
    found = compared()
    assert found.cheapest == "ml.c5.large"
    # 73 USD a month for the instance, 6 USD a million for serverless
    assert found.break_even == 12_166_667
    assert "at least" not in " ".join(found.notes)


def test_where_an_instance_cannot_answer_so_much_is_said() -> None:
    found = compared(Usage(1.0, 100.0, "as given"))
    assert any("answers at most 2,628,000 requests a month" in note for note in found.notes)


def test_a_measurement_counts_only_for_its_own_type() -> None:
    found = compared(Usage(10.0, 100.0, "measured", "ml.m5.large"))
    million = {option.place: option.per_million for option in found.instances}
    assert million["ml.m5.large"] == Decimal("5.56")
    assert million["ml.c5.large"] is None
    assert any("were not measured" in note for note in found.notes)


def test_what_is_unknown_is_not_guessed() -> None:
    without = compare(FITS, PriceBook("mars-north-1"), Usage())
    assert without.cheapest is None
    assert without.break_even is None
    assert [option.place for option in without.instances] == ["ml.m5.large"]  # of the settings
    assert without.instances[0].per_hour is None
    shown = "\n".join(without.lines())
    assert "no list price of mars-north-1 is known" in shown
    assert "fdeploy cost --refresh --region mars-north-1" in shown
    assert "run fdeploy bench" in shown


def test_the_table() -> None:
    lines = list(compared().lines())
    assert lines[0] == "list prices of eu-west-1 in USD, published 2026-09-22: https://example.com"
    rows = {line.split()[-6 if "serverless" in line else -5]: line for line in lines[3:6]}
    assert any(line.startswith("* ml.m5.large") for line in rows.values())
    assert any("serverless, 3,072 MB" in line and "by use" in line for line in lines)
    assert any(line.startswith("cheapest    ml.c5.large") for line in lines)
    assert any("from 12,166,667 requests a month, 400,000 a day" in line for line in lines)


def test_too_large_a_model() -> None:
    found = compare(Fits(FITS.types[:1], None, "ml.t2.medium"), PRICES, MEASURED)
    assert found.serverless is None
    said = " ".join(found.notes)
    assert "ml.t2.medium of the settings is not listed: the model does not fit it" in said
    assert "more memory than a serverless endpoint can have" in said


@pytest.mark.parametrize(("every", "expected"), [(False, 8), (True, 12)])
def test_all_instances_are_listed_if_asked_for(every: bool, expected: int) -> None:  # noqa: FBT001
    kinds = [f"ml.c5.{size}xlarge" for size in range(1, 13)]
    prices = PriceBook("eu-west-1", "x", "2026-01-01", {kind: Decimal(1) for kind in kinds})
    fits = Fits([(kind, GIB) for kind in kinds], None, "")
    assert len(compare(fits, prices, Usage(), every=every).instances) == expected

"""The expected speed of a model in a function, from those that were measured."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from fastai_deploy.aws.costs import function_kept
from fastai_deploy.aws.function_speed import Measured, Speed, SpeedTable, speed_table
from fastai_deploy.aws.list_prices import FunctionPrices, PriceBook, shipped
from fastai_deploy.packaging.served_model import ServedModel

PRICES = shipped("us-east-1")
TABLE = speed_table()


def served(parameters: int, precision: str = "int8") -> ServedModel:
    return ServedModel(
        0, None, None, parameters, function_precision=precision, parameters=parameters
    )


def speed(parameters: int, memory: int, precision: str = "int8") -> Speed:
    found = TABLE.speed(served(parameters, precision), memory, PRICES)
    assert found is not None
    return found


def test_the_table_that_ships_says_when_and_where_it_was_measured() -> None:
    assert date.fromisoformat(TABLE.measured) <= date.today()  # noqa: DTZ011 - as it is written
    assert TABLE.machine
    assert set(TABLE.models) == {"int8", "fp32"}
    assert 1_769 in TABLE.sizes


# Two models, the second of four times the size; half a core takes twice the time.
MADE = SpeedTable(
    "2026-11-29",
    "a machine",
    {
        "int8": (
            Measured(20_000_000, {885: 20.0, 1_770: 10.0}, {885: 1.0, 1_770: 0.5}),
            Measured(80_000_000, {885: 80.0, 1_770: 40.0}, {885: 2.0, 1_770: 1.0}),
        )
    },
)


@pytest.mark.parametrize(
    ("parameters", "memory", "warm", "first"),
    [
        (20_000_000, 885, 20.0, 1.0),
        (50_000_000, 1_770, 25.0, 0.75),  # between two models
        (160_000_000, 1_770, 80.0, 2.0),  # larger than they are
        (1_000_000, 1_770, 10.0, 0.5),  # smaller
        (20_000_000, 1_180, 15.0, 0.75),  # two thirds of a core
        (20_000_000, 295, 60.0, 3.0),  # a sixth
        (20_000_000, 10_240, 10.0, 0.5),  # more than was measured
    ],
)
def test_times_are_estimated_from_the_nearest_measured_ones(
    parameters: int, memory: int, warm: float, first: float
) -> None:
    found = MADE.speed(served(parameters), memory, PRICES)
    assert found is not None
    assert found.warm_ms == pytest.approx(warm)
    assert found.first_s == pytest.approx(first)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_model_that_was_measured_takes_what_was_measured(precision: str) -> None:
    for model in TABLE.models[precision]:
        for memory, taken in model.warm_ms.items():
            assert speed(model.parameters, memory, precision).warm_ms == pytest.approx(taken)


def test_what_is_not_known_is_not_guessed() -> None:
    assert TABLE.speed(served(0), 1_769, PRICES) is None
    assert TABLE.speed(served(1_000, "bf16"), 1_769, PRICES) is None
    unpriced = TABLE.speed(served(22_713_986), 1_769, PriceBook("mars-north-1"))
    assert unpriced is not None
    assert unpriced.million is None
    assert TABLE.advised(served(22_713_986), 1_000, PriceBook("mars-north-1")) is None


def test_the_quickest_is_advised_that_costs_little_more_than_the_cheapest() -> None:
    """Half a core takes twice the time for the same price, two cores gain too little here."""
    times = {885: 20.0, 1_769: 10.0, 3_538: 8.0}
    model = Measured(1_000, times, times)
    table = SpeedTable("2026-11-29", "a machine", {"int8": (model,)})
    advised = table.advised(served(1_000), 500, PRICES)
    assert advised is not None
    assert advised.memory == 1_769
    larger = table.advised(served(1_000), 2_000, PRICES)
    assert larger is not None
    assert larger.memory == 3_538
    assert str(advised) == f"1,769 MB: 10 ms, {advised.million} USD per million"


def test_what_a_function_costs_unasked_is_told_or_unknown() -> None:
    known = PriceBook(
        "r",
        function=FunctionPrices(
            *("source", "2026-11-29", Decimal("0.00001667"), Decimal("0.2")),
            warm_gb_second=Decimal("0.000004"),
            snapshot_gb_second=Decimal("0.0000015"),
            restored_gb=Decimal("0.00014"),
        ),
    )
    assert list(function_kept(known, 2_048, warm=0, snapshot=False)) == []
    assert list(function_kept(known, 2_048, warm=3, snapshot=False)) == [
        "3 environments are kept warm, for 0.0864 USD an hour"
    ]
    (told,) = function_kept(known, 2_048, warm=0, snapshot=True)
    assert told == (
        "each version's snapshot costs 7.88 USD a month, and a million starts from it 280.00"
    )
    for book in (PriceBook("mars-north-1"), PRICES):
        warm, snapshot = function_kept(book, 2_048, warm=1, snapshot=True)
        assert f"fdeploy cost --refresh --region {book.region} asks AWS for the price" in warm
        assert "asks AWS for the price" in snapshot

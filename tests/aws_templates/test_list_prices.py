"""List prices that ship, and those that were asked for and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timezone
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import tomli

from fastai_deploy.aws.capacity import known_types
from fastai_deploy.aws.costs import Fits, Usage, compare, function_million
from fastai_deploy.aws.list_prices import FunctionPrices, PriceBook, price_book, refresh, shipped

NOW = datetime(2026, 11, 29, tzinfo=timezone.utc)
LISTED = tomli.loads(files("fastai_deploy.aws").joinpath("list_prices.toml").read_text("utf-8"))


@pytest.mark.parametrize("region", LISTED["regions"])
def test_every_price_that_ships_has_a_source_and_a_date(region: str) -> None:
    book = shipped(region)
    assert book.source.startswith("https://")
    assert LISTED["sources"][LISTED["regions"][region]["source"]]["quoted_in"].startswith("https")
    assert date.fromisoformat(book.published) <= NOW.date()
    assert set(book.hour) <= set(known_types())
    assert all(0 < price < 100 for price in book.hour.values())
    assert set(book.second_by_gb) == set(range(1, 7))


def test_larger_sizes_of_a_family_are_dearer() -> None:
    order = ("medium", "large", "xlarge", "2xlarge", "4xlarge")
    for region in LISTED["regions"]:
        families: dict[str, list[tuple[int, Decimal]]] = {}
        for kind, price in shipped(region).hour.items():
            _, family, size = kind.split(".")
            families.setdefault(family, []).append((order.index(size), price))
        for sizes in families.values():
            assert [price for _, price in sorted(sizes)] == sorted(price for _, price in sizes)


def test_another_region_is_unknown() -> None:
    book = shipped("mars-north-1")
    assert not book.known
    assert (book.source, book.published) == ("", "")


def product(price: str, unit: str = "Hrs", **attributes: str) -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
    terms = {"OnDemand": {"one": {"priceDimensions": {"one": dimension}}}}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms})


def tiered(usage: str, *prices: str) -> str:
    """A product as the price list has it: the prices of its tiers, and where each begins."""
    dimensions = {
        str(number): {"beginRange": f"{number * 6_000_000_000}", "pricePerUnit": {"USD": price}}
        for number, price in enumerate(prices)
    }
    terms = {"OnDemand": {"one": {"priceDimensions": dimensions}}}
    return json.dumps({"product": {"attributes": {"usagetype": usage}}, "terms": terms})


LAMBDA = (
    tiered("EU-Lambda-GB-Second", "0.0000170000", "0.0000150000"),
    tiered("EU-Lambda-GB-Second-ARM", "0.0000130000"),
    tiered("EU-Request", "0.0000002500"),
    tiered("EU-Lambda-Edge-Request", "0.0000006000"),
    tiered("EU-Lambda-Provisioned-Concurrency", "0.0000041667"),
    tiered("EU-Lambda-SnapStart-Cached-GB-S", "0.0000015046"),
)


def products(service: str, wanted: Mapping[str, str]) -> Iterable[Mapping[str, Any]]:
    if service == "AWSLambda":
        yield {"PriceList": list(LAMBDA)}
        return
    if wanted.get("component") == "Hosting":
        yield {"PriceList": [product("0.5000000000", instanceName="ml.m5.large")]}
        yield {
            "PriceList": [
                product("0.0000000000", instanceName="ml.free.large"),
                product("cheap", instanceName="ml.odd.large"),
                "not JSON",
                product("0.7", instanceName="ml.c5.large"),
            ]
        }
        return
    yield {
        "PriceList": [
            product("0.00004", "seconds", usagetype="EU-ServerlessInf:Mem-2GB"),
            product("9", "seconds", usagetype="EU-ServerlessInf:Mem-2GB-PC"),
        ]
    }


def test_prices_that_were_asked_for_replace_those_that_ship(tmp_path: Path) -> None:
    assert price_book("eu-west-1", tmp_path).hour["ml.m5.large"] == Decimal("0.128")
    found = refresh("eu-west-1", tmp_path / "new", products, NOW)
    assert found == PriceBook(
        "eu-west-1",
        "AWS Price List API, GetProducts of AmazonSageMaker",
        "2026-11-29",
        {"ml.m5.large": Decimal("0.5"), "ml.c5.large": Decimal("0.7")},
        {2: Decimal("0.00004")},
        FunctionPrices(
            "AWS Price List API, GetProducts of AWSLambda",
            "2026-11-29",
            gb_second=Decimal("0.000017"),
            million_requests=Decimal("0.25"),
            warm_gb_second=Decimal("0.0000041667"),
            snapshot_gb_second=Decimal("0.0000015046"),
        ),
    )
    assert price_book("eu-west-1", tmp_path / "new") == found
    assert price_book("eu-west-2", tmp_path / "new") == shipped("eu-west-2")
    assert not found.is_old(date(2026, 12, 6))
    assert found.is_old(date(2026, 12, 7))


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"source": 1, "published": "", "hour": {"a": "0"}}', "\0"),
        '{"source": "", "published": "", "hour": {}, "second_by_gb": {}, "function": {"odd": "1"}}',
    ],
)
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "us-east-1.json").write_text(content)
    assert price_book("us-east-1", tmp_path) == shipped("us-east-1")


def test_lambdas_prices_that_ship_serve_where_none_were_asked_for(tmp_path: Path) -> None:
    """As in the file of a version of fdeploy that did not ask for them."""
    old = {"source": "s", "published": "2026-11-28", "hour": {"a": "1"}, "second_by_gb": {}}
    for region in ("us-east-1", "mars-north-1"):
        (tmp_path / f"{region}.json").write_text(json.dumps(old))
    assert price_book("us-east-1", tmp_path).function == shipped("us-east-1").function
    assert price_book("mars-north-1", tmp_path).function is None


def test_nothing_listed_keeps_what_is_known(tmp_path: Path) -> None:
    assert not refresh(
        "us-east-1", tmp_path, lambda _service, _wanted: [{"PriceList": []}], NOW
    ).known
    assert price_book("us-east-1", tmp_path) == shipped("us-east-1")


def test_a_function_costs_its_memory_for_its_time_and_its_requests() -> None:
    book = shipped("us-east-1")
    # 1 GB for a second, a million times, and the requests themselves.
    assert function_million(book, 1_024, 1_000) == Decimal("16.87")
    assert function_million(book, 1_769, 10) == Decimal("0.49")
    assert function_million(shipped("mars-north-1"), 1_024, 1_000) is None


def test_the_volume_at_which_an_instance_becomes_cheaper_is_drawn() -> None:
    fits = Fits((("ml.m5.large", 8 << 30),), None, "lambda", function=1_769)
    report = compare(fits, shipped("us-east-1"), Usage(10, 100.0, "as given"))
    assert report.function is not None
    assert report.function.per_million == Decimal("3.08")
    assert report.function.chosen
    assert report.function_break_even == 27_256_494
    lines = "\n".join(report.lines())
    assert "lambda      is dearer than that from 27,256,494 requests a month" in lines
    assert "1,000,000                   93.68" in lines

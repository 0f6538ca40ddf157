"""A price is what AWS lists, or unknown with a reason; never 0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from fastai_deploy.aws.pricing import (
    Price,
    endpoint_cost,
    hourly_price,
    instance_price,
    pricing_region,
    stage_cost,
    transform_price,
)
from fastai_deploy.aws.templates.render import api_template, endpoint_template
from fastai_deploy.errors import AwsDenied
from fastai_deploy.stage_reports import Extra
from tests.aws_templates.scenarios import api_of, endpoint_of, of_type, section, settings_of

Json = Any


def document(
    price: str = "0.1150000000", *, unit: str = "Hrs", currency: str = "USD", sku: str = "A1"
) -> str:
    """A document in the shape of "Reading service price list files" (format aws_v1)."""
    dimension = {
        "rateCode": f"{sku}.JRTCKXETXF.6YS6EN2CT7",
        "unit": unit,
        "beginRange": "0",
        "endRange": "Inf",
        "description": f"${price} per Hosting ml.m5.large hour in EU (Frankfurt)",
        "appliesTo": [],
        "pricePerUnit": {currency: price},
    }
    return json.dumps(
        {
            "product": {
                "productFamily": "ML Instance",
                "attributes": {
                    "servicecode": "AmazonSageMaker",
                    "component": "Hosting",
                    "instanceName": "ml.m5.large",
                    "regionCode": "eu-central-1",
                    "usagetype": "EUC1-Host:ml.m5.large",
                },
                "sku": sku,
            },
            "serviceCode": "AmazonSageMaker",
            "terms": {
                "OnDemand": {
                    f"{sku}.JRTCKXETXF": {
                        "priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": dimension},
                        "sku": sku,
                        "effectiveDate": "2026-11-01T00:00:00Z",
                        "offerTermCode": "JRTCKXETXF",
                        "termAttributes": {},
                    }
                }
            },
            "version": "20261101000000",
            "publicationDate": "2026-11-01T00:00:00Z",
        }
    )


def spec(toml: str) -> Any:
    return endpoint_of(settings_of(section("endpoint", toml)))


def test_the_price_of_a_document() -> None:
    assert hourly_price([document()]) == Price(Decimal("0.1150000000"), "USD")
    assert hourly_price([document(currency="CNY")]).currency == "CNY"
    assert hourly_price([document(), document(sku="B2")]).per_hour == Decimal("0.115")


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([], "no price"),
        ([document("0.0000000000")], "no price"),
        ([document("-1")], "no price"),
        ([document("NaN")], "no price"),
        ([document("cheap")], "no price"),
        ([document(unit="GB-Mo")], "no price"),
        (["no JSON"], "no price"),
        (["[]"], "no price"),
        (["{}"], "no price"),
        (['{"terms": {"OnDemand": {"a": {}}}}'], "no price"),
        (['{"terms": {"Reserved": {}}}'], "no price"),
        ([document(), document("0.2", sku="B2")], "2 different prices"),
    ],
)
def test_what_cannot_be_found_out_is_unknown(documents: list[str], reason: str) -> None:
    price = hourly_price(documents)
    assert price.per_hour is None
    assert reason in price.reason


def test_what_is_asked_for() -> None:
    asked: dict[str, Json] = {}

    def get_products(**parameters: Json) -> Mapping[str, Json]:
        asked.update(parameters)
        return {"FormatVersion": "aws_v1", "PriceList": [document()]}

    price = instance_price(get_products, "ml.m5.large", "eu-central-1")
    assert price.per_hour == Decimal("0.115")
    assert asked["ServiceCode"] == "AmazonSageMaker"
    assert {item["Field"]: item["Value"] for item in asked["Filters"]} == {
        "component": "Hosting",
        "instanceName": "ml.m5.large",
        "regionCode": "eu-central-1",
    }


def test_the_price_of_a_transform_is_told_by_its_usage_type() -> None:
    def product(usage: str, price: str) -> str:
        found = json.loads(document())
        found["product"] = {"attributes": {"usagetype": usage}}
        return json.dumps(found).replace("0.115", price)

    listed = [product("EUC1-Host:ml.m5.large", "0.115"), product("EUC1-Tsform:ml.m5.large", "0.12")]
    asked: dict[str, Json] = {}

    def get_products(**parameters: Json) -> Mapping[str, Json]:
        asked.update(parameters)
        return {"PriceList": listed}

    assert transform_price(get_products, "ml.m5.large", "eu-central-1").per_hour == Decimal("0.12")
    assert {item["Field"] for item in asked["Filters"]} == {"instanceName", "regionCode"}
    del listed[1]
    assert transform_price(get_products, "ml.m5.large", "eu-central-1").per_hour is None


def test_a_price_list_that_may_not_be_asked_is_no_error() -> None:
    def denied(**_parameters: Json) -> Mapping[str, Json]:
        raise AwsDenied("may not pricing:GetProducts", hint="")

    price = instance_price(denied, "ml.m5.large", "eu-central-1")
    assert price.per_hour is None
    assert "may not pricing:GetProducts" in price.reason


@pytest.mark.parametrize(
    ("region", "where"),
    [
        ("eu-west-1", "eu-central-1"),
        ("il-central-1", "eu-central-1"),
        ("ap-southeast-2", "ap-south-1"),
        ("sa-east-1", "us-east-1"),
        ("us-gov-west-1", "us-east-1"),
        ("cn-north-1", "cn-northwest-1"),
    ],
)
def test_the_price_list_is_asked_where_there_is_one(region: str, where: str) -> None:
    assert pricing_region(region) == where


def test_the_cost_of_an_endpoint() -> None:
    price = Price(Decimal("0.115"))
    fixed = endpoint_cost(spec("instance_count = 2\n"), price)
    assert (fixed.least_per_hour, fixed.most_per_hour) == (Decimal("0.230"), Decimal("0.230"))
    assert fixed.least_per_month == Decimal("167.900")
    scaled = endpoint_cost(spec("max_instances = 3\n"), price)
    assert (scaled.least_per_hour, scaled.most_per_hour) == (Decimal("0.115"), Decimal("0.345"))
    asleep = endpoint_cost(spec('kind = "async"\nscale_to_zero = true\n'), price)
    assert (asleep.least_per_hour, asleep.most_per_month) == (Decimal(0), Decimal("83.950"))


def test_what_cloudwatch_costs_is_a_line_each() -> None:
    settings = settings_of(section("endpoint", "max_instances = 3\n"))
    templates = [endpoint_template(endpoint_of(settings)), api_template(api_of(settings))]
    found = stage_cost(endpoint_of(settings), Price(Decimal("0.1")), templates)
    extras = {each.what: each for each in found.extras}
    assert list(extras) == ["alarms", "metrics", "dashboard", "logs"]
    alarms = sum(
        len(of_type(template.evaluated(), "AWS::CloudWatch::Alarm")) for template in templates
    )
    assert extras["alarms"].per_month == (alarms + 2) * Decimal("0.10"), "and two of autoscaling"
    assert extras["metrics"].per_month == Decimal("1.20")
    assert extras["dashboard"].per_month == 3
    assert extras["logs"].per_month is None
    assert "1.00 USD per million requests" in extras["logs"].note


def test_instances_that_autoscaling_left_are_priced() -> None:
    found = stage_cost(spec(""), Price(Decimal("0.1")), [], running=4)
    assert found.extras[0] == Extra("now", Decimal(292), found.extras[0].note)
    assert "4 ml.m5.large run now" in found.extras[0].note
    assert stage_cost(spec(""), Price(Decimal("0.1")), [], running=1).extras[0].what == "logs"


def test_an_unknown_price_makes_an_unknown_cost() -> None:
    unknown = endpoint_cost(spec(""), Price(None, reason="AWS lists no price for this instance"))
    assert unknown.least_per_hour is unknown.most_per_month is None
    assert unknown.note == "AWS lists no price for this instance"
    serverless = endpoint_cost(
        spec('kind = "serverless"\nprovisioned_concurrency = 1\n'), Price(Decimal(1))
    )
    assert serverless.least_per_hour is serverless.least_per_month is None
    assert "billed by usage" in serverless.note
    assert "provisioned concurrency of" in serverless.note

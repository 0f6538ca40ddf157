"""What an endpoint costs per hour and per month, from AWS's price list.

    get_products ──documents──> hourly_price ──> Price ──> Cost of a spec

A price that cannot be determined is unknown, with a reason, and never 0. Prices are on demand,
without taxes, discounts and usage-based charges (requests, storage, logs).
Sources: "GetProducts" of the AWS Price List API; "Reading service price list files" for the shape.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from fastai_deploy.aws.images import OWN
from fastai_deploy.aws.specs import EndpointSpec, Instances, Serverless
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.errors import AwsError
from fastai_deploy.stage_reports import BY_USAGE, HOURS_A_MONTH, Cost, Extra

Json = Any
# ``get_products`` of a ``pricing`` client in one of the regions below. Raises AwsError.
GetProducts = Callable[..., Mapping[str, Json]]

_USAGE = "Tsform:"
_HOURS = frozenset(("hrs", "hours", "hour"))


@dataclass(frozen=True)
class Price:
    """The hourly price of an instance; ``per_hour`` None means unknown, for ``reason``."""

    per_hour: Decimal | None
    currency: str = "USD"
    reason: str = ""


def pricing_region(region: str) -> str:
    """The region whose price list API to use: it exists in only four regions."""
    if region.startswith("cn-"):
        return "cn-northwest-1"
    if region.startswith(("eu-", "me-", "af-", "il-")):
        return "eu-central-1"
    return "ap-south-1" if region.startswith("ap-") else "us-east-1"


def instance_price(get_products: GetProducts, instance: str, region: str) -> Price:
    """The price of an instance type for hosting in a region; never raises AwsError."""
    found = _products(get_products, instance, region, {"component": "Hosting"})
    return found if isinstance(found, Price) else hourly_price(found)


def _products(
    get_products: GetProducts, instance: str, region: str, more: Mapping[str, str]
) -> Sequence[str] | Price:
    """The price list documents of an instance type, or why there are none."""
    if region.startswith("us-gov-"):
        # Its credentials are not valid where the price list is.
        return Price(None, reason="GovCloud has no price list API")
    wanted = {**more, "instanceName": instance, "regionCode": region}
    try:
        answer = get_products(
            ServiceCode="AmazonSageMaker",
            FormatVersion="aws_v1",
            Filters=[
                {"Type": "TERM_MATCH", "Field": field, "Value": value}
                for field, value in wanted.items()
            ],
        )
    except AwsError as error:
        return Price(None, reason=f"the price list is not available: {error.message}")
    documents: Sequence[str] = answer.get("PriceList", [])
    return documents


def transform_price(get_products: GetProducts, instance: str, region: str) -> Price:
    """The price of an instance type for batch transform; never raises AwsError.

    Its products are told by their usage type, such as ``EU-Tsform:ml.c5.xlarge``.
    """
    found = _products(get_products, instance, region, {})
    if isinstance(found, Price):
        return found
    return hourly_price([each for each in found if _USAGE in each])


def hourly_price(documents: Sequence[str]) -> Price:
    """The hourly price in price list documents, if there is exactly one."""
    found = {price for document in documents for price in _prices(document)}
    if len(found) == 1:
        amount, currency = found.pop()
        return Price(amount, currency)
    if not found:
        return Price(None, reason="AWS lists no price for this instance")
    return Price(None, reason=f"AWS lists {len(found)} different prices for this instance")


def stage_cost(
    spec: EndpointSpec, price: Price, templates: Sequence[Template], running: int = 0
) -> Cost:
    """What a stage costs, from the price of an instance and the templates of its stacks.

    ``running``: so many instances run now, which may be more than the settings say.
    """
    found = endpoint_cost(spec, price)
    extras = tuple(_extras(templates))
    if spec.model.server == OWN:
        note = f"about {_IMAGE_GB} GB in ECR, for all stages of the project"
        extras = (*extras, Extra("image", _IMAGE_GB * _STORED_GB, note))
    if running and price.per_hour is not None and isinstance(spec.capacity, Instances):
        least = spec.scaling.minimum if spec.scaling else spec.capacity.count
        most = spec.scaling.maximum if spec.scaling else spec.capacity.count
        if not least <= running <= most:
            month = price.per_hour * running * HOURS_A_MONTH
            note = f"{running} {spec.capacity.type} run now; a deploy sets their number"
            extras = (Extra("now", month, note), *extras)
    return replace(found, extras=extras)


def endpoint_cost(spec: EndpointSpec, price: Price) -> Cost:
    """What the instances of an endpoint cost, from the price of one."""
    if isinstance(spec.capacity, Serverless):
        note = f"{BY_USAGE}: memory and seconds of each request"
        if spec.capacity.provisioned:
            note += (
                f"; provisioned concurrency of {spec.capacity.provisioned} is billed by the hour"
            )
        return Cost(None, None, price.currency, note)
    if price.per_hour is None:
        return Cost(None, None, price.currency, price.reason)
    least = most = spec.capacity.count
    if spec.scaling:
        least, most = spec.scaling.minimum, spec.scaling.maximum
    note = "instances only, without requests, storage and taxes"
    if spec.rollout.bake and spec.kind != "serverless":
        note += "; during an update, old and new instances run at the same time"
    return Cost(price.per_hour * least, price.per_hour * most, price.currency, note)


# CloudWatch's list prices in us-east-1 on 2026-11-28; other regions differ by a few percent.
# Source: "Amazon CloudWatch pricing".
_ALARM, _METRIC, _DASHBOARD, _LOG_GB = Decimal("0.10"), Decimal("0.30"), Decimal(3), Decimal("0.50")
# "Amazon ECR pricing"; the compressed size of python:3.13-slim and the wheels.
_STORED_GB, _IMAGE_GB = Decimal("0.10"), Decimal("0.1")
_METRICS_OF_LAMBDA = 4  # runtime/gateway/request_log.py
_ALARMS_OF_POLICY = 2  # target tracking makes one to scale out and one to scale in
# Of a request: the Lambda's own line and AWS's three, the access log, four lines of the container.
_LOG_BYTES = 2_000


def _extras(templates: Sequence[Template]) -> Iterator[Extra]:
    """What CloudWatch costs a month, without what is free for each account."""
    kinds: Counter[str] = Counter()
    for template in templates:
        for item in template.evaluated()["Resources"].values():
            properties = item.get("Properties", {})
            kinds[item["Type"]] += 1
            kinds["tracking"] += properties.get("PolicyType") == "TargetTrackingScaling"
    alarms = kinds["AWS::CloudWatch::Alarm"] + _ALARMS_OF_POLICY * kinds["tracking"]
    if alarms:
        yield Extra("alarms", alarms * _ALARM, f"{alarms} alarms (an account has 10 free)")
    if kinds["AWS::Lambda::Function"]:
        metrics = _METRICS_OF_LAMBDA
        yield Extra("metrics", metrics * _METRIC, f"{metrics} metrics (an account has 10 free)")
    if kinds["AWS::CloudWatch::Dashboard"]:
        yield Extra("dashboard", _DASHBOARD, "an account has 3 free")
    million = Decimal(_LOG_BYTES) / 1_000 * _LOG_GB
    yield Extra("logs", None, f"about {million:.2f} USD per million requests, and their storage")


def _prices(document: str) -> list[tuple[Decimal, str]]:
    """The hourly prices in a document; none if it cannot be parsed."""
    try:
        terms = json.loads(document, parse_float=Decimal)["terms"]["OnDemand"].values()
        dimensions = [one for term in terms for one in term["priceDimensions"].values()]
        prices = [
            (Decimal(amount), currency)
            for dimension in dimensions
            if str(dimension["unit"]).lower() in _HOURS
            for currency, amount in dimension["pricePerUnit"].items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation):
        return []
    # A price of 0 is a free tier or a placeholder.
    return [price for price in prices if price[0].is_finite() and price[0] > 0]

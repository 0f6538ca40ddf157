"""Quotas and prices: Service Quotas and the price list.

Both answer from the behaviour of the account's SageMaker, and have nothing else.
Sources: the API references of ListServiceQuotas and GetProducts; "Reading the service price list
file" for the shape of a product.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.aws_double.behaviour import Behaviour

Json = Any


class Market:
    """Two services; ``behaviour`` gives that of the request's account."""

    def __init__(self, behaviour: Callable[[], Behaviour]) -> None:
        self._behaviour = behaviour
        self._operations: Mapping[str, Callable[[Json], Json]] = {
            "ListServiceQuotas": self._quotas,
            "ListAWSDefaultServiceQuotas": lambda _request: {"Quotas": []},
            "GetProducts": self._products,
        }

    def handle(self, operation: str, body: bytes) -> tuple[int, Json]:
        """Status and answer of a request."""
        run = self._operations.get(operation)
        if run is None:
            return 400, {"__type": "UnknownOperationException", "message": operation}
        return 200, run(json.loads(body or b"{}"))

    def _quotas(self, _request: Json) -> Json:
        quota = self._behaviour().quota
        return {
            "Quotas": [
                {"QuotaName": f"{instance} for endpoint usage", "Value": value}
                for instance, value in quota.items()
            ]
        }

    def _products(self, request: Json) -> Json:
        wanted = {item["Field"]: item["Value"] for item in request["Filters"]}
        price = self._behaviour().price.get(wanted["instanceName"])
        if price is None:
            return {"PriceList": []}
        dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}}
        terms = {"OnDemand": {"term": {"priceDimensions": {"dimension": dimension}}}}
        return {"PriceList": [json.dumps({"product": {"attributes": wanted}, "terms": terms})]}

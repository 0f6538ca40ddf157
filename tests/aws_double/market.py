"""Quotas and prices: Service Quotas and the price list.

Both answer from the behaviour of the account's SageMaker, and have nothing else.
Sources: the API references of ListServiceQuotas and GetProducts; "Reading the service price list
file" for the shape of a product.
"""

from __future__ import annotations

import json
import zlib
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
                {
                    "QuotaName": f"{instance} for endpoint usage",
                    "QuotaCode": f"L-{zlib.crc32(instance.encode()):08X}",
                    "Value": value,
                }
                for instance, value in quota.items()
            ]
        }

    def _products(self, request: Json) -> Json:
        wanted = {item["Field"]: item["Value"] for item in request["Filters"]}
        price = self._behaviour().price.get(wanted["instanceName"])
        if price is None:
            return {"PriceList": []}
        # Without a component, the products of all components are listed, here two of them.
        kinds = ("Hosting",) if "component" in wanted else ("Host", "Tsform")
        return {"PriceList": [self._product(wanted, f"EUC1-{kind}", price) for kind in kinds]}

    def _product(self, wanted: Json, usage: str, price: str) -> str:
        dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}}
        terms = {"OnDemand": {"term": {"priceDimensions": {"dimension": dimension}}}}
        attributes = {**wanted, "usagetype": f"{usage}:{wanted['instanceName']}"}
        return json.dumps({"product": {"attributes": attributes}, "terms": terms})

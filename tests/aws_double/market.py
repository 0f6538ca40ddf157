"""Quotas and prices: Service Quotas and the price list.

Both answer from the behaviour of the account's SageMaker, and have nothing else.
Sources: the API references of ListServiceQuotas and GetProducts (filters are all to match; at most
100 products a page, then a NextToken); "Reading the service price list file" for the shape of a
product. Serverless prices are of the product family "ML Serverless", and of usage types such as
EUC1-ServerlessInf:Mem-2GB, in USD a second; Infracost's resource of SageMaker endpoints reads them
by these names. Lambda's are of the service code AWSLambda and told apart by usage types such as
EUC1-Lambda-GB-Second; the price of a GB-second has tiers, each a dimension with its ``beginRange``
(the file https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AWSLambda/current/index.json).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
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
        region = wanted.get("regionCode", "")
        of_service = self._functions if request["ServiceCode"] == "AWSLambda" else self._listed
        found = [
            _product(attributes, unit, price)
            for attributes, unit, price in of_service(region)
            if wanted.items() <= attributes.items()
        ]
        first = int(request.get("NextToken", "0"))
        last = first + min(_PAGE, int(request.get("MaxResults", _PAGE)))
        more = {"NextToken": str(last)} if last < len(found) else {}
        return {"PriceList": found[first:last], **more}

    def _listed(self, region: str) -> Iterator[tuple[dict[str, str], str, str]]:
        """The attributes, unit and price of every product of a region."""
        behaviour = self._behaviour()
        for instance, price in behaviour.price.items():
            of_type = {"instanceName": instance, "regionCode": region}
            for component, usage in (("Hosting", "Host"), ("Batch Transform", "Tsform")):
                kind = {"component": component, "usagetype": f"EUC1-{usage}:{instance}"}
                yield {**of_type, **kind}, "Hrs", price
        for gigabytes, price in behaviour.serverless_price.items():
            usage = f"EUC1-ServerlessInf:Mem-{gigabytes}GB"
            for type_, cost in ((usage, price), (f"{usage}-PC", "9.9999")):  # provisioned
                serverless = {"productFamily": "ML Serverless", "usagetype": type_}
                yield {**serverless, "regionCode": region}, "seconds", cost

    def _functions(self, region: str) -> Iterator[tuple[dict[str, str], str, str]]:
        """The same of Lambda's products."""
        for usage, price in self._behaviour().function_price.items():
            kind = {"productFamily": "Serverless", "usagetype": f"EUC1-{usage}"}
            yield {**kind, "regionCode": region}, "Lambda-GB-Second", price


_PAGE = 100


def _product(attributes: Mapping[str, str], unit: str, price: str) -> str:
    """A product; prices of several tiers are separated by spaces."""
    dimensions = {
        f"tier{number}": {
            "unit": unit,
            "beginRange": str(number * 6_000_000_000),
            "pricePerUnit": {"USD": each},
        }
        for number, each in enumerate(price.split())
    }
    terms = {"OnDemand": {"term": {"priceDimensions": dimensions}}}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms})

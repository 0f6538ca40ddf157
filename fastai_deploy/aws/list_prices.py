"""List prices of SageMaker hosting: those that ship, and those that were asked for since.

    list_prices.toml  --shipped-->  PriceBook  <--cached--  prices/<region>.json  <--refresh--  AWS

Every price has a source and a date; one that is in neither place is unknown, and never guessed.
Sources: "GetProducts" of the AWS Price List API; "Amazon SageMaker AI pricing" for what is billed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import tomli

from fastai_deploy import files
from fastai_deploy.errors import FileError
from fastai_deploy.json_reader import BadJson, parse

Json = Any
# The pages of GetProducts for some filters. Raises AwsError.
Products = Callable[[Mapping[str, str]], Iterable[Mapping[str, Json]]]

DEFAULT_REGION = "us-east-1"
_API = "AWS Price List API, GetProducts of AmazonSageMaker"
_OLD = timedelta(days=7)
_SERVERLESS = re.compile(r"ServerlessInf:Mem-([1-6])GB$")  # without provisioned concurrency
_MOST = 1 << 20  # bytes of a cached file


@dataclass(frozen=True)
class PriceBook:
    """The prices of one region in USD: an instance per hour, serverless per second by GB.

    ``source`` is a URL or the API that they are from, ``published`` their date. ``gb_second`` and
    ``million_requests`` are Lambda's on x86, None if they are not known.
    """

    region: str
    source: str = ""
    published: str = ""
    hour: Mapping[str, Decimal] = field(default_factory=dict)
    second_by_gb: Mapping[int, Decimal] = field(default_factory=dict)
    gb_second: Decimal | None = None
    million_requests: Decimal | None = None

    @property
    def known(self) -> bool:
        """Whether any price is known."""
        return bool(self.hour or self.second_by_gb)

    def is_old(self, today: date) -> bool:
        """Whether prices should be asked for again, if AWS is asked anyway."""
        try:
            return today - date.fromisoformat(self.published) > _OLD
        except ValueError:
            return True


@cache
def _shipped() -> Mapping[str, Json]:
    text = package_files("fastai_deploy.aws").joinpath("list_prices.toml").read_text("utf-8")
    return tomli.loads(text)


def shipped(region: str) -> PriceBook:
    """The prices that ship for a region; empty if none were found in a source."""
    listed = _shipped()
    found = listed["regions"].get(region)
    if found is None:
        return PriceBook(region)
    source = listed["sources"][found["source"]]
    book = PriceBook(
        region,
        source["url"],
        source["published"],
        {kind: Decimal(price) for kind, price in found["hour"].items()},
        {int(gb): Decimal(price) for gb, price in found["second_by_gb"].items()},
    )
    return _with_functions(book)


def default_folder() -> Path:
    """The folder of prices that were asked for."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastai-deploy" / "prices"


def price_book(region: str, folder: Path) -> PriceBook:
    """The prices of a region: those that were asked for, else those that ship."""
    found = _cached(region, folder)
    return _with_functions(found) if found else shipped(region)


def _with_functions(book: PriceBook) -> PriceBook:
    """The prices with those of Lambda, which are the same in all regions whose prices ship."""
    listed = _shipped()
    if book.region not in listed["regions"]:
        return book
    found = listed["functions"]
    million = Decimal(found["million_requests"])
    return replace(book, gb_second=Decimal(found["gb_second"]), million_requests=million)


def _cached(region: str, folder: Path) -> PriceBook | None:
    try:
        found = parse(files.read(folder / f"{region}.json", most=_MOST))
        return PriceBook(
            region,
            str(found["source"]),
            str(found["published"]),
            {str(kind): _amount(price) for kind, price in found["hour"].items()},
            {int(gb): _amount(price) for gb, price in found["second_by_gb"].items()},
        )
    except (FileError, BadJson, LookupError, TypeError, ValueError, AttributeError):
        return None  # none, or edited by hand: it is asked for again


def refresh(region: str, folder: Path, products: Products, now: datetime) -> PriceBook:
    """Ask for every price of a region and keep them. Raises AwsError or FileError."""
    hour: dict[str, Decimal] = {}
    by_gb: dict[int, Decimal] = {}
    for attributes, price in _listed(products({"component": "Hosting", "regionCode": region})):
        if name := attributes.get("instanceName"):
            hour[str(name)] = price
    serverless = {"productFamily": "ML Serverless", "regionCode": region}
    for attributes, price in _listed(products(serverless)):
        if found := _SERVERLESS.search(str(attributes.get("usagetype", ""))):
            by_gb[int(found[1])] = price
    book = _with_functions(PriceBook(region, _API, f"{now:%Y-%m-%d}", hour, by_gb))
    if book.known:
        values = {
            "source": book.source,
            "published": book.published,
            "hour": {kind: str(price) for kind, price in sorted(hour.items())},
            "second_by_gb": {str(gb): str(price) for gb, price in sorted(by_gb.items())},
        }
        files.make_folder(folder)
        files.write(folder / f"{region}.json", json.dumps(values, indent=1).encode())
    return book


def _listed(
    pages: Iterable[Mapping[str, Json]],
) -> Iterable[tuple[Mapping[str, Json], Decimal]]:
    """The attributes and the one price in USD of each product; others are left out."""
    for page in pages:
        for document in page.get("PriceList", []):
            try:
                product = json.loads(document)
                dimensions = [
                    dimension
                    for term in product["terms"]["OnDemand"].values()
                    for dimension in term["priceDimensions"].values()
                ]
                prices = {_amount(dimension["pricePerUnit"]["USD"]) for dimension in dimensions}
                attributes = product["product"]["attributes"]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if len(prices) == 1:
                yield attributes, prices.pop()


def _amount(text: str) -> Decimal:
    """A price. Raises ValueError for what is none; 0 is a free tier or a placeholder."""
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not found.is_finite() or found <= 0:
        raise ValueError(text)
    return found

"""List prices of SageMaker hosting and Lambda: those that ship, and those asked for since.

    list_prices.toml  --shipped-->  PriceBook  <--cached--  prices/<region>.json  <--refresh--  AWS

Every price has a source and a date; one that is in neither place is unknown, and never guessed.
Sources: "GetProducts" of the AWS Price List API; "Amazon SageMaker AI pricing" and "AWS Lambda
pricing" for what is billed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
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
# The pages of GetProducts for a service code and some filters. Raises AwsError.
Products = Callable[[str, Mapping[str, str]], Iterable[Mapping[str, Json]]]

DEFAULT_REGION = "us-east-1"
SAGEMAKER, LAMBDA = "AmazonSageMaker", "AWSLambda"
_API = "AWS Price List API, GetProducts of"
_OLD = timedelta(days=7)
_SERVERLESS = re.compile(r"ServerlessInf:Mem-([1-6])GB$")  # without provisioned concurrency
# Lambda's usage types on x86 begin with the region's code, as in EUC1-Request.
_OF_FUNCTIONS = {
    "Lambda-GB-Second": "gb_second",
    "Request": "request",
    "Lambda-Provisioned-Concurrency": "warm_gb_second",
    "Lambda-Provisioned-GB-Second": "warm_run_gb_second",
    "Lambda-SnapStart-Cached-GB-S": "snapshot_gb_second",
    "Lambda-SnapStart-Restored-GB": "restored_gb",
}
_TEXTS = ("source", "published")
_REGION_CODE = re.compile(r"[A-Z]{2,4}[0-9]?-")
_MILLION = 1_000_000
_MOST = 1 << 20  # bytes of a cached file


@dataclass(frozen=True)
class FunctionPrices:
    """Lambda's prices on x86 in USD, those of the first tier; None is unknown.

    ``warm_gb_second`` is for an environment of provisioned concurrency, busy or not, and
    ``warm_run_gb_second`` for its requests in place of ``gb_second``. ``snapshot_gb_second`` is for
    SnapStart's snapshot of each version, ``restored_gb`` for a start from it.
    """

    source: str
    published: str
    gb_second: Decimal
    million_requests: Decimal
    warm_gb_second: Decimal | None = None
    warm_run_gb_second: Decimal | None = None
    snapshot_gb_second: Decimal | None = None
    restored_gb: Decimal | None = None


@dataclass(frozen=True)
class PriceBook:
    """The prices of one region in USD: an instance per hour, serverless per second by GB.

    ``source`` is a URL or the API that they are from, ``published`` their date. ``function`` has
    Lambda's, None if they are not known.
    """

    region: str
    source: str = ""
    published: str = ""
    hour: Mapping[str, Decimal] = field(default_factory=dict)
    second_by_gb: Mapping[int, Decimal] = field(default_factory=dict)
    function: FunctionPrices | None = None

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
    """The prices with those of Lambda that ship, unless they were asked for.

    These are the same in all regions whose prices ship.
    """
    listed = _shipped()
    if book.function is not None or book.region not in listed["regions"]:
        return book
    found = listed["functions"]
    prices = FunctionPrices(
        found["url"],
        found["published"],
        Decimal(found["gb_second"]),
        Decimal(found["million_requests"]),
    )
    return replace(book, function=prices)


def _cached(region: str, folder: Path) -> PriceBook | None:
    try:
        found = parse(files.read(folder / f"{region}.json", most=_MOST))
        return PriceBook(
            region,
            str(found["source"]),
            str(found["published"]),
            {str(kind): _amount(price) for kind, price in found["hour"].items()},
            {int(gb): _amount(price) for gb, price in found["second_by_gb"].items()},
            _read_function(found["function"]) if "function" in found else None,
        )
    except (FileError, BadJson, LookupError, TypeError, ValueError, AttributeError):
        return None  # none, or edited by hand: it is asked for again


def refresh(region: str, folder: Path, products: Products, now: datetime) -> PriceBook:
    """Ask for every price of a region and keep them. Raises AwsError or FileError."""
    hour: dict[str, Decimal] = {}
    by_gb: dict[int, Decimal] = {}
    hosting = {"component": "Hosting", "regionCode": region}
    for attributes, price in _listed(products(SAGEMAKER, hosting)):
        if name := attributes.get("instanceName"):
            hour[str(name)] = price
    serverless = {"productFamily": "ML Serverless", "regionCode": region}
    for attributes, price in _listed(products(SAGEMAKER, serverless)):
        if found := _SERVERLESS.search(str(attributes.get("usagetype", ""))):
            by_gb[int(found[1])] = price
    published = f"{now:%Y-%m-%d}"
    function = _function(_listed(products(LAMBDA, {"regionCode": region})), published)
    book = PriceBook(region, f"{_API} {SAGEMAKER}", published, hour, by_gb, function)
    if book.known:
        values = {
            "source": book.source,
            "published": book.published,
            "hour": {kind: str(price) for kind, price in sorted(hour.items())},
            "second_by_gb": {str(gb): str(price) for gb, price in sorted(by_gb.items())},
            **({"function": _written(function)} if function else {}),
        }
        files.make_folder(folder)
        files.write(folder / f"{region}.json", json.dumps(values, indent=1).encode())
    return _with_functions(book)


def _function(
    listed: Iterable[tuple[Mapping[str, Json], Decimal]], published: str
) -> FunctionPrices | None:
    """Lambda's prices among its products; None without those of requests and their time."""
    found: dict[str, Decimal] = {}
    for attributes, price in listed:
        usage = _REGION_CODE.sub("", str(attributes.get("usagetype", "")), count=1)
        if usage in _OF_FUNCTIONS:
            found[_OF_FUNCTIONS[usage]] = price
    request = found.pop("request", None)
    if request is None or "gb_second" not in found:
        return None
    return FunctionPrices(
        f"{_API} {LAMBDA}", published, million_requests=request * _MILLION, **found
    )


def _written(prices: FunctionPrices) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(prices).items() if value is not None}


def _read_function(values: Mapping[str, Json]) -> FunctionPrices:
    """The prices of a cached file. Raises LookupError, TypeError or ValueError."""
    prices = {name: _amount(str(text)) for name, text in values.items() if name not in _TEXTS}
    return FunctionPrices(str(values["source"]), str(values["published"]), **prices)


def _listed(
    pages: Iterable[Mapping[str, Json]],
) -> Iterable[tuple[Mapping[str, Json], Decimal]]:
    """The attributes and the price in USD of each product, of its first tier; others are left out.

    A tier begins at ``beginRange`` units a month.
    """
    for page in pages:
        for document in page.get("PriceList", []):
            try:
                product = json.loads(document)
                dimensions = [
                    dimension
                    for term in product["terms"]["OnDemand"].values()
                    for dimension in term["priceDimensions"].values()
                    if dimension.get("beginRange", "0") == "0"
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

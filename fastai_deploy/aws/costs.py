"""What a stage would cost: instances that the model fits, and a serverless endpoint.

Instances cost the same idle or busy; a serverless endpoint costs only the seconds in which it
works. The two meet at a number of requests a month, from which the instance is cheaper. Counted is
what SageMaker bills for computing; not the API, logs, storage, data, and taxes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from fastai_deploy.aws.capacity import Instance
from fastai_deploy.aws.list_prices import PriceBook
from fastai_deploy.stage_reports import HOURS_A_MONTH, money, without_hour

_HOUR = 3_600
_MILLION = 1_000_000
_CENT = Decimal("0.01")
_GIB = 1 << 30
_SHOWN = 8  # instances, unless all are asked for
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Usage:
    """How fast the model answers: ``rate`` in texts per second and instance.

    ``latency_ms`` is how long one request takes. ``source`` says where both are from;
    ``instance`` is the type that they were measured on, empty if they are taken for any.
    """

    rate: float | None = None
    latency_ms: float | None = None
    source: str = ""
    instance: str = ""


@dataclass(frozen=True)
class CostOption:
    """A place to serve from: an instance type, or ``serverless``; None is unknown.

    ``memory`` is in bytes. ``per_month`` is for a month of 730 hours, ``idle_per_month`` for one
    without requests, ``per_million`` for a million requests at the measured rate, with an instance
    always that busy. ``chosen``: the settings name it.
    """

    place: str
    memory: int | None
    per_hour: Decimal | None
    per_month: Decimal | None
    idle_per_month: Decimal | None
    per_million: Decimal | None
    chosen: bool


@dataclass(frozen=True)
class StageBill:
    """What a stage that runs costs; ``this_month`` since the month began or it was made."""

    stage: str
    per_hour: Decimal | None
    this_month: Decimal | None
    currency: str
    note: str


@dataclass(frozen=True)
class CostReport:
    """The costs in ``region``, in USD, from prices of ``source`` that are of ``published``.

    ``instances`` are the cheapest that the model fits, and the one that the settings name.
    ``cheapest`` is the first of them that is not burstable: the speed of those falls when their
    credits are used up, and SageMaker does not autoscale them. From ``break_even`` requests a month
    a serverless endpoint is dearer than it, from ``function_break_even`` the model in a function.
    ``unpriced`` counts types that the model fits and whose price is unknown.
    """

    region: str
    source: str
    published: str
    usage: Usage
    instances: tuple[CostOption, ...]
    serverless: CostOption | None
    cheapest: str | None
    break_even: int | None
    unpriced: int
    stages: tuple[StageBill, ...]
    notes: tuple[str, ...]
    function: CostOption | None = None
    function_break_even: int | None = None

    def values(self) -> CostReport:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """A table of the places, then what to choose."""
        for bill in self.stages:
            yield f"{bill.stage:<11} {_stage_line(bill)}"
        if self.stages:
            yield ""
        if self.published:
            yield f"list prices of {self.region} in USD, published {self.published}: {self.source}"
        else:
            yield f"no list price of {self.region} is known: {_refresh(self.region)}"
        yield ""
        yield from _table(self)
        yield ""
        if self.cheapest is not None:
            take = f"fdeploy config set endpoint.instance {self.cheapest}"
            yield f"cheapest    {self.cheapest} ({take})"
        if self.break_even is not None:
            yield (
                f"serverless  is dearer than that from {self.break_even:,} requests a month, "
                f"{self.break_even * 24 / HOURS_A_MONTH:,.0f} a day"
            )
        if self.function_break_even is not None:
            yield (
                f"lambda      is dearer than that from {self.function_break_even:,} requests a "
                f"month, {self.function_break_even * 24 / HOURS_A_MONTH:,.0f} a day"
            )
            yield from _by_volume(self)
        yield from (f"note        {note}" for note in self.notes)


_DAILY = (1_000, 10_000, 100_000, 1_000_000)
_BAR = 40


def _by_volume(found: CostReport) -> Iterator[str]:
    """The month's cost of the function and of the cheapest instance, by requests a day, as bars."""
    instance = next(each for each in found.instances if each.place == found.cheapest)
    million = found.function.per_million if found.function else None
    if million is None or not instance.per_month:
        return
    yield ""
    yield f"{'requests a day':<16}{'a month in a function':>24}  (| {instance.place}, always)"
    per_day = million * HOURS_A_MONTH / 24 / _MILLION
    for daily in _DAILY:
        month = per_day * daily
        filled = min(_BAR, max(1, round(month / instance.per_month * _BAR / 2)))
        bar = "#" * filled + " " * (_BAR - filled)
        more = ">" if filled == _BAR else ""
        half = _BAR // 2
        yield f"{daily:>14,}  {month:>22,.2f}    {bar[:half]}|{bar[half:].rstrip()}{more}"
    yield ""


def function_million(prices: PriceBook, megabytes: int, latency_ms: float) -> Decimal | None:
    """What a million requests cost in a function; None if Lambda's price is not known."""
    found = prices.function
    if found is None:
        return None
    seconds = Decimal(str(latency_ms)) / 1_000
    computing = found.gb_second * Decimal(megabytes) / 1_024 * seconds * _MILLION
    return (computing + found.million_requests).quantize(_CENT)


def function_kept(prices: PriceBook, megabytes: int, *, warm: int, snapshot: bool) -> Iterator[str]:
    """What a function costs whether it is asked or not: ``warm`` environments, and a snapshot."""
    found, gigabytes = prices.function, Decimal(megabytes) / 1_024
    if warm:
        about = f"{warm} environments are kept warm"
        if found is None or found.warm_gb_second is None:
            yield f"{about} and paid by the hour: {_refresh(prices.region)} for the price"
        else:
            hour = found.warm_gb_second * gigabytes * _HOUR * warm
            yield f"{about}, for {money(hour)} USD an hour"
    if snapshot:
        if found is None or found.snapshot_gb_second is None or found.restored_gb is None:
            yield f"each version's snapshot costs too: {_refresh(prices.region)} for the price"
        else:
            month = found.snapshot_gb_second * gigabytes * _HOUR * HOURS_A_MONTH
            million = found.restored_gb * gigabytes * _MILLION
            yield (
                f"each version's snapshot costs {month:,.2f} USD a month, and a million starts "
                f"from it {million:,.2f}"
            )


def _refresh(region: str) -> str:
    return f"fdeploy cost --refresh --region {region} asks AWS"


def _stage_line(bill: StageBill) -> str:
    if bill.per_hour is None:
        return without_hour(bill.note)
    so_far = "" if bill.this_month is None else f", {bill.this_month:,.2f} so far this month"
    return f"{money(bill.per_hour)} {bill.currency} per hour{so_far}; {bill.note}"


_HEAD = ("", "memory", "per hour", "per month", "idle month", "per million")


def _table(found: CostReport) -> Iterator[str]:
    by_use = [each for each in (found.serverless, found.function) if each]
    options = [*found.instances, *by_use]
    rows = [
        (
            f"{'* ' if option.chosen else '  '}{option.place}",
            _UNKNOWN if option.memory is None else f"{option.memory / _GIB:,.0f} GB",
            _UNKNOWN if option.per_hour is None else money(option.per_hour),
            _cents(option.per_month),
            _cents(option.idle_per_month),
            _cents(option.per_million),
        )
        for option in options
    ]
    # These have no price per hour, and their month depends on the use.
    for place in range(len(rows) - len(by_use), len(rows)):
        first, memory, *_, idle, million = rows[place]
        rows[place] = (first, memory, "", "by use", idle, million)
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    for row in (_HEAD, *rows):
        first, *others = row
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join((f"{first:<{widths[0]}}", *cells)).rstrip()
    if any(option.chosen for option in options):
        yield "* of the settings"


def _cents(amount: Decimal | None) -> str:
    return _UNKNOWN if amount is None else f"{amount:,.2f}"


@dataclass(frozen=True)
class Fits:
    """Where the model fits: instance ``types`` with their memory, and serverless ``memory`` in MB.

    ``serverless`` is None if the model fits no serverless endpoint, and ``function``, in MB too, if
    it fits no Lambda function, where a request is expected to take ``function_ms``. ``chosen`` is
    the type of the settings, ``serverless`` or ``lambda``; empty if they name none.
    """

    types: Sequence[tuple[str, int]]
    serverless: int | None
    chosen: str
    function: int | None = None
    function_ms: float | None = None


def compare(
    fits: Fits,
    prices: PriceBook,
    usage: Usage,
    *,
    every: bool = False,
    stages: Sequence[StageBill] = (),
    notes: Sequence[str] = (),
) -> CostReport:
    """Compare all places that the model fits; ``every``: list all instances with a price."""
    instances = [
        _instance(kind, memory, prices, usage, chosen=kind == fits.chosen)
        for kind, memory in fits.types
    ]
    priced = sorted(
        (option for option in instances if option.per_hour is not None),
        key=lambda option: (option.per_hour, option.place),
    )
    listed = priced if every else priced[:_SHOWN]
    chosen = [option for option in instances if option.chosen and option not in listed]
    serverless = _serverless(fits.serverless, prices, usage, chosen=fits.chosen == "serverless")
    steady = [option for option in priced if not Instance(option.place).burstable]
    cheapest = steady[0] if steady else None
    break_even = _break_even(cheapest, serverless)
    taken = fits.function_ms if usage.latency_ms is None else usage.latency_ms
    function = _function(fits.function, prices, taken, chosen=fits.chosen == "lambda")
    more = list(_notes(usage, cheapest, break_even))
    if usage.latency_ms is None and taken is not None:
        more.append(f"lambda: at {taken:,.0f} ms for a text of 20 words, which is estimated")
    if function is not None and prices.function is not None:
        more.append(f"lambda's price: {prices.function.published}, {prices.function.source}")
    unpriced = len(instances) - len(priced)
    if unpriced and prices.known:
        more.append(f"{unpriced} more types fit, whose price is unknown: {_refresh(prices.region)}")
    if fits.chosen not in ("", "serverless", "lambda", *(option.place for option in instances)):
        more.append(f"{fits.chosen} of the settings is not listed: the model does not fit it")
    if fits.serverless is None:
        more.append("the model needs more memory than a serverless endpoint can have, 6 GB")
    if fits.function is None:
        more.append("the model does not fit a Lambda function")
    return CostReport(
        region=prices.region,
        source=prices.source,
        published=prices.published,
        usage=usage,
        instances=(*listed, *chosen),
        serverless=serverless,
        cheapest=cheapest.place if cheapest else None,
        break_even=break_even,
        unpriced=unpriced,
        stages=tuple(stages),
        function=function,
        function_break_even=_break_even(cheapest, function),
        notes=(*notes, *more, "counted is computing; not the API, logs, storage, data and taxes"),
    )


def _instance(
    kind: str, memory: int, prices: PriceBook, usage: Usage, *, chosen: bool
) -> CostOption:
    hour = prices.hour.get(kind)
    month = None if hour is None else hour * HOURS_A_MONTH
    million = None
    if hour is not None and usage.rate and usage.instance in ("", kind):
        million = (hour / _HOUR / Decimal(str(usage.rate)) * _MILLION).quantize(_CENT)
    return CostOption(kind, memory, hour, month, month, million, chosen)


def _serverless(
    megabytes: int | None, prices: PriceBook, usage: Usage, *, chosen: bool
) -> CostOption | None:
    if megabytes is None:
        return None
    second = prices.second_by_gb.get(megabytes // 1024)
    million = None
    if second is not None and usage.latency_ms is not None:
        million = second * Decimal(str(usage.latency_ms)) / 1_000 * _MILLION
        million = million.quantize(_CENT)
    idle = None if second is None else Decimal(0)
    place = f"serverless, {megabytes:,} MB"
    return CostOption(place, megabytes << 20, None, None, idle, million, chosen)


def _function(
    megabytes: int | None, prices: PriceBook, taken_ms: float | None, *, chosen: bool
) -> CostOption | None:
    if megabytes is None:
        return None
    million = None
    if taken_ms is not None:
        million = function_million(prices, megabytes, taken_ms)
    idle = None if prices.function is None else Decimal(0)
    place = f"lambda, {megabytes:,} MB"
    return CostOption(place, megabytes << 20, None, None, idle, million, chosen)


def _break_even(cheapest: CostOption | None, serverless: CostOption | None) -> int | None:
    """How many requests a month cost as much on what is billed by use as on the instance."""
    if cheapest is None or cheapest.per_month is None or serverless is None:
        return None
    if not serverless.per_million:
        return None
    return math.ceil(cheapest.per_month / serverless.per_million * _MILLION)


def _notes(usage: Usage, cheapest: CostOption | None, break_even: int | None) -> Iterator[str]:
    if usage.rate is None:
        yield (
            "the price per million needs a rate: run fdeploy bench, or give --rate in texts per "
            "second"
        )
        return
    latency = "" if usage.latency_ms is None else f", {usage.latency_ms:,.1f} ms for one request"
    yield f"per million: at {usage.rate:,.1f} texts a second{latency}, {usage.source}"
    if usage.instance:
        yield f"other types than {usage.instance} were not measured, so theirs is unknown"
    else:
        yield "an instance may be faster or slower than that"
    most = usage.rate * _HOUR * HOURS_A_MONTH
    if break_even is not None and cheapest is not None and break_even > most:
        yield f"one {cheapest.place} answers at most {most:,.0f} requests a month at that rate"

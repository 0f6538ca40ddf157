"""How fast a model answers in a function of some memory, estimated from measured models.

function_speed.toml (benchmarks/lambda_start.py) --by precision, parameters, memory--> Speed

Between two measured models the time is interpolated by the number of parameters, and between two
sizes of memory by the time that a share of a processor takes. A smaller model than those counts as
the smallest, a larger one takes time in proportion, and more memory helps no further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from itertools import pairwise

import tomli

from fastai_deploy.aws.costs import function_million
from fastai_deploy.aws.list_prices import PriceBook
from fastai_deploy.packaging.served_model import ServedModel
from fastai_deploy.runtime.bundle import FP32, INT8_WEIGHTS

_MOST_MORE = Decimal("1.15")  # of the least price, for a quicker answer
_TEXT = "a text of 20 words"


@dataclass(frozen=True)
class Speed:
    """A function of ``memory`` MB: its warm answer in ms, and its first after a cold start in s.

    ``million`` is what a million requests cost in USD, None if Lambda's price is not known.
    """

    memory: int
    warm_ms: float
    first_s: float
    million: Decimal | None

    def __str__(self) -> str:
        price = "" if self.million is None else f", {self.million:,.2f} USD per million"
        return f"{self.memory:,} MB: {self.warm_ms:,.0f} ms{price}"


@dataclass(frozen=True)
class Measured:
    """A measured model; the times are by memory in MB."""

    parameters: int
    warm_ms: Mapping[int, float]
    first_s: Mapping[int, float]


@dataclass(frozen=True)
class SpeedTable:
    """The measured models of each precision, and when and where they were measured."""

    measured: str
    machine: str
    models: Mapping[str, Sequence[Measured]]

    @property
    def sizes(self) -> Sequence[int]:
        """The sizes of memory that were measured, in MB."""
        every = [model for models in self.models.values() for model in models]
        return sorted(set.intersection(*(set(model.warm_ms) for model in every)))

    def speed(self, served: ServedModel, memory: int, prices: PriceBook) -> Speed | None:
        """The speed of a model; None for one whose parameters or precision are not known."""
        # With weights that are stored in int8, a function computes in float32.
        stored = served.function_precision == INT8_WEIGHTS
        models = self.models.get(FP32 if stored else served.function_precision, ())
        if not models or not served.parameters:
            return None
        warm = [(model.parameters, _by_memory(model.warm_ms, memory)) for model in models]
        first = [(model.parameters, _by_memory(model.first_s, memory)) for model in models]
        warm_ms = _by_parameters(warm, served.parameters)
        first_s = _by_parameters(first, served.parameters)
        return Speed(memory, warm_ms, first_s, function_million(prices, memory, warm_ms))

    def advised(self, served: ServedModel, least: int, prices: PriceBook) -> Speed | None:
        """The quickest that costs little more than the cheapest, with ``least`` MB or more."""
        sizes = [size for size in self.sizes if size >= least] or [least]
        found = [self.speed(served, size, prices) for size in sizes]
        priced = [each for each in found if each and each.million is not None]
        if not priced:
            return None
        cheapest = min(each.million for each in priced if each.million is not None)
        fits = [each for each in priced if each.million and each.million <= cheapest * _MOST_MORE]
        return min(fits, key=lambda each: each.warm_ms)

    def told(self, speed: Speed) -> str:
        """A speed in a sentence."""
        return (
            f"{_TEXT} takes about {speed.warm_ms:,.0f} ms at {speed.memory:,} MB, and the first "
            f"one after a cold start {speed.first_s:,.1f} s (measured {self.measured}, not on AWS)"
        )


@cache
def speed_table() -> SpeedTable:
    """The table that ships."""
    text = files("fastai_deploy.aws").joinpath("function_speed.toml").read_text("utf-8")
    listed = tomli.loads(text)
    models: dict[str, list[Measured]] = {}
    for each in sorted(listed["models"], key=lambda model: int(model["parameters"])):
        warm, first = (
            {int(memory): float(value) for memory, value in each[name].items()}
            for name in ("warm_ms", "first_s")
        )
        found = Measured(int(each["parameters"]), warm, first)
        models.setdefault(each["precision"], []).append(found)
    return SpeedTable(listed["measured"], listed["machine"], models)


def _by_memory(times: Mapping[int, float], memory: int) -> float:
    """The time at a memory: between measured ones it is linear in the inverse of the memory."""
    sizes = sorted(times)
    if memory >= sizes[-1]:
        return times[sizes[-1]]
    if memory <= sizes[0]:
        return times[sizes[0]] * sizes[0] / memory
    above = next(size for size in sizes if size > memory)
    below = max(size for size in sizes if size <= memory)
    share = (1 / memory - 1 / above) / (1 / below - 1 / above)
    return times[above] + share * (times[below] - times[above])


def _by_parameters(times: Sequence[tuple[int, float]], parameters: int) -> float:
    """The time of a model with so many parameters; ``times`` are in order."""
    (small, quick), (large, slow) = times[0], times[-1]
    if parameters <= small:
        return quick
    if parameters >= large:
        return slow * parameters / large
    for (one, first), (other, second) in pairwise(times):
        if one <= parameters <= other:
            return first + (second - first) * (parameters - one) / (other - one)
    raise AssertionError(parameters)

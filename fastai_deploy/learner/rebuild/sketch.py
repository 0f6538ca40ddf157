"""A model on torch's meta device, with shapes but no memory, built before the real one.

    sketched      what the configuration builds, in as many steps as the file's weights can need
    check_total   the size of the whole model, against that of the file's weights
    check_shared  the same for a model built directly from the weights

What is built afterwards is then no larger than the weights that were read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import initialization

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.examine.architecture import numbers, shown
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.reading.tensors import Tensor

# Calls of torch functions while building a model; the architectures in the tests make 2 to 5 per
# weight.
_CALLS = 2_000
_CALLS_PER_WEIGHT = 50
# Numbers in a model that no file stores, such as masks and tables of positions.
_COMPUTED = 16 << 20
_MOST_WEIGHTS = 4_096  # DeBERTa's largest has 800
_SPARE = 1 << 16  # additional numbers, for tiny models whose weights have several names
_TIED = 4  # names of one weight in the file that may be separate weights in the model

Made = TypeVar("Made", bound=nn.Module)


def sketched(
    build: Callable[[], Made], config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> Made:
    """The result of ``build``, without memory for its tensors and without initialising them.

    Raises UnsupportedLearner for a model with more parts than the weights allow, and whatever
    ``build`` raises.
    """
    calls = _Calls(_CALLS + _CALLS_PER_WEIGHT * len(weights))
    try:
        with (
            initialization.no_init_weights(),
            initialization.meta_device_safe_creation_ops(),
            torch.device("meta"),
            calls,
        ):
            return build()
    except _TooMany as error:
        claimed = sorted(numbers(config), key=lambda found: -abs(found[1]))[:3]
        message = ", ".join(f"{name} = {shown(number)}" for name, number in claimed)
        raise UnsupportedLearner(
            f"the configuration ({message}) builds a model of far more parts than the "
            f"{len(weights):,} weights in the file",
            hint=RUNTIME,
        ) from error


class _TooMany(BaseException):
    """More calls than any model of these weights; a BaseException, so libraries do not catch it."""


class _Calls(TorchFunctionMode):
    """Counts the calls of torch functions in this thread."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self._left = left

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self._left -= 1
        if self._left < 0:
            raise _TooMany
        return func(*args, **(kwargs or {}))


def check_total(sketch: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise UnsupportedLearner for a model with far more numbers than the file holds."""
    wanted = sum(each.numel() for each in chain(sketch.parameters(), sketch.buffers()))
    _check(wanted, weights, _COMPUTED, "the configuration builds a model")


def check_shared(weights: Mapping[str, Tensor]) -> None:
    """Raise UnsupportedLearner for too many weights, or for weights that share their numbers."""
    if len(weights) > _MOST_WEIGHTS:
        raise UnsupportedLearner(
            f"the learner has {len(weights):,} weights, more than any model that fdeploy rebuilds",
            hint=RUNTIME,
        )
    wanted = sum(tensor.count for tensor in weights.values())
    _check(wanted, weights, _SPARE, "the weights build a model")


def _check(wanted: int, weights: Mapping[str, Tensor], spare: int, message: str) -> None:
    stored: dict[int, int] = {}
    for tensor in weights.values():
        place = id(tensor.storage.data)
        stored[place] = max(stored.get(place, 0), tensor.storage.count)
    held = sum(stored.values())
    if wanted > _TIED * held + spare:
        raise UnsupportedLearner(
            f"{message} of {wanted:,} numbers, but the file holds {held:,}", hint=RUNTIME
        )

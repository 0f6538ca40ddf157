"""A configuration's whole numbers, compared with the weights in the file.

A file of 100 kB may claim a million layers, or a layer of a million terabytes. What its weights
leave no room for is refused here, before a library is even imported; ``rebuilding/sketch.py``
compares every shape before anything of that size is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.reading.tensors import Tensor
from fastai_deploy.learner.verdict import RUNTIME

# By its name, what a whole number may be where no dimension of a weight is as large. Parts that are
# repeated may share their weights (ALBERT), so that only their number is bounded; texts are as long
# as a table of positions, where the weights have one.
_REPEATED = re.compile(r"layers?$|blocks$|depths?$|iterations$|loops$|repeats$|hashes$")
_MOST_REPEATED = 64
_WINDOW = re.compile(r"attention_window$")
_LARGEST_WINDOW = 4_096  # tokens; texts are padded to it
_POSITIONS = re.compile(r"position|n_ctx$|seq_len|max_len|sliding_window$")
_MOST_IN_A_TABLE = 4_096
_MOST_POSITIONS = 1 << 20
_SIZE = re.compile(r"(size|dim|d_model|d_ff|d_inner|d_kv|n_embd|n_inner|heads?|groups|experts)$")
_LARGEST_SIZE = 1_024
_HARMLESS = re.compile(r"theta$")  # the base of rotary positions
_LARGEST_OTHER = 1 << 16  # the id of a token, say

_SHOWN = 10**15  # a number above this is told by its digits


def check_numbers(config: Mapping[str, Any], weights: Mapping[str, Tensor], *, every: bool) -> None:
    """Raise UnsupportedLearner for a whole number that the weights leave no room for.

    Without ``every``, only for one whose name says that it is a size: the rest may be anything that
    a user noted, until it is known what the architecture reads.
    """
    largest = max((size for tensor in weights.values() for size in tensor.shape), default=0)
    table = any("position" in name for name in weights)
    for name, number in numbers(config):
        limit = _limit(name.rsplit(".", 1)[-1], len(weights), largest, table=table, every=every)
        if limit is not None and abs(number) > limit:
            raise UnsupportedLearner(
                f"the learner's configuration says {name} = {shown(number)}, but the file holds "
                f"{len(weights):,} weights, whose largest dimension is {largest:,}",
                hint=RUNTIME,
            )


def _limit(name: str, count: int, largest: int, *, table: bool, every: bool) -> int | None:
    """The largest that a number of this name may be; None for any."""
    if _HARMLESS.search(name):
        return None
    if _REPEATED.search(name):
        return max(_MOST_REPEATED, count)
    if _WINDOW.search(name):
        return _LARGEST_WINDOW
    if _POSITIONS.search(name):
        return max(largest, _MOST_IN_A_TABLE if table else _MOST_POSITIONS)
    if _SIZE.search(name):
        return max(largest, _LARGEST_SIZE)
    return max(largest, _LARGEST_OTHER) if every else None


def numbers(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration by their names, at any depth; reading has bounded it."""
    for key, value in config.items():
        name = f"{path}.{key}"[:200] if path else str(key)[:200]
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, Mapping):
                yield from numbers(each, name)
            elif isinstance(each, list):
                yield from numbers({str(place): item for place, item in enumerate(each)}, name)
            elif isinstance(each, int) and not isinstance(each, bool):
                yield name, each


def shown(number: int) -> str:
    """A number in full, or how long it is."""
    return f"{number:,}" if abs(number) < _SHOWN else f"a number of {len(str(number))} digits"

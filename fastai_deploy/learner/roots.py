"""Telling a learner from everything else that a pickle may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastai_deploy.errors import NotALearner
from fastai_deploy.learner.modules import is_module
from fastai_deploy.learner.reading.values import Call, Global, Mapping
from fastai_deploy.learner.reading.views import (
    attributes,
    class_of,
    elements,
    entries,
    named_entries,
)

EXPORT = "call learn.export() on the trained learner and name the .pkl file that it writes"
_SHOWN = 5  # keys of a dictionary that a message names
_V1_KEYS = frozenset({"model", "data", "cls"})


@dataclass(frozen=True, eq=False, repr=False)
class Root:
    """A learner: fastai's major version, its class, its model, its loss, and its data pipeline.

    ``node`` is its place in the graph. ``data`` is the dict that v1 calls ``data``, or the
    ``DataLoaders`` of v2; ``callbacks`` the list of v2, or the dict of v1 from the class of each to
    its state.
    """

    node: object
    major: Literal[1, 2]
    cls: Global | None
    model: object
    loss: object
    data: object
    callbacks: object = None


def find_learner(value: object) -> Root:
    """The learner that a pickle holds. Raises NotALearner, saying what it holds instead."""
    root = _as_learner(value)
    if root is None:
        raise NotALearner(f"no fastai learner is in the file: {_describe(value)}", hint=EXPORT)
    if not is_module(root.model):
        raise NotALearner("the learner in the file has no model", hint=EXPORT)
    return root


def _as_learner(value: object) -> Root | None:
    if isinstance(value, Mapping):
        parts = named_entries(value)
        if parts.keys() >= _V1_KEYS:
            cls = parts["cls"]
            return Root(
                value, 1, cls if isinstance(cls, Global) else None, parts["model"],
                parts.get("loss_func"), parts["data"], parts.get("cb_state"),
            )  # fmt: skip
    if isinstance(value, Call):
        own = attributes(value)
        if "dls" in own and ("model" in own or "loss_func" in own):
            return Root(
                value, 2, class_of(value), own.get("model"), own.get("loss_func"), own["dls"],
                own.get("cbs"),
            )  # fmt: skip
    return None


def _describe(value: object) -> str:
    """What the pickle holds, in words that help to find the right file."""
    names = list(named_entries(value))
    within = [*elements(value), *(item for _, item in entries(value))]
    cls = class_of(value)
    if is_module(value):
        return f"it is a bare model ({cls}), without tokenizer and labels"
    if any(_as_learner(item) is not None for item in within):
        return "it is a collection that holds learners; export each to a file of its own"
    if {"model", "opt"} <= set(names):
        return "it is a checkpoint of weights, as learn.save() writes it"
    if {"state_dict", "model_state_dict"} & set(names):
        return "it is a training checkpoint"
    if any(name.split(".")[-1] in ("weight", "bias") for name in names):
        return "it is a checkpoint of weights (a state_dict)"
    return f"it is {_named(cls, value, names)}"


def _named(cls: Global | None, value: object, names: list[str]) -> str:
    if isinstance(value, Mapping):
        shown = ", ".join(sorted(names)[:_SHOWN])
        return f"a dictionary{f' with the keys {shown}' if shown else ''}"
    if isinstance(value, Global):
        return f"only the name {value}"
    return f"an object of the class {cls}" if cls else f"a {type(value).__name__.lower()}"

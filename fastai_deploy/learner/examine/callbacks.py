"""The user's callbacks in a learner: code that runs when the learner predicts.

A conversion leaves them out, so each must either change nothing or only take the scores out of the
transformer's output. cloudpickle stores the code of some of them in the file (fastai 2.8.1 and
later, classes of ``__main__``); that code is interpreted, and never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from fastai_deploy.learner.examine.imports import is_users_own
from fastai_deploy.learner.examine.modules import Root
from fastai_deploy.learner.examine.unproven import Unproven
from fastai_deploy.learner.reading.graph import (
    attributes,
    class_name,
    class_of,
    elements,
    entries,
)
from fastai_deploy.learner.user_code.callback_code import CallbackSemantics
from fastai_deploy.learner.user_code.interpreter import NotUnderstood, settled
from fastai_deploy.learner.user_code.objects import Objects
from fastai_deploy.learner.user_code.values import Value

Effect = Literal["none", "takes the scores out", "unknown", "unseen"]

MOST = 100  # callbacks that are examined
_UNSEEN = (
    "its code is not in the file; it is assumed to change no answer, other than taking the scores "
    "out of the model's output"
)


@dataclass(frozen=True)
class Callback:
    """A user's callback.

    ``in_file``: whether the file holds its code; ``events`` are the prediction events that it
    handles, as far as the file shows. ``unproven`` says what is not known about it.
    """

    cls: str
    in_file: bool
    events: tuple[str, ...]
    effect: Effect
    unproven: Unproven | None = None


def find_callbacks(
    root: Root, objects: Objects, transformer: CallbackSemantics, pred: Value
) -> tuple[Callback, ...]:
    """The user's callbacks, in the order in which they run; those of libraries are left out.

    ``transformer`` interprets code around the learner's transformer, whose answer is ``pred``.
    """
    if root.major == 1:
        return tuple(_first(root))
    found: list[Callback] = []
    for node in sorted(islice(elements(root.callbacks), MOST), key=_order):
        cls = class_of(node)
        if not is_users_own(cls):
            continue
        callback, pred = _follow(node, str(cls), objects, transformer, pred)
        found.append(callback)
    return tuple(found)


def unproven(callbacks: Iterable[Callback]) -> tuple[Unproven, ...]:
    """What is not known about the callbacks."""
    return tuple(each.unproven for each in callbacks if each.unproven is not None)


def _first(root: Root) -> Iterator[Callback]:
    """Callbacks of fastai 1: ``load_learner`` recreates them from saved state, without code."""
    for cls, _ in islice(entries(root.callbacks), MOST):
        name = class_name(cls)
        if is_users_own(name):
            yield _unseen(str(name))


def _unseen(cls: str) -> Callback:
    unknown = Unproven(f"the callback {cls}", _UNSEEN, part="answer")
    return Callback(cls, in_file=False, events=(), effect="unseen", unproven=unknown)


def _follow(
    node: object, cls: str, objects: Objects, transformer: CallbackSemantics, pred: Value
) -> tuple[Callback, Value]:
    lineage = objects.lineage(objects.class_of(node))
    users = [each for each in lineage if _is_users(each)]
    if not users or any(objects.body(each) is None for each in users):
        return _unseen(cls), pred
    events: tuple[str, ...] = ()
    try:
        events = transformer.events(node)
        after = settled(objects.versions, lambda version: transformer.run(node, version, pred))
    except NotUnderstood as error:
        unknown = Unproven(f"the callback {cls}", error.reason, error.code, part="answer")
        return Callback(cls, in_file=True, events=events, effect="unknown", unproven=unknown), pred
    effect: Effect = "none" if after == pred else "takes the scores out"
    return Callback(cls, in_file=True, events=events, effect=effect), after


def _is_users(cls: object) -> bool:
    name = class_name(cls)
    return name is None or is_users_own(name)


def _order(callback: object) -> float:
    order = attributes(callback).get("order")
    return float(order) if isinstance(order, (int, float)) else 0.0

"""The callbacks in a learner: code of the user's that runs beside the model when it predicts.

A conversion leaves them out, so that each must either change nothing or be shown by the learner's
own answers to do what is done here. Their code is in the file where cloudpickle stored it by value
(fastai 2.8.1 and later, classes of ``__main__``); its tables are looked at, and it is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from fastai_deploy.learner.embedded import MAX_NAMES, Code, class_bodies, names_within, read_code
from fastai_deploy.learner.globals import kind_of
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import (
    MAKE_CLASS,
    attributes,
    class_name,
    class_of,
    elements,
    entries,
    lookup,
    named_entries,
)
from fastai_deploy.learner.roots import Root
from fastai_deploy.learner.words import words

Effect = Literal["none", "takes the scores out", "may change inputs", "may change scores", "unseen"]

MOST = 100  # callbacks, classes of one and functions of one that are looked at
MOST_FUNCTIONS = 500  # of all callbacks together
# What happens while fastai 2 predicts; those of the second row by the names of its first months.
OUTER = words("before_validate after_validate after_cancel_validate begin_validate")
INNER = words(
    "before_batch after_pred after_loss after_batch after_cancel_batch begin_batch __call__"
)
# Parts of the learner that an answer is made from.
SCORES = words("pred preds logits model loss_func activation setattr __dict__ vars")
INPUTS = words("xb x dl dls one_batch learn")
# ``self.learn.pred = self.pred[0]`` and its like (``.logits``), as instructions of Python 3.8 to
# 3.12, and of 3.13.
_TAKES = re.compile(
    rb"\x97?\x7c\x6a{1,3}(\x64\x19)?\x7c\x6a\x5f(\x64\x53|\x79)"
    rb"|\x95\x55\x52{1,3}(\x53\x05)?\x55\x52\x6c\x67",
    re.DOTALL,
)
_TAKES_NAMES = words("self learn pred logits kwargs args")
_WORST: tuple[Effect, ...] = (
    "may change scores", "unseen", "may change inputs", "takes the scores out", "none",
)  # fmt: skip


@dataclass(frozen=True)
class Callback:
    """A callback of the user's.

    ``in_file``: whether its code is; ``events`` are those at which it runs while the learner
    predicts, as far as the file shows; ``effect`` is the gravest that its code could have.
    """

    cls: str
    in_file: bool
    events: tuple[str, ...]
    effect: Effect

    @property
    def note(self) -> str:
        """What a conversion takes for granted about it, as a clause; empty where nothing is."""
        if self.effect == "unseen":
            return (
                "its code is not in the file; it is taken to change no answer beyond taking the "
                "scores out of what the model gives"
            )
        if self.effect in ("may change inputs", "may change scores"):
            return f"it could change answers ({', '.join(self.events)}); it is left out here"
        return ""


def find_callbacks(root: Root, calls: Iterable[Call]) -> tuple[Callback, ...]:
    """The callbacks of the user's, in the learner's order; those of the libraries are left out."""
    if root.major == 1:
        return tuple(_first(root))
    look = _Look(tuple(calls))
    found = (look.callback(node) for node in islice(elements(root.callbacks), MOST))
    return tuple(each for each in found if each is not None)


def _first(root: Root) -> Iterator[Callback]:
    """Of fastai 1, whose ``load_learner`` makes those whose state was saved; their code is not."""
    for cls, _ in islice(entries(root.callbacks), MOST):
        name = class_name(cls)
        if name is not None and kind_of(name) == "user":
            yield Callback(str(name), in_file=False, events=(), effect="unseen")


class _Look:
    """What the file shows of classes and functions stored by value."""

    def __init__(self, calls: tuple[Call, ...]) -> None:
        self._left = MOST_FUNCTIONS
        self._bodies = class_bodies(calls)
        self._around = {
            id(call.args[0]): call.args[1]
            for call in calls
            if isinstance(call.func, Global)
            and call.func.name == "_function_setstate"
            and len(call.args) > 1
        }

    def callback(self, node: object) -> Callback | None:
        """A callback of the user's; None for one of a library."""
        name = class_of(node)
        if not isinstance(node, Call) or name is None or kind_of(name) != "user":
            return None
        cls = node.func if class_name(node.func) == name else node.args[0]
        lineage = self._lineage(cls)
        bodies = [self._bodies[id(each)] for each in lineage if id(each) in self._bodies]
        unseen = any(isinstance(each, Global) and kind_of(each) == "user" for each in lineage)
        own = attributes(node)
        effects: list[Effect] = ["unseen"] if unseen or not bodies else []
        events = [] if own.get("run") is False else sorted(_events(bodies))
        effects += [
            self._effect(body[event]) for event in events for body in bodies if event in body
        ]
        worst: Effect = next((each for each in _WORST if each in effects), "none")
        return Callback(str(name), bool(bodies) and not unseen, tuple(events), worst)

    def _lineage(self, cls: object) -> list[object]:
        """The class and all it is derived from, as far as the file shows."""
        found: list[object] = []
        waiting = [cls]
        while waiting and len(found) < MOST:
            each = waiting.pop(0)
            found.append(each)
            match each:
                case Call(func=Global(name=made), args=(_, _, tuple() as bases, *_)):
                    if made in MAKE_CLASS:
                        waiting.extend(bases[:MOST])
        return found

    def _effect(self, method: object) -> Effect:
        codes, within, hidden = self._reachable(method)
        if not codes:
            return "unseen"
        if len(codes) == 1 and _takes_scores_out(codes[0]):
            return "takes the scores out"
        named = within.union(*(each.names | each.texts | each.keywords for each in codes))
        if named & SCORES:
            return "may change scores"
        if hidden:
            return "unseen"
        return "may change inputs" if named & INPUTS else "none"

    def _reachable(self, method: object) -> tuple[list[Code], frozenset[str], bool]:
        """The code of a method and of what it calls by name; whether some is not in the file.

        Between the two: the names in functions within them.
        """
        codes: list[Code] = []
        within: set[str] = set()
        hidden, seen, waiting = False, set[int](), [method]
        while waiting and len(seen) < MOST and self._left > 0:
            each = waiting.pop()
            if id(each) in seen:
                continue
            self._left -= 1
            seen.add(id(each))
            code = read_code(each)
            if code is not None:
                codes.append(code)
                within |= names_within(each)
                waiting.extend(_names_around(self._around.get(id(each))))
            elif isinstance(each, Global):
                hidden = hidden or kind_of(each) == "user"
            elif isinstance(each, Call) and class_name(each) is not None:
                waiting.extend(self._bodies.get(id(each), {}).values())
        return codes, frozenset(within), hidden or bool(waiting)


def _names_around(state: object) -> Iterator[object]:
    """What a function stored by value finds under global names and in its closure."""
    slots = state[1] if isinstance(state, tuple) and len(state) == 2 else state  # noqa: PLR2004 - attributes and slots
    yield from named_entries(lookup(slots, "__globals__")).values()
    closure = lookup(slots, "__closure__")
    for cell in closure[:MAX_NAMES] if isinstance(closure, tuple) else ():
        yield from cell.args[:1] if isinstance(cell, Call) else ()


def _events(bodies: Iterable[Mapping[str, object]]) -> set[str]:
    """The events of a prediction for which the classes have a method."""
    named = {name: value for body in reversed(list(bodies)) for name, value in body.items()}
    inner = frozenset() if named.get("run_valid") is False else INNER
    return {name for name in named if name in OUTER | inner}


def _takes_scores_out(code: Code) -> bool:
    return (
        _TAKES.fullmatch(code.operations) is not None
        and set(code.numbers) <= {0}
        and code.names <= _TAKES_NAMES
        and {"learn", "pred"} <= code.names
    )

"""What the user's callbacks do while a learner predicts, event by event.

    ids -> before_batch -> (model) -> output -> after_pred -> scores -> after_batch

A callback may count, log and store anything on itself. On the learner, it may only set the inputs
to what they are already, and take the scores out of the transformer's output.
"""

from __future__ import annotations

from typing import Final

from fastai_deploy.learner.examine.imports import is_users_own, name_set
from fastai_deploy.learner.examine.modules import is_module
from fastai_deploy.learner.reading.graph import (
    Call,
    Mapping,
    Sequence,
    attributes,
    class_name,
    class_of,
)
from fastai_deploy.learner.user_code.bytecode import Version
from fastai_deploy.learner.user_code.interpreter import NotUnderstood
from fastai_deploy.learner.user_code.model_code import ModelSemantics
from fastai_deploy.learner.user_code.objects import PLAIN_DUNDERS
from fastai_deploy.learner.user_code.values import (
    MAX_TEXT,
    REMEMBERED,
    Function,
    Held,
    Items,
    Method,
    Term,
    Unknown,
    Value,
    argument_text,
    const,
    items_of,
)

# The events of ``learn.predict`` in fastai 2, including the names of its first months.
OUTER: Final = (
    "before_fit", "begin_fit", "before_epoch", "begin_epoch", "before_validate", "begin_validate",
    "after_cancel_validate", "after_validate", "after_epoch", "after_fit",
)  # fmt: skip
INNER: Final = (
    "before_batch", "begin_batch", "after_pred", "after_loss", "after_cancel_batch", "after_batch",
)  # fmt: skip
_CHANGES_OWN: Final = name_set("append extend add update clear pop insert setdefault appendleft")
_SCORES: Final = name_set("pred preds logits model loss_func")


class CallbackSemantics(ModelSemantics):
    """What a callback may do; ``pred`` is the current state of the model's answer."""

    pred: Value = Term("output")
    _callback: object = None

    def run(self, callback: object, version: Version, pred: Value) -> Value:
        """What becomes of ``pred``, the model's answer, after a callback's events have run.

        Raises NotUnderstood and InvalidBytecode.
        """
        self.pred, self._callback = pred, callback
        owner = Held(callback, text="self")
        for event in self.events(callback):
            defined = self.objects.defined(callback, event)
            function = self.method_of(owner, defined[1]) if defined is not None else None
            if not isinstance(function, Function):
                raise NotUnderstood(f"its {event} is not a function of its class")
            self._interpreter = self.interpreter(version)
            self._interpreter.call(function, ())
        return self.pred

    def events(self, callback: object) -> tuple[str, ...]:
        """The events of a prediction that a callback handles. Raises NotUnderstood."""
        own = attributes(callback)
        if own.get("run") is False:
            return ()
        lineage = self.objects.lineage(self.objects.class_of(callback))
        for cls in lineage:
            name = class_name(cls)
            body = self.objects.body(cls)
            if body is None and is_users_own(name):
                raise NotUnderstood(f"the code of {name} is not in the file")
            for each in body or ():
                if each.startswith("__") and each.endswith("__") and each not in PLAIN_DUNDERS:
                    raise NotUnderstood(f"its class defines {each}")
        if not lineage or self.objects.body(lineage[0]) is None:
            raise NotUnderstood("its code is not in the file")
        if any(name in own for name in (*OUTER, *INNER)):
            raise NotUnderstood("it stores the method of an event in the object itself")
        validates = self._run_valid(callback)
        possible = (*OUTER[:6], *(INNER if validates else ()), *OUTER[6:])
        return tuple(each for each in possible if self.objects.defined(callback, each) is not None)

    def _run_valid(self, callback: object) -> bool:
        own = attributes(callback)
        if "run_valid" in own:
            return own["run_valid"] is not False
        defined = self.objects.defined(callback, "run_valid")
        return defined is None or defined[1] is not False

    def held_attribute(self, owner: Held, name: str) -> Value:
        """As for any object; what a callback does not have, it looks up on its learner."""
        if owner.node is self._callback:
            if name == "learn":
                return Term("learner")
            known = name in attributes(owner.node) or name in self.volatile(owner.node)
            if not known and self.objects.defined(owner.node, name) is None and name != "training":
                return self._of_learner(name)
        return super().held_attribute(owner, name)

    def _of_learner(self, name: str) -> Value:
        if name in ("pred", "preds"):
            return self.pred
        if name in ("xb", "x"):
            ids = Term("ids", text="ids")
            return ids if name == "x" else items_of("tuple", [ids])
        if name == "training":
            return const(value=False)
        return self._unknown_of_learner(name)

    def _unknown_of_learner(self, name: str) -> Term:
        if len(name) > MAX_TEXT:
            raise NotUnderstood("it reads an attribute of an attribute of the learner")
        return Term("of the learner", name)

    def attribute(self, owner: Value, name: str) -> Value:
        """As for any value; for the learner, what is known about a prediction."""
        if owner == Term("learner"):
            return self._of_learner(name)
        if isinstance(owner, Term) and owner.role == "of the learner":
            return self._unknown_of_learner(f"{owner.data}.{name}")
        return super().attribute(owner, name)

    def store(self, owner: Value, name: str, value: Value, *, own: bool) -> None:
        """A callback may set anything on itself, and on the learner nothing but the above."""
        if own and isinstance(owner, Held) and self._is_note(owner.node, name):
            return
        if owner != Term("learner"):
            super().store(owner, name, value, own=own)
        elif name == "pred" and self._is_pred(value):
            self.pred = value
        elif name != "xb" or not isinstance(value, Items) or value.items != (Term("ids"),):
            changed = "the scores" if name in _SCORES else f"the learner's {name}"
            shown = f"self.learn.{name} = {argument_text(value)}"
            raise NotUnderstood(f"it changes {changed}", shown)

    def _is_note(self, node: object, name: str) -> bool:
        return not is_module(node) and name in self.volatile(node)

    def _is_pred(self, value: Value) -> bool:
        if value == self.pred:
            return True
        if not isinstance(self.pred, Term) or not isinstance(value, Term):
            return False
        return self.pred.role == "output" and value == Term("scores", self.pred.data)

    def store_item(self, owner: Value, key: Value, value: Value) -> None:
        """Setting an item in one of the callback's own containers."""
        if not self._is_own(owner):
            super().store_item(owner, key, value)

    def _is_own(self, owner: Value) -> bool:
        if isinstance(owner, Unknown):
            return owner.reason == REMEMBERED
        node = owner.node if isinstance(owner, Held) else None
        if isinstance(node, Call):
            cls = class_of(node)
            return cls is not None and str(cls) in (
                "collections.defaultdict", "collections.OrderedDict", "collections.Counter",
                "collections.deque", "fastcore.foundation.L",
            )  # fmt: skip
        return isinstance(node, (Mapping, Sequence))

    def method_call(
        self, method: Method, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """Also methods that change one of the callback's own containers."""
        if method.name in _CHANGES_OWN and self._is_own(method.owner):
            return Unknown("it records something")
        return super().method_call(method, args, keywords)

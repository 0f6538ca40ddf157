"""What the user's callbacks do while a learner predicts: its events, and the scores between them.

A callback may count, log and keep what it likes on itself. Of the learner it may set the inputs to
what they are, and take the scores out of the transformer's output.
"""

from __future__ import annotations

from typing import Final

from fastai_deploy.learner.code.bytecode import Version
from fastai_deploy.learner.code.interpreter import Interpreter, NotUnderstood
from fastai_deploy.learner.code.model_code import ModelSemantics
from fastai_deploy.learner.code.objects import PLAIN_DUNDERS
from fastai_deploy.learner.code.values import (
    Const,
    Function,
    Held,
    Items,
    Method,
    Term,
    Unknown,
    Value,
)
from fastai_deploy.learner.globals import kind_of
from fastai_deploy.learner.modules import is_module
from fastai_deploy.learner.reading.values import Call, Mapping, Sequence
from fastai_deploy.learner.reading.views import attributes, class_name, class_of
from fastai_deploy.learner.words import words

# The events of ``learn.predict`` in fastai 2, with the names of its first months.
OUTER: Final = (
    "before_fit", "begin_fit", "before_epoch", "begin_epoch", "before_validate", "begin_validate",
    "after_cancel_validate", "after_validate", "after_epoch", "after_fit",
)  # fmt: skip
INNER: Final = (
    "before_batch", "begin_batch", "after_pred", "after_loss", "after_cancel_batch", "after_batch",
)  # fmt: skip
_CHANGES_OWN: Final = words("append extend add update clear pop insert setdefault appendleft")
_SCORES: Final = words("pred preds logits model loss_func")


class CallbackSemantics(ModelSemantics):
    """What a callback may do; ``pred`` is what the model answers, and later what is left of it."""

    pred: Value = Term("output")

    def run(self, callback: object, version: Version, pred: Value) -> Value:
        """What is left of ``pred``, the model's answer, when a callback's events have run.

        Raises NotUnderstood and InvalidBytecode.
        """
        self.pred = pred
        owner = Held(callback, text="self")
        for event in self.events(callback):
            defined = self.objects.defined(callback, event)
            function = self._defined(owner, defined[1]) if defined is not None else None
            if not isinstance(function, Function):
                raise NotUnderstood(f"its {event} is no function of its class")
            Interpreter(self, version).call(function, ())
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
            if body is None and name is not None and kind_of(name) == "user":
                raise NotUnderstood(f"the code of {name} is not in the file")
            for each in body or ():
                if each.startswith("__") and each.endswith("__") and each not in PLAIN_DUNDERS:
                    raise NotUnderstood(f"its class defines {each}")
        if not lineage or self.objects.body(lineage[0]) is None:
            raise NotUnderstood("its code is not in the file")
        if any(name in own for name in (*OUTER, *INNER)):
            raise NotUnderstood("it has an event of its own")
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
        """As for any object; what a callback does not have, it asks its learner for."""
        if owner.text == "self" and not is_module(owner.node):
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
            return ids if name == "x" else Items("tuple", (ids,))
        if name == "training":
            return Const(value=False, kind=bool, text="False")
        return Term("of the learner", name)

    def attribute(self, owner: Value, name: str) -> Value:
        """As of any value; of the learner, what is known of a prediction."""
        if owner == Term("learner"):
            return self._of_learner(name)
        if isinstance(owner, Term) and owner.role == "of the learner":
            return Term("of the learner", f"{owner.data}.{name}")
        return super().attribute(owner, name)

    def store(self, owner: Value, name: str, value: Value) -> None:
        """A callback may set what it likes on itself, and of the learner nothing but the above."""
        if isinstance(owner, Held) and owner.text == "self" and not is_module(owner.node):
            if name in self.volatile(owner.node):
                return
        if owner == Term("learner"):
            if name == "pred" and self._is_pred(value):
                self.pred = value
                return
            if name == "xb" and isinstance(value, Items) and value.items == (Term("ids"),):
                return
            reason = (
                "it changes the scores" if name in _SCORES else f"it changes the learner's {name}"
            )
            raise NotUnderstood(reason, f"self.learn.{name} = {value.text}")
        super().store(owner, name, value)

    def _is_pred(self, value: Value) -> bool:
        if value == self.pred:
            return True
        if not isinstance(self.pred, Term) or not isinstance(value, Term):
            return False
        return self.pred.role == "output" and value == Term("scores", self.pred.data)

    def store_item(self, owner: Value, key: Value, value: Value) -> None:
        """In a container of its own."""
        if not self._is_own(owner):
            super().store_item(owner, key, value)

    def _is_own(self, owner: Value) -> bool:
        if isinstance(owner, Unknown):
            return owner.reason == "it reads what an earlier answer left"
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
        """Methods that change a container of the callback's own, too."""
        if method.name in _CHANGES_OWN and self._is_own(method.owner):
            return Unknown("it changes its own notes")
        if method.name == "append" and isinstance(method.owner, Items):
            raise NotUnderstood("it changes a list")
        return super().method_call(method, args, keywords)

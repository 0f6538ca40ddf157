"""How a user's loss turns scores into probabilities, and probabilities into labels.

fastai 2 asks the loss: ``activation(scores)``, then ``decodes(probabilities)``.
"""

from __future__ import annotations

from typing import Final, Literal

from fastai_deploy.learner.reading.graph import attributes
from fastai_deploy.learner.user_code.bytecode import Version
from fastai_deploy.learner.user_code.interpreter import NotUnderstood
from fastai_deploy.learner.user_code.objects import Objects
from fastai_deploy.learner.user_code.semantics import BaseSemantics
from fastai_deploy.learner.user_code.values import (
    Const,
    Function,
    Held,
    Method,
    Term,
    Unknown,
    Value,
)

Activation = Literal["softmax", "sigmoid", "none"]

_LAST: Final = (-1, 1)  # the dimension of the labels; scores are (batch, labels)
_SIGMOIDS: Final = frozenset(
    {"torch.sigmoid", "torch.nn.functional.sigmoid", "torch.special.expit"}
)
_SOFTMAXES: Final = frozenset({"torch.softmax", "torch.nn.functional.softmax"})
_SAME: Final = frozenset({"contiguous", "clone", "detach", "float", "double", "cpu"})


class LossSemantics(BaseSemantics):
    """What ``activation`` and ``decodes`` may do."""

    def __init__(self, objects: Objects, version: Version) -> None:
        super().__init__(objects)
        self._version = version
        self._loss: object = None

    def activation(self, loss: object, method: object) -> Activation:
        """The activation that ``activation()`` applies. Raises NotUnderstood, InvalidBytecode."""
        found = self._follow(loss, method, Term("scores"))
        match found:
            case Term(role="scores"):
                return "none"
            case Term(role="softmax" | "sigmoid" as role):
                return "softmax" if role == "softmax" else "sigmoid"
        raise _not_known(found)

    def check_decodes(self, loss: object, method: object) -> None:
        """Raise NotUnderstood unless ``decodes()`` gives the best label, or those above thresh."""
        found = self._follow(loss, method, Term("scores"))
        if not isinstance(found, Term) or found.role not in ("best", "above"):
            raise _not_known(found)

    def _follow(self, loss: object, method: object, value: Value) -> Value:
        self._loss = loss
        function = self.method_of(Held(loss, text="self"), method)
        if not isinstance(function, Function):
            return self.call(function, (value,), {})
        return self.interpreter(self._version).call(function, (value,))

    def held_attribute(self, owner: Held, name: str) -> Value:
        """As for any object; also the loss's threshold, which is read from the file elsewhere."""
        found = super().held_attribute(owner, name)
        if owner.node is self._loss and name == "thresh" and name in attributes(owner.node):
            return Term("threshold") if isinstance(found, Const) and found.kind is float else found
        return found

    def library_call(
        self, name: str, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """Softmax and sigmoid as functions."""
        first = args[0] if args else keywords.get("input", keywords.get("x"))
        if isinstance(first, Term) and first.role == "scores":
            found = _made(name, args[1:], keywords)
            if found is not None:
                return found
        return super().library_call(name, args, keywords)

    def method_call(
        self, method: Method, args: tuple[Value, ...], keywords: dict[str, Value]
    ) -> Value | None:
        """softmax, sigmoid and argmax as methods."""
        owner, name = method.owner, method.name
        if isinstance(owner, Term) and owner.role == "scores":
            if name in _SAME and not args:
                return owner
            found = _made(f"torch.{name}", args, keywords)
            if found is not None:
                return found
        return super().method_call(method, args, keywords)

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        """The labels above the threshold."""
        if (operator, left, right) == (">", Term("scores"), Term("threshold")):
            return Term("above")
        return super().binary(operator, left, right)


def _made(name: str, args: tuple[Value, ...], keywords: dict[str, Value]) -> Value | None:
    """The result of a function with a torch name on scores; None for one that is not known."""
    if set(keywords) - {"dim", "axis", "input"}:
        return None
    dim = args[0] if args else keywords.get("dim", keywords.get("axis"))
    last = isinstance(dim, Const) and dim.value in _LAST and dim.kind is int and len(args) <= 1
    if name in _SOFTMAXES and last:
        return Term("softmax")
    if name in _SIGMOIDS and not args and not set(keywords) - {"input"}:
        return Term("sigmoid")
    return Term("best") if name == "torch.argmax" and last else None


def _not_known(found: Value) -> NotUnderstood:
    """The error for a result that is neither probabilities nor labels."""
    reason = found.reason if isinstance(found, Unknown) else "it returns something else"
    return NotUnderstood(reason, f"return {found.text}")

"""What a loss says about a learner's answers: how its outputs become probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fastai_deploy.learner.code.follow import follow_loss
from fastai_deploy.learner.code.objects import Objects
from fastai_deploy.learner.labels import Targets
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import attribute, class_of
from fastai_deploy.learner.unproven import Unproven
from fastai_deploy.learner.words import words

Activation = Literal["softmax", "sigmoid", "none", "unknown"]

# fastai 1 looks the name of the loss up in a table; a loss that is not in it gets no activation.
_V1: dict[str, Activation] = {
    "CrossEntropyLoss": "softmax",
    "cross_entropy": "softmax",
    "BCEWithLogitsLoss": "sigmoid",
    "binary_cross_entropy_with_logits": "sigmoid",
}
# fastai 2 asks the loss itself.
_V2: dict[str, Activation] = {
    "CrossEntropyLossFlat": "softmax",
    "LabelSmoothingCrossEntropyFlat": "softmax",
    "LabelSmoothingCrossEntropy": "softmax",
    "FocalLossFlat": "softmax",
    "BCEWithLogitsLossFlat": "sigmoid",
    "PreCalculatedCrossEntropyLoss": "softmax",
    "PreCalculatedBCELoss": "sigmoid",
}
# Losses on raw scores: the learner answers the scores, of which these make probabilities.
_SCORES: dict[str, Activation] = {
    "CrossEntropyLoss": "softmax",
    "cross_entropy": "softmax",
    "LabelSmoothingCrossEntropy": "softmax",
    "FocalLoss": "softmax",
    "BCEWithLogitsLoss": "sigmoid",
    "binary_cross_entropy_with_logits": "sigmoid",
}
_REGRESSION = words(
    "MSELoss L1Loss SmoothL1Loss HuberLoss mse_loss l1_loss smooth_l1_loss MSELossFlat L1LossFlat"
)
USUAL_ACTIVATION: dict[Targets, Activation] = {"one": "softmax", "several": "sigmoid"}
_LIBRARIES = ("fastai", "torch", "blurr")
_LABEL_AXES = (-1, 1)  # of scores of shape (batch, labels)
_MAX_WRAPPERS = 5  # FlattenedLoss of a partial of a function is three


@dataclass(frozen=True)
class Loss:
    """A loss: its name, how outputs become probabilities, and whether the learner does so itself.

    ``cls`` is its name with the module. A class of the user's own is unknown, whatever its name.
    ``raw`` is true when ``learn.predict`` answers the raw scores, because fastai knows no
    activation for this loss. ``regression`` is true for losses on numbers. ``assumed``: the loss is
    unknown, and ``activation`` is the one that its task usually has. ``unproven`` is what is not
    known of it.
    """

    name: str
    activation: Activation
    raw: bool = False
    regression: bool = False
    assumed: bool = False
    cls: str = ""
    unproven: tuple[Unproven, ...] = ()


def find_loss(major: int, value: object, objects: Objects) -> Loss:
    """The loss of a learner of fastai ``major``."""
    if major == 1:
        return _named_loss(major, value)
    return _checked(_own_loss(value, objects) or _named_loss(major, value), value)


def _named_loss(major: int, value: object) -> Loss:
    """A loss by its name alone."""
    chain = _chain(value)
    if not chain:
        return Loss("unknown", "unknown")
    table = _V1 if major == 1 else _V2
    innermost, outermost = chain[-1], chain[0]
    lookup = innermost if major == 1 else outermost
    if any(each.name in _REGRESSION and _is_library(each) for each in chain):
        name = innermost.name.removesuffix("Flat")
        return Loss(name, "none", regression=True, cls=str(innermost))
    if all(map(_is_library, chain)):
        if lookup.name in table:
            return Loss(lookup.name, table[lookup.name], cls=str(lookup))
        if lookup.name in _SCORES:
            return Loss(lookup.name, _SCORES[lookup.name], raw=True, cls=str(lookup))
    return Loss(outermost.name, "unknown", cls=str(outermost))


def _own_loss(value: object, objects: Objects) -> Loss | None:
    """A loss whose own code, in the file, says how its scores become probabilities."""
    found = follow_loss(value, objects)
    if found is None:
        return None
    if found.activation is None and found.inherits is not None:
        inherited = _V2.get(found.inherits.name) if _is_library(found.inherits) else None
        if inherited is not None:
            return Loss(found.name, inherited, cls=found.cls, unproven=found.unproven)
    activation: Activation = found.activation or "unknown"
    raw = found.activation == "none"
    if raw:  # its scores are answered as they are: how they become probabilities it does not say
        activation = "unknown"
    return Loss(found.name, activation, raw=raw, cls=found.cls, unproven=found.unproven)


def _checked(loss: Loss, value: object) -> Loss:
    """A loss, whose ``axis`` must be that of the labels, also where it is inherited."""
    axis = attribute(value, "axis")
    if axis is None or (type(axis) is int and axis in _LABEL_AXES):
        return loss
    reason = f"it makes probabilities along axis {axis}, which is not that of the labels"
    unknown = Unproven(f"the loss {loss.cls}", reason, part="answer")
    return replace(loss, unproven=(*loss.unproven, unknown))


def _is_library(cls: Global) -> bool:
    return cls.module.split(".")[0] in _LIBRARIES


def with_usual_activation(loss: Loss, targets: Targets) -> Loss:
    """An unknown loss with the activation that losses of its task usually have."""
    usual = USUAL_ACTIVATION.get(targets)
    if loss.activation != "unknown" or usual is None:
        return loss
    if any(each.subject.startswith("the activation()") for each in loss.unproven):
        return replace(loss, activation=usual, assumed=True)
    reason = f"how its scores become probabilities is unknown; {usual} is assumed"
    unknown = Unproven(f"the loss {loss.cls or loss.name}", reason, part="answer")
    return replace(loss, activation=usual, assumed=True, unproven=(*loss.unproven, unknown))


def raw_scores(loss: Loss) -> str:
    """What to know of a learner that answers raw scores."""
    return (
        f"learn.predict answers raw scores, because fastai has no activation for its loss "
        f"({loss.name}); {loss.activation} makes probabilities of them"
    )


def _chain(value: object) -> list[Global]:
    """A loss and what it wraps, from the outside in."""
    chain: list[Global] = []
    for _ in range(_MAX_WRAPPERS):
        if isinstance(value, Global):
            chain.append(value)
            break
        cls = class_of(value)
        if cls is None or not isinstance(value, Call):
            break
        if cls == Global("functools", "partial"):
            value = value.args[0] if value.args else None
            continue
        chain.append(cls)
        inner = attribute(value, "func")
        if inner is None:
            break
        value = inner
    flattened = len(chain) > 1 and chain[0].name == "FlattenedLoss" and _is_library(chain[0])
    return chain[1:] if flattened else chain

"""What a loss says about a learner's answers: how its outputs become probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fastai_deploy.learner.labels import Targets
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import attribute, class_of
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
    "FocalLoss": "softmax",
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
_MAX_WRAPPERS = 5  # FlattenedLoss of a partial of a function is three


@dataclass(frozen=True)
class Loss:
    """A loss: its name, how outputs become probabilities, and whether the learner does so itself.

    ``raw`` is true when ``learn.predict`` answers the raw scores, because fastai knows no
    activation for this loss. ``regression`` is true for losses on numbers. ``assumed``: the loss is
    unknown, and ``activation`` is the one that its task usually has.
    """

    name: str
    activation: Activation
    raw: bool = False
    regression: bool = False
    assumed: bool = False


def find_loss(major: int, value: object) -> Loss:
    """The loss of a learner of fastai ``major``."""
    names = _names(value)
    if not names:
        return Loss("unknown", "unknown")
    table = _V1 if major == 1 else _V2
    innermost = names[-1]
    outermost = names[0]
    lookup = innermost if major == 1 else outermost
    if any(name in _REGRESSION for name in names):
        return Loss(innermost.removesuffix("Flat"), "none", regression=True)
    if lookup in table:
        return Loss(lookup, table[lookup])
    if lookup in _SCORES:
        return Loss(lookup, _SCORES[lookup], raw=True)
    return Loss(outermost, "unknown")


def with_usual_activation(loss: Loss, targets: Targets) -> Loss:
    """An unknown loss with the activation that losses of its task usually have."""
    usual = USUAL_ACTIVATION.get(targets)
    if loss.activation != "unknown" or usual is None:
        return loss
    return replace(loss, activation=usual, assumed=True)


def _names(value: object) -> list[str]:
    """Names of a loss and of what it wraps, from the outside in."""
    names: list[str] = []
    for _ in range(_MAX_WRAPPERS):
        if isinstance(value, Global):
            names.append(value.name)
            break
        cls = class_of(value)
        if cls is None or not isinstance(value, Call):
            break
        if cls == Global("functools", "partial"):
            value = value.args[0] if value.args else None
            continue
        names.append(cls.name)
        inner = attribute(value, "func")
        if inner is None:
            break
        value = inner
    if len(names) > 1 and names[0] == "FlattenedLoss":
        return names[1:]
    return names

"""A learner's labels and loss: the order of the outputs, and how scores become labels."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fastai_deploy.learner.examine.imports import name_set
from fastai_deploy.learner.examine.modules import Root
from fastai_deploy.learner.examine.unproven import Unproven
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    attribute,
    attributes,
    class_name,
    class_of,
    data,
    elements,
    lookup,
)
from fastai_deploy.learner.user_code.follow import follow_loss
from fastai_deploy.learner.user_code.objects import Objects

Activation = Literal["softmax", "sigmoid", "none", "unknown"]

# fastai 1 looks up the name of the loss in a table; any other loss gets no activation.
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
# Losses on raw scores: the learner returns the scores, and these turn them into probabilities.
_SCORES: dict[str, Activation] = {
    "CrossEntropyLoss": "softmax",
    "cross_entropy": "softmax",
    "LabelSmoothingCrossEntropy": "softmax",
    "FocalLoss": "softmax",
    "BCEWithLogitsLoss": "sigmoid",
    "binary_cross_entropy_with_logits": "sigmoid",
}
_REGRESSION = name_set(
    "MSELoss L1Loss SmoothL1Loss HuberLoss mse_loss l1_loss smooth_l1_loss MSELossFlat L1LossFlat"
)
USUAL_ACTIVATION: dict[Targets, Activation] = {"one": "softmax", "several": "sigmoid"}
_LOSS_LIBRARIES = ("fastai", "torch", "blurr")
_LABEL_AXES = (-1, 1)  # of scores of shape (batch, labels)
_MAX_WRAPPERS = 5  # FlattenedLoss of a partial of a function is three


@dataclass(frozen=True)
class Loss:
    """A loss: its name, its activation, and whether the learner applies it.

    ``cls`` is its name with the module; a user-defined class is unknown, whatever its name.
    ``raw`` is true if ``learn.predict`` returns raw scores because fastai knows no activation for
    this loss. ``regression`` is true for losses on numbers. ``assumed``: the loss is unknown, and
    ``activation`` is the usual one for its task. ``unproven`` says what is not known about it.
    """

    name: str
    activation: Activation
    raw: bool = False
    regression: bool = False
    assumed: bool = False
    cls: str = ""
    unproven: tuple[Unproven, ...] = ()


def find_loss(major: int, value: object, objects: Objects) -> Loss:
    """The loss of a learner of major version ``major`` of fastai."""
    if major == 1:
        return _named_loss(major, value)
    return _checked(_own_loss(value, objects) or _named_loss(major, value), value)


def _named_loss(major: int, value: object) -> Loss:
    """A loss recognised by its name alone."""
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
    if raw:  # the learner returns the scores, and the loss does not say how to turn them
        activation = "unknown"
    return Loss(found.name, activation, raw=raw, cls=found.cls, unproven=found.unproven)


def _checked(loss: Loss, value: object) -> Loss:
    """A loss, after checking that its ``axis``, also an inherited one, is that of the labels."""
    axis = attribute(value, "axis")
    if axis is None or (type(axis) is int and axis in _LABEL_AXES):
        return loss
    reason = f"it computes probabilities along axis {axis}, which is not the axis of the labels"
    unknown = Unproven(f"the loss {loss.cls}", reason, part="answer")
    return replace(loss, unproven=(*loss.unproven, unknown))


def _is_library(cls: Global) -> bool:
    return cls.module.split(".")[0] in _LOSS_LIBRARIES


def with_usual_activation(loss: Loss, targets: Targets) -> Loss:
    """An unknown loss with the usual activation for its task."""
    usual = USUAL_ACTIVATION.get(targets)
    if loss.activation != "unknown" or usual is None:
        return loss
    if any(each.subject.startswith("the activation()") for each in loss.unproven):
        return replace(loss, activation=usual, assumed=True)
    reason = f"how it turns scores into probabilities is unknown; {usual} is assumed"
    unknown = Unproven(f"the loss {loss.cls or loss.name}", reason, part="answer")
    return replace(loss, activation=usual, assumed=True, unproven=(*loss.unproven, unknown))


def raw_scores(loss: Loss) -> str:
    """The note about a learner that returns raw scores."""
    return (
        f"learn.predict returns raw scores, because fastai has no activation for its loss "
        f"({loss.name}); {loss.activation} turns them into probabilities"
    )


def _chain(value: object) -> list[Global]:
    """A loss and what it wraps, outermost first."""
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


Targets = Literal["one", "several", "number", "unknown"]

# Classes that turn labels into numbers, by name: fastai 1, then fastai 2 and what builds on it.
PROCESSORS: dict[str, Targets] = {
    "CategoryProcessor": "one",
    "MultiCategoryProcessor": "several",
    "FloatProcessor": "number",
    "Categorize": "one",
    "MultiCategorize": "several",
    "EncodedMultiCategorize": "several",
    "RegressionSetup": "number",
}
_LABEL_LIBRARIES = ("fastai.", "fastai2.", "blurr.")
_WIDE = 4  # bytes per character in NumPy strings
_NUMBERS = {
    ("i", 1): "<b", ("i", 2): "<h", ("i", 4): "<i", ("i", 8): "<q", ("f", 4): "<f",
    ("u", 1): "<B", ("u", 2): "<H", ("u", 4): "<I", ("u", 8): "<Q", ("f", 8): "<d", ("b", 1): "<?",
}  # fmt: skip


MOST_LABELS = 100_000
LONGEST_LABEL = 256  # characters
USUAL_THRESHOLD = 0.5  # the default of learn.predict (fastai 1) and of the loss (2)
_RENAME = (
    "give each label a short text of its own, in the same order, and export the learner again; in "
    "fastai 2: learn.dls.vocab.items = [...] (with TextBlock: learn.dls.vocab[1].items = [...])"
)


@dataclass(frozen=True)
class Labels:
    """``names`` in the order of the outputs; empty if the file has none.

    ``targets``: whether a text has one label, several, or a number. ``problem`` says why the labels
    cannot be used, and is empty if they can; ``advice`` says what to do about that in a learner.
    """

    targets: Targets
    names: tuple[str, ...]
    problem: str = ""
    advice: str = "export the learner again, with its labels"


def find_labels(root: Root, calls: Iterable[Call], objects: Objects) -> Labels:
    """The labels of a learner, held by one of fastai's processors or one derived from it."""
    candidates: Iterable[object] = calls
    if root.major == 1:
        candidates = elements(lookup(root.data, "y_proc"))
    found: dict[tuple[Targets, tuple[str, ...]], Labels] = {}
    for processor in candidates:
        targets = _targets(processor, objects)
        labels = _labels(targets, processor) if targets is not None else None
        if labels is not None:
            found[(labels.targets, labels.names)] = labels
    if not found:
        return Labels("unknown", (), "the file has no labels")
    if len(found) > 1:
        return Labels("unknown", (), "the file has more than one set of labels")
    return next(iter(found.values()))


def _targets(value: object, objects: Objects) -> Targets | None:
    """The targets that an object turns into numbers; None if it is not a processor of labels."""
    if class_of(value) is None or not attributes(value):
        return None
    for cls in objects.lineage(objects.class_of(value)):
        name = class_name(cls)
        if (
            name is not None
            and name.name in PROCESSORS
            and name.module.startswith(_LABEL_LIBRARIES)
        ):
            return PROCESSORS[name.name]
    return None


def _labels(targets: Targets, processor: object) -> Labels | None:
    own = attributes(processor)
    names = own.get("classes", own.get("vocab"))
    if targets == "number":
        return Labels(targets, ())
    return None if names is None else checked_labels(targets, elements(names))


def checked_labels(targets: Targets, listed: Sequence[object]) -> Labels:
    """Labels with these names, in the order of the outputs, or with what is wrong with them."""
    if len(listed) > MOST_LABELS:
        return Labels(targets, (), f"it has {len(listed):,} labels, more than {MOST_LABELS:,}")
    known: list[str] = []
    for item in listed:  # one by one: many labels may be the same long text
        text = label_text(item)
        if text is None:
            return Labels(targets, (), "a label is neither text nor a number", _RENAME)
        if len(text) > LONGEST_LABEL:
            return Labels(targets, (), f"a label has more than {LONGEST_LABEL} characters", _RENAME)
        known.append(text)
    problem = _problem(known)
    return (
        Labels(targets, tuple(known), problem, _RENAME)
        if problem
        else Labels(targets, tuple(known))
    )


def _problem(names: Sequence[str]) -> str:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        return f"two labels are both called {twice[0]!r}"
    if any(not _is_unicode(name) for name in names):
        return "a label is not valid Unicode text"
    return "" if names else "the list of labels is empty"


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def label_text(value: object) -> str | None:
    """A label as text, numbers as Python writes them; None for anything else."""
    if isinstance(value, Call):
        value = numpy_scalar(value)
    return str(value) if isinstance(value, (str, bool, int, float)) else None


def numpy_scalar(value: Call) -> str | bool | int | float | None:
    """The number or text of a pickled NumPy scalar; None for anything else."""
    match value:
        case Call(func=Global(name="scalar"), args=(Call(args=(str(code), *_)), raw, *_)):
            held = data(raw)
        case _:
            return None
    kind, size = code.lstrip("<>=|")[:1], code.lstrip("<>=|")[1:]
    if held is None or not (size.isascii() and size.isdigit()):
        return None
    if kind == "U":
        return _utf32(held)
    layout = _NUMBERS.get((kind, len(held)))
    if layout is None:
        return None
    number: bool | int | float = struct.unpack(layout, held)[0]
    return number


def _utf32(held: bytes) -> str | None:
    most = _WIDE * (LONGEST_LABEL + 1)  # one more character, to detect that it is too long
    try:
        text = held[:most].decode("utf-32-le")
        return text if len(held) > most else text.rstrip("\0")
    except UnicodeDecodeError:
        return None


def without_threshold(labels: Labels) -> Labels:
    """Labels that cannot be used, because no single threshold decides which of them a text has."""
    return replace(
        labels,
        problem="the threshold of its loss (thresh) is not one number",
        advice="set learn.loss_func.thresh = 0.5 and export the learner again; each answer has the "
        "probabilities of all labels, for you to compare with thresholds of your own",
    )


def threshold_of(loss: object) -> float | None:
    """The probability above which a loss of fastai 2 predicts a label; None if there is not one.

    A loss may hold a tensor, often with a threshold for each label.
    """
    found = attribute(loss, "thresh")
    if found is None:
        return USUAL_THRESHOLD
    value = numpy_scalar(found) if isinstance(found, Call) else found
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None

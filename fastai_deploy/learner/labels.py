"""The labels of a learner, in the order of its model's outputs, and the task that they make."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.learner.code.objects import Objects
from fastai_deploy.learner.reading.values import Call, Global
from fastai_deploy.learner.reading.views import (
    attribute,
    attributes,
    class_name,
    class_of,
    data,
    elements,
    lookup,
)
from fastai_deploy.learner.roots import Root

Targets = Literal["one", "several", "number", "unknown"]

# What turns labels into numbers, by class name: fastai 1, then fastai 2 and what builds on it.
PROCESSORS: dict[str, Targets] = {
    "CategoryProcessor": "one",
    "MultiCategoryProcessor": "several",
    "FloatProcessor": "number",
    "Categorize": "one",
    "MultiCategorize": "several",
    "EncodedMultiCategorize": "several",
    "RegressionSetup": "number",
}
_LIBRARIES = ("fastai.", "fastai2.", "blurr.")
_WIDE = 4  # bytes of a character in NumPy's texts
_NUMBERS = {
    ("i", 1): "<b", ("i", 2): "<h", ("i", 4): "<i", ("i", 8): "<q", ("f", 4): "<f",
    ("u", 1): "<B", ("u", 2): "<H", ("u", 4): "<I", ("u", 8): "<Q", ("f", 8): "<d", ("b", 1): "<?",
}  # fmt: skip


MOST_LABELS = 100_000
LONGEST_LABEL = 256  # characters


@dataclass(frozen=True)
class Labels:
    """``names`` in the order of the outputs; empty when the file holds none.

    ``targets``: whether a text has one label, several, or a number. ``problem`` says why the labels
    cannot be used as they are, and is empty when they can.
    """

    targets: Targets
    names: tuple[str, ...]
    problem: str = ""


def find_labels(root: Root, calls: Iterable[Call], objects: Objects) -> Labels:
    """The labels of a learner, as a processor of fastai's holds them, or one derived from it."""
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
        return Labels("unknown", (), "the learner holds no labels")
    if len(found) > 1:
        return Labels("unknown", (), "the learner holds more than one set of labels")
    return next(iter(found.values()))


def _targets(value: object, objects: Objects) -> Targets | None:
    """What an object turns into numbers; None for one that is no processor of labels."""
    if class_of(value) is None or not attributes(value):
        return None
    for cls in objects.lineage(objects.class_of(value)):
        name = class_name(cls)
        if name is not None and name.name in PROCESSORS and name.module.startswith(_LIBRARIES):
            return PROCESSORS[name.name]
    return None


def _labels(targets: Targets, processor: object) -> Labels | None:
    own = attributes(processor)
    names = own.get("classes", own.get("vocab"))
    if targets == "number":
        return Labels(targets, ())
    if names is None:
        return None
    listed = elements(names)
    if len(listed) > MOST_LABELS:
        return Labels(targets, (), f"it has {len(listed):,} labels, more than {MOST_LABELS:,}")
    known: list[str] = []
    for item in listed:  # one after the other: many labels may be one long text
        text = label_text(item)
        if text is None:
            return Labels(targets, (), "a label is neither text nor a number")
        if len(text) > LONGEST_LABEL:
            return Labels(targets, (), f"a label has more than {LONGEST_LABEL} characters")
        known.append(text)
    return Labels(targets, tuple(known), _problem(known))


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
    """A label as text: integers and other numbers as Python writes them; None for anything else."""
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
    most = _WIDE * (LONGEST_LABEL + 1)  # one character more shows that there are too many
    try:
        text = held[:most].decode("utf-32-le")
        return text if len(held) > most else text.rstrip("\0")
    except UnicodeDecodeError:
        return None


def threshold_of(loss: object) -> float | None:
    """The probability above which a label is given, where the loss of fastai 2 stores it."""
    found = attribute(loss, "thresh")
    return float(found) if isinstance(found, (int, float)) else None

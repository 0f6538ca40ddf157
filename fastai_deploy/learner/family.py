"""What a learner is for: texts and their labels, or something that is not served here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from fastai_deploy.learner.modules import Module
from fastai_deploy.learner.reading.values import Global
from fastai_deploy.learner.roots import Root

Family = Literal["transformers", "awd-lstm", "fastai-text", "language model", "vision", "tabular",
                 "collaborative filtering", "unknown"]  # fmt: skip

_LANGUAGE = frozenset({"LMLearner", "LanguageLearner"})
_PACKAGES: tuple[tuple[str, Family], ...] = (
    ("fastai.vision", "vision"),
    ("fastai.medical", "vision"),
    ("fastai.collab", "collaborative filtering"),
    ("fastai.tabular", "tabular"),
)


def family_of(root: Root, names: Iterable[Global], modules: Sequence[Module]) -> Family:
    """The family of a learner in which no transformer was found."""
    names = tuple(names)
    classes = {module.cls.name for module in modules if module.cls is not None}
    if (root.cls is not None and root.cls.name in _LANGUAGE) or "LinearDecoder" in classes:
        return "language model"
    if "AWD_LSTM" in classes and "PoolingLinearClassifier" in classes:
        return "awd-lstm"
    for package, family in _PACKAGES:
        if any(name.module.startswith(package) for name in names):
            return family
    return "fastai-text" if any(n.module.startswith("fastai.text") for n in names) else "unknown"

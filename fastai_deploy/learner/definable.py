"""Which classes of a learner's model the user would have to bring to make it convertible."""

from __future__ import annotations

from collections.abc import Sequence

from fastai_deploy.learner.architecture import LIBRARIES, Transformer
from fastai_deploy.learner.modules import Module
from fastai_deploy.learner.reading.values import Global

# Classes of these cannot be brought as a file of a few lines; the learner runtime serves them.
_WHOLE_LIBRARIES = ("fastai",)


def is_users(cls: Global) -> bool:
    """Whether a class of the model is neither torch's nor of transformers."""
    return cls.module.split(".")[0] not in (*LIBRARIES, "torch")


def users_classes(modules: Sequence[Module]) -> tuple[str, ...]:
    """The names of the model's classes that are the user's, each once, from the outside in."""
    found = [m.cls.name for m in modules if m.cls is not None and is_users(m.cls)]
    return tuple(dict.fromkeys(found))


def definable(modules: Sequence[Module], transformer: Transformer | None) -> tuple[str, ...]:
    """The user's classes, where their source is what is missing; none where it would not help."""
    if transformer is not None and not transformer.problem:
        return ()
    if any(module.cls is None or module.changed for module in modules):
        return ()
    tops = {m.cls.module.split(".")[0] for m in modules if m.cls is not None}
    return () if tops.intersection(_WHOLE_LIBRARIES) else users_classes(modules)


def innermost(modules: Sequence[Module]) -> str:
    """The path of the model within torch's own wrappers, which hand everything through."""
    by_path = {module.path: module for module in modules}
    path = ""
    while (found := by_path[path]).transparent:
        inner = [found.name_of(child) for child in found.children]
        if len(inner) != 1:
            break
        path = inner[0]
    return path

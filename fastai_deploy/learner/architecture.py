"""The transformer in a model: where it is, how it was configured, and what is wrapped around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastai_deploy.learner.forward import UNKNOWN, Forward
from fastai_deploy.learner.modules import Module
from fastai_deploy.learner.reading.values import Global
from fastai_deploy.learner.reading.views import Plain, attributes, class_of, plain

LIBRARIES = ("transformers", "pytorch_transformers", "pytorch_pretrained_bert")
HEAD = "ForSequenceClassification"
MAX_INNER = 8  # configurations within one; a model that reads and sees has four


@dataclass(frozen=True, eq=False, repr=False)
class Transformer:
    """A model of transformers within a learner's model.

    ``path`` is where it is, empty when it is the model itself; ``outputs`` is the number of scores
    it gives. ``wrapper`` is the class of the outermost module around it that is not torch's own,
    None when there is none; ``node`` is its place in the pickle's graph.
    ``problem`` is why it cannot be rebuilt from transformers alone, empty when it can.
    """

    path: str
    cls: Global
    model_type: str
    config: dict[str, Plain]
    outputs: int | None
    head: tuple[str, ...]
    forward: Forward
    problem: str
    wrapper: Global | None = None
    node: object = None


def configured(module: Module) -> Transformer | None:
    """A module of the model as a transformer of its own; None when it has no configuration."""
    node = _config(module)
    if node is None or module.cls is None:
        return None
    config = _plain_config(node)
    return Transformer(
        path=module.path,
        cls=module.cls,
        model_type=_model_type(config, class_of(node)),
        config=config,
        outputs=_outputs(module, config),
        head=(),
        forward=UNKNOWN,
        problem="",
    )


def find_transformer(modules: Sequence[Module]) -> Transformer | None:
    """The outermost module that owns a configuration of transformers; None when there is none.

    How it is called is not looked at here.
    """
    found = next((module for module in modules if _config(module) is not None), None)
    if found is None or found.cls is None:
        return None
    config_node = _config(found)
    config = _plain_config(config_node)
    wrappers = [m for m in modules if _encloses(m.path, found.path)]
    user_wrappers = [m for m in wrappers if not m.transparent]
    return Transformer(
        path=found.path,
        cls=found.cls,
        model_type=_model_type(config, class_of(config_node)),
        config=config,
        outputs=_outputs(found, config),
        head=_head(modules, found),
        forward=UNKNOWN,
        problem=_problem(modules, found),
        wrapper=user_wrappers[0].cls if user_wrappers else None,
        node=found.made,
    )


def is_blurr(cls: Global | None) -> bool:
    """Whether a class is of blurr, a library that hands the tokenizer's own mask to the model."""
    return cls is not None and cls.module.split(".")[0] == "blurr"


def _config(module: Module) -> object:
    value = module.attributes.get("config")
    cls = class_of(value)
    if cls is None or not cls.name.endswith("Config"):
        return None
    known = cls.module.split(".")[0] in LIBRARIES
    return value if known or "vocab_size" in attributes(value) else None


def _encloses(outer: str, inner: str) -> bool:
    return outer != inner and (outer == "" or inner.startswith(outer + "."))


def _plain_config(node: object, left: list[int] | None = None) -> dict[str, Plain]:
    """The settings, those of configurations within it (of text and of images) included.

    A file may let many names share one of them, so that ``left`` counts down how many are opened.
    """
    left = [MAX_INNER] if left is None else left
    found: dict[str, Plain] = {}
    for name, value in attributes(node).items():
        cls = class_of(value)
        inner = cls is not None and cls.name.endswith("Config") and left[0] > 0
        left[0] -= inner
        found[name] = _plain_config(value, left) if inner else plain(value)
    return found


def _model_type(config: Mapping[str, Plain], cls: Global | None) -> str:
    """Such as ``xlm-roberta``: stored since transformers 2.9, before that told by the module."""
    stored = config.get("model_type")
    if isinstance(stored, str) and stored:
        return stored
    module = cls.module.rsplit(".", 1)[-1] if cls else ""
    return module.removeprefix("configuration_").replace("_", "-")


def _outputs(module: Module, config: Mapping[str, Plain]) -> int | None:
    labels = config.get("id2label")
    for value in (module.attributes.get("num_labels"), config.get("num_labels")):
        if type(value) is int:
            return value
    return len(labels) if isinstance(labels, dict) and labels else None


def _head(modules: Sequence[Module], transformer: Module) -> tuple[str, ...]:
    """What the transformer has beside its encoder: ``name: class`` of each part."""
    by_path = {module.path: module for module in modules}
    parts = [by_path.get(transformer.name_of(child)) for child in transformer.children]
    return tuple(
        f"{part.path.rsplit('.', 1)[-1]}: {part.cls.name}"
        for part in parts
        if part is not None and part.cls is not None and _config(part) is None
    )


def _problem(modules: Sequence[Module], transformer: Module) -> str:
    """Why the transformer cannot be rebuilt from its library alone, or nothing."""
    cls = transformer.cls
    within = (transformer.path + ".") if transformer.path else ""
    for module in modules:
        inside = module.path == transformer.path or module.path.startswith(within)
        if not inside and module.tensors:
            return f"weights lie outside the transformer ({module.path or 'in the wrapper'})"
        if module.changed:
            return f"a module has {module.changed} ({module.path or 'the model'})"
        if inside and module.cls is not None and not _from_library(module.cls):
            return f"a part of the transformer is of the user's own class {module.cls.name}"
    if cls is None or not cls.name.endswith(HEAD):
        return f"its model is a {cls.name if cls else 'module'}, which has a head of its own"
    return ""


def _from_library(cls: Global) -> bool:
    return cls.module.split(".")[0] in (*LIBRARIES, "torch")

"""Find the transformer in a model: its path, its configuration, and what wraps it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.examine.modules import Module
from fastai_deploy.learner.examine.unproven import RUNTIME, UNKNOWN, Forward
from fastai_deploy.learner.reading.graph import Global, Plain, attributes, class_of, plain
from fastai_deploy.learner.reading.tensors import Tensor

# Limits on whole numbers in a configuration, by name, where no dimension of a weight is as large.
# Repeated parts may share their weights (ALBERT), so only their number is bounded. Texts can be as
# long as the table of positions, where the weights have one.
_REPEATED = re.compile(r"layers?$|blocks$|depths?$|iterations$|loops$|repeats$|hashes$")
_MOST_REPEATED = 64
_WINDOW = re.compile(r"attention_window$")
_LARGEST_WINDOW = 4_096  # tokens; texts are padded to it
_POSITIONS = re.compile(r"position|n_ctx$|seq_len|max_len|sliding_window$")
_MOST_IN_A_TABLE = 4_096
_MOST_POSITIONS = 1 << 20
_SIZE = re.compile(r"(size|dim|d_model|d_ff|d_inner|d_kv|n_embd|n_inner|heads?|groups|experts)$")
_LARGEST_SIZE = 1_024
_HARMLESS = re.compile(r"theta$")  # the base of rotary positions
_LARGEST_OTHER = 1 << 16  # for example, the id of a token

_SHOWN = 10**15  # messages give only the number of digits of anything larger


def check_numbers(config: Mapping[str, Any], weights: Mapping[str, Tensor], *, every: bool) -> None:
    """Raise UnsupportedLearner for a whole number that the weights rule out.

    Without ``every``, check only numbers whose name says that they are a size: the rest may be
    anything that a user noted, until it is known what the architecture reads.
    """
    largest = max((size for tensor in weights.values() for size in tensor.shape), default=0)
    table = any("position" in name for name in weights)
    for name, number in numbers(config):
        limit = _limit(name.rsplit(".", 1)[-1], len(weights), largest, table=table, every=every)
        if limit is not None and abs(number) > limit:
            raise UnsupportedLearner(
                f"the configuration says {name} = {shown(number)}, but the file has "
                f"{len(weights):,} weights, whose largest dimension is {largest:,}",
                hint=RUNTIME,
            )


def _limit(name: str, count: int, largest: int, *, table: bool, every: bool) -> int | None:
    """The largest value for a number of this name; None if there is no limit."""
    if _HARMLESS.search(name):
        return None
    if _REPEATED.search(name):
        return max(_MOST_REPEATED, count)
    if _WINDOW.search(name):
        return _LARGEST_WINDOW
    if _POSITIONS.search(name):
        return max(largest, _MOST_IN_A_TABLE if table else _MOST_POSITIONS)
    if _SIZE.search(name):
        return max(largest, _LARGEST_SIZE)
    return max(largest, _LARGEST_OTHER) if every else None


def numbers(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration by name, at any depth, which reading has bounded."""
    for key, value in config.items():
        name = f"{path}.{key}"[:200] if path else str(key)[:200]
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, Mapping):
                yield from numbers(each, name)
            elif isinstance(each, list):
                yield from numbers({str(place): item for place, item in enumerate(each)}, name)
            elif isinstance(each, int) and not isinstance(each, bool):
                yield name, each


def shown(number: int) -> str:
    """The number in full, or its number of digits if it is long."""
    return f"{number:,}" if abs(number) < _SHOWN else f"a number of {len(str(number))} digits"


LIBRARIES = ("transformers", "pytorch_transformers", "pytorch_pretrained_bert")
HEAD = "ForSequenceClassification"
MAX_INNER = 8  # nested configurations; a model for text and images has four


@dataclass(frozen=True, eq=False, repr=False)
class Transformer:
    """A transformers model within a learner's model.

    ``path`` is its path, empty if it is the whole model; ``outputs`` is the number of scores that
    it gives. ``wrapper`` is the class of the outermost module around it that is not torch's own,
    or None; ``node`` is its place in the pickle's graph. ``problem`` says why it cannot be rebuilt
    from transformers alone, and is empty if it can.
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
    """A module of the model as a separate transformer; None if it has no configuration."""
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
    """The outermost module with a transformers configuration, or None.

    Does not examine how the module is called.
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
    """Whether a class belongs to blurr, which passes the tokenizer's own mask to the model."""
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
    """The settings, including those of nested configurations (for text and images).

    Many names in a file may share one configuration, so ``left`` counts down how many are opened.
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
    """For example ``xlm-roberta``: stored since transformers 2.9, earlier taken from the module."""
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
    """The transformer's parts other than its encoder, each as ``name: class``."""
    by_path = {module.path: module for module in modules}
    parts = [by_path.get(transformer.name_of(child)) for child in transformer.children]
    return tuple(
        f"{part.path.rsplit('.', 1)[-1]}: {part.cls.name}"
        for part in parts
        if part is not None and part.cls is not None and _config(part) is None
    )


def _problem(modules: Sequence[Module], transformer: Module) -> str:
    """Why the transformer cannot be rebuilt from its library alone, or an empty string."""
    cls = transformer.cls
    within = (transformer.path + ".") if transformer.path else ""
    for module in modules:
        inside = module.path == transformer.path or module.path.startswith(within)
        if not inside and module.tensors:
            where = module.path or "in the wrapper"
            return f"the model has weights outside the transformer ({where})"
        if module.changed:
            return f"a module has {module.changed} ({module.path or 'the model'})"
        if inside and module.cls is not None and not _from_library(module.cls):
            return f"part of the transformer is a user-defined class ({module.cls.name})"
    if cls is None or not cls.name.endswith(HEAD):
        return f"its model is a {cls.name if cls else 'module'}, which has its own head"
    return ""


def _from_library(cls: Global) -> bool:
    return cls.module.split(".")[0] in (*LIBRARIES, "torch")

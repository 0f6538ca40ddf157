"""The learner in a pickle and the modules of its model: classes, paths and tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.errors import LearnerTooComplex, NotALearner
from fastai_deploy.learner.reading.graph import (
    Call,
    Global,
    Mapping,
    attributes,
    class_of,
    elements,
    entries,
    named_entries,
)
from fastai_deploy.learner.reading.tensors import Storage, Tensor, tensor

MAX_MODULES = 50_000  # the largest transformers have a few thousand
MAX_TENSORS = 200_000  # likewise
MAX_PATH = 1_000  # characters in the path of a module or a tensor
MAX_DEPTH = 60  # levels of nested modules; a deep transformer in three wrappers has 12
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
# The wrapper of torch.compile(). Recent versions pickle it as a call of the class with the module
# as an argument; older ones with a state, like any other module.
COMPILED = Global("torch._dynamo.eval_frame", "OptimizedModule")
# Torch's own wrappers, which return what the wrapped module returns.
TRANSPARENT = frozenset(
    {
        COMPILED,
        Global("torch.nn.parallel.data_parallel", "DataParallel"),
        Global("torch.nn.parallel.distributed", "DistributedDataParallel"),
    }
)
# transformers 4.11 to 4.15 add this to every model; it matters only in training.
HARMLESS_HOOK = Global("transformers.modeling_utils", "gradient_checkpointing_hook")


@dataclass(frozen=True, eq=False, repr=False)
class Module:
    """A torch module: its ``path`` in the model (empty for the model itself) and its own tensors.

    ``tensors`` are the parameters and the buffers that its ``state_dict`` holds, by their names
    within the module; ``computed`` are the other buffers, which its class computes when it is made.
    ``children`` are the names of its submodules. ``made`` is the call in the pickle that creates
    the module.
    """

    path: str
    cls: Global | None
    made: object
    attributes: dict[str, object]
    tensors: dict[str, Tensor]
    computed: dict[str, Tensor]
    children: tuple[str, ...]

    def name_of(self, local: str) -> str:
        """The full name, within the whole model, of one of its tensors or children."""
        return f"{self.path}.{local}" if self.path else local

    @property
    def transparent(self) -> bool:
        """Whether it is one of torch's wrappers, which pass everything through."""
        return self.cls in TRANSPARENT

    @property
    def changed(self) -> str | None:
        """What makes it behave unlike its class (a hook or its own ``forward``), or None."""
        for hooks in HOOKS:
            if any(hook != HARMLESS_HOOK for _, hook in entries(self.attributes.get(hooks))):
                return "a forward hook"
        return "its own forward()" if "forward" in self.attributes else None


def is_module(value: object) -> bool:
    """Whether a value is a pickled ``torch.nn.Module``."""
    if _compiled(value) is not None:
        return True
    return isinstance(value, Call) and {"_modules", "_parameters"} <= attributes(value).keys()


def _compiled(value: object) -> object:
    """The module that ``OptimizedModule(module, context)`` wraps; None for anything else."""
    if isinstance(value, Call) and value.func == COMPILED and not value.new and value.args:
        return value.args[0]
    return None


def children_of(node: object) -> dict[str, object]:
    """The submodules of a module, by their names in ``state_dict``."""
    compiled = _compiled(node)
    if compiled is not None:
        named: dict[str, object] = {"_orig_mod": compiled}
    else:
        named = named_entries(attributes(node).get("_modules"))
    return {name: child for name, child in named.items() if is_module(child)}


def read_modules(model: object, nested: dict[int, Storage]) -> tuple[Module, ...]:
    """Every module of a model, each before its submodules.

    A module that is used twice is listed twice, as in ``state_dict``.
    Raises LearnerTooComplex for more modules, or deeper nesting, than any model has.
    """
    found: list[Module] = []
    tensors = 0
    waiting: list[tuple[str, object, int]] = [("", model, 0)]
    while waiting:
        path, node, depth = waiting.pop()
        if depth > MAX_DEPTH or len(found) >= MAX_MODULES or tensors > MAX_TENSORS:
            raise _too_complex()
        own = attributes(node)
        children = children_of(node)
        held, computed = _tensors(own, nested)
        tensors += len(held) + len(computed)
        found.append(
            Module(
                path=path,
                cls=class_of(node),
                made=node,
                attributes=own,
                tensors=held,
                computed=computed,
                children=tuple(children),
            )
        )
        prefix = f"{path}." if path else ""
        if any(len(prefix) + len(name) > MAX_PATH for name in (*held, *children)):
            raise _too_complex()
        waiting.extend(
            (prefix + name, child, depth + 1) for name, child in reversed(children.items())
        )
    return tuple(found)


def _too_complex() -> LearnerTooComplex:
    return LearnerTooComplex(
        "the model has more modules, or deeper nesting, than any real model",
        hint="the file is damaged or malicious; export the learner again",
    )


def _tensors(
    own: dict[str, object], nested: dict[int, Storage]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a module that its ``state_dict`` holds, and those that it does not."""
    transient = {
        name for name in elements(own.get("_non_persistent_buffers_set")) if isinstance(name, str)
    }
    held: dict[str, Tensor] = {}
    computed: dict[str, Tensor] = {}
    for table in ("_parameters", "_buffers"):
        for name, value in named_entries(own.get(table)).items():
            made = tensor(value, nested)
            if made is not None:
                (computed if table == "_buffers" and name in transient else held)[name] = made
    return held, computed


def state_dict(modules: Iterable[Module], within: str = "") -> dict[str, Tensor]:
    """The tensors of the module at path ``within`` and its submodules, named relative to it."""
    prefix = f"{within}." if within else ""
    return {
        name.removeprefix(prefix): value
        for module in modules
        for local, value in module.tensors.items()
        if (name := module.name_of(local)).startswith(prefix)
    }


EXPORT = "call learn.export() on the trained learner and use the .pkl file that it writes"
_SHOWN = 5  # keys of a dictionary that a message lists
_V1_KEYS = frozenset({"model", "data", "cls"})


@dataclass(frozen=True, eq=False, repr=False)
class Root:
    """A learner: fastai's major version, its class, its model, its loss, and its data pipeline.

    ``node`` is its place in the graph. ``data`` is the dict that v1 calls ``data``, or the
    ``DataLoaders`` of v2; ``callbacks`` is a list in v2, and in v1 a dict from the class of each to
    its state.
    """

    node: object
    major: Literal[1, 2]
    cls: Global | None
    model: object
    loss: object
    data: object
    callbacks: object = None


def find_learner(value: object) -> Root:
    """The learner in a pickle. Raises NotALearner, which says what the file holds instead."""
    root = _as_learner(value)
    if root is None:
        raise NotALearner(
            f"the file does not contain a fastai learner: {_describe(value)}", hint=EXPORT
        )
    if not is_module(root.model):
        raise NotALearner("the learner in the file has no model", hint=EXPORT)
    return root


def _as_learner(value: object) -> Root | None:
    if isinstance(value, Mapping):
        parts = named_entries(value)
        if parts.keys() >= _V1_KEYS:
            cls = parts["cls"]
            return Root(
                value, 1, cls if isinstance(cls, Global) else None, parts["model"],
                parts.get("loss_func"), parts["data"], parts.get("cb_state"),
            )  # fmt: skip
    if isinstance(value, Call):
        own = attributes(value)
        if "dls" in own and ("model" in own or "loss_func" in own):
            return Root(
                value, 2, class_of(value), own.get("model"), own.get("loss_func"), own["dls"],
                own.get("cbs"),
            )  # fmt: skip
    return None


def _describe(value: object) -> str:
    """What the pickle holds, in words that help to find the right file."""
    names = list(named_entries(value))
    within = [*elements(value), *(item for _, item in entries(value))]
    cls = class_of(value)
    if is_module(value):
        return f"it is a bare model ({cls}), without a tokenizer or labels"
    if any(_as_learner(item) is not None for item in within):
        return "it is a collection of learners; export each to its own file"
    if {"model", "opt"} <= set(names):
        return "it is a checkpoint of weights from learn.save()"
    if {"state_dict", "model_state_dict"} & set(names):
        return "it is a training checkpoint"
    if any(name.split(".")[-1] in ("weight", "bias") for name in names):
        return "it is a checkpoint of weights (a state_dict)"
    return f"it is {_named(cls, value, names)}"


def _named(cls: Global | None, value: object, names: list[str]) -> str:
    if isinstance(value, Mapping):
        shown = ", ".join(sorted(names)[:_SHOWN])
        return f"a dictionary{f' with the keys {shown}' if shown else ''}"
    if isinstance(value, Global):
        return f"only the name {value}"
    return f"an object of the class {cls}" if cls else f"a {type(value).__name__.lower()}"


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

"""The attributes of a pickled object as Python values, without calling anything in the file.

These are plain data, tensors, transformers configurations, torch functions by name, and objects of
the classes in the user's definitions, whose attributes are set as unpickling would. Anything else
is ``UNREAD`` and left out.
"""

from __future__ import annotations

import math
import types
from typing import Any, Final

import torch
import transformers
from torch import nn

from fastai_deploy.errors import LearnerError, LearnerTooComplex
from fastai_deploy.learner.definitions import Definitions
from fastai_deploy.learner.examine.imports import name_set
from fastai_deploy.learner.reading.graph import (
    MAX_PLAIN,
    MAX_PLAIN_DEPTH,
    Call,
    Global,
    Mapping,
    Sequence,
    attributes,
    class_of,
    elements,
    entries,
    named_entries,
    plain,
)
from fastai_deploy.learner.reading.tensors import tensor
from fastai_deploy.learner.rebuild.transformer import read_tensor

UNREAD: Final = object()  # in place of a value that reading cannot create

# Functions without side effects that a module may hold, by name, because the file names them.
_FUNCTIONS = name_set(
    """
    relu tanh sigmoid softmax log_softmax gelu silu mish elu selu celu leaky_relu logsigmoid
    softplus hardtanh hardswish relu6 mean sum max min exp log square sqrt abs
    """
)
_FUNCTION_MODULES = (
    "torch",
    "torch.functional",
    "torch.nn.functional",
    "torch._C._nn",
    "torch._C._VariableFunctions",
)
_SIZE = Global("torch", "Size")  # a tuple
_DEVICE = Global("torch", "device")
_NAMESPACES = (Global("types", "SimpleNamespace"), Global("argparse", "Namespace"))
_CONTAINERS: dict[str, type[list[Any] | set[Any] | frozenset[Any]]] = {
    "list": list,
    "set": set,
    "frozenset": frozenset,
}


class Values:
    """Creates values within one budget for a whole learner."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._left = MAX_PLAIN

    def make(self, value: object, depth: int = 0) -> Any:
        """The value, or ``UNREAD``. Raises LearnerTooComplex or LearnerTruncated."""
        self._left -= 1
        if self._left < 0 or depth > MAX_PLAIN_DEPTH:
            raise LearnerTooComplex(
                "the attributes of the model's parts are more, or deeper, than any learner's",
                hint="the file is damaged or malicious; export the learner again",
            )
        made: Any = UNREAD
        match value:
            case None | bool() | int() | float() | str() | bytes():
                made = value
            case tuple():
                made = self._all(list(value), tuple, depth)
            case Sequence(kind=kind):
                made = self._all(elements(value), _CONTAINERS[kind], depth)
            case Mapping():
                made = self._dict(named_entries(value), len(value.pairs), depth)
            case Global():
                made = self._named(value)
            case Call():
                made = self._object(value, depth)
        return made

    def _all(self, items: list[object], made: Any, depth: int) -> Any:
        found = [self.make(item, depth + 1) for item in items]
        try:
            return UNREAD if any(item is UNREAD for item in found) else made(found)
        except TypeError:  # a set of unhashable values
            return UNREAD

    def _dict(self, entries: dict[str, object], count: int, depth: int) -> Any:
        if len(entries) != count:
            return UNREAD  # keys that are not strings: not a configuration
        found = {name: self.make(item, depth + 1) for name, item in entries.items()}
        return UNREAD if any(item is UNREAD for item in found.values()) else found

    def _named(self, name: Global) -> Any:
        """A torch function, or what the user's file defines under the name."""
        if name.module in _FUNCTION_MODULES and name.name in _FUNCTIONS:
            return getattr(nn.functional, name.name, None) or getattr(torch, name.name)
        if name.module == "torch":
            dtype = getattr(torch, name.name, UNREAD)
            return dtype if isinstance(dtype, torch.dtype) else UNREAD
        own = self._definitions.find(name.name) if name.module.startswith("__m") else None
        return UNREAD if own is None else own

    def _object(self, value: Call, depth: int) -> Any:
        try:
            made = tensor(value, {})
            if made is not None:
                return _floats(read_tensor(made))
        except LearnerError:  # of a kind that is not read, or in a nested file
            return UNREAD
        cls = class_of(value)
        if cls == _SIZE:
            return self.make(value.args[0], depth + 1) if value.args else UNREAD
        if cls == _DEVICE:
            return torch.device("cpu")
        return UNREAD if cls is None else self._instance(cls, value, depth)

    def _instance(self, cls: Global, value: Call, depth: int) -> Any:
        if cls == Global("collections", "OrderedDict"):
            return self._dict(named_entries(value), len(entries(value)), depth)
        if cls.module.split(".")[0] == "transformers" and cls.name.endswith("Config"):
            return _config(cls, value)
        own = self._dict(attributes(value), len(attributes(value)), depth)
        if own is UNREAD:
            return UNREAD
        return types.SimpleNamespace(**own) if cls in _NAMESPACES else self._users(cls, own)

    def _users(self, cls: Global, own: dict[str, Any]) -> Any:
        """An object of a class in the user's file, created without its constructor."""
        found = self._definitions.find(cls.name)
        if not isinstance(found, type) or issubclass(found, nn.Module):
            return UNREAD
        try:
            made = object.__new__(found)
            made.__dict__.update(own)
        except (TypeError, AttributeError):  # a class with slots or of another layout
            return UNREAD
        return made


def _floats(value: torch.Tensor) -> torch.Tensor:
    """Convert half precision to float32, which every operator supports."""
    return value.float() if value.is_floating_point() else value


def _config(cls: Global, value: Call) -> Any:
    """A transformers configuration, with the settings that today's class knows."""
    try:
        made = getattr(transformers, cls.name)()
        known = set(made.to_dict())
        for name, item in attributes(value).items():
            found = plain(item)
            if name in known and not (isinstance(found, float) and not math.isfinite(found)):
                setattr(made, name, found)
    except (AttributeError, TypeError, ValueError):
        return UNREAD
    # The user's own attributes that the class does not know, such as a dropout of the head.
    for name, item in attributes(value).items():
        if name.isidentifier() and not name.startswith("_") and not hasattr(made, name):
            setattr(made, name, plain(item))
    return made

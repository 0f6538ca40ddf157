"""A learner's model put together from the user's definitions and what was read from the file.

What unpickling does, without the pickle: each module of the user's is made by ``cls.__new__``, not
by its constructor, whose arguments the file does not hold, and given the attributes that it had
when it was saved (``__setstate__``, where torch mends those of older versions). Torch's own modules
are made the same way. A model of transformers is built by today's transformers from its
configuration, because its code of then is not here; parts of it that the user exchanged are put in
their place. Nothing is guessed: every weight must have its place and every place its weight.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import torch
import transformers
from torch import nn

from fastai_deploy.errors import DefinitionsError, UnsupportedLearner
from fastai_deploy.learner.anatomy import Anatomy
from fastai_deploy.learner.architecture import LIBRARIES, Transformer, configured
from fastai_deploy.learner.definable import is_users, users_classes
from fastai_deploy.learner.definitions import Definitions
from fastai_deploy.learner.modules import Module
from fastai_deploy.learner.reading.values import Global
from fastai_deploy.learner.reading.views import elements, named_entries
from fastai_deploy.learner.rebuilding.attributes import UNREAD, Values
from fastai_deploy.learner.rebuilding.rebuild import empty_model
from fastai_deploy.learner.verdict import RUNTIME

_TRANSIENT = "_non_persistent_buffers_set"
_INTERNAL = frozenset(nn.Module().__dict__) - {"training"}
# Of a version whose models answered plain tuples: return_dict came with transformers 3.1.
_TUPLES = ("2.1", "2.2", "2.5")


class Assembly:
    """The model at ``root`` (a path), made by :meth:`build`.

    ``models`` are the models of transformers in it, each with what the file says of it.
    ``left_out`` names attributes that could not be read: ``class.attribute``.
    """

    def __init__(self, anatomy: Anatomy, definitions: Definitions, root: str) -> None:
        self._anatomy = anatomy
        self._definitions = definitions
        self._root = root
        self._values = Values(definitions)
        self._by_path = {module.path: module for module in anatomy.tree}
        self.models: list[tuple[Transformer, transformers.PreTrainedModel]] = []
        self.left_out: list[str] = []

    def build(self) -> nn.Module:
        """The model, with weights of no meaning yet. Raises DefinitionsError or a LearnerError."""
        self._check_classes()
        return self._module(self._by_path[self._root])

    def _check_classes(self) -> None:
        """Every class of the user's must be in the file, and be a module."""
        path = self._definitions.path
        names = users_classes(self._anatomy.tree)
        missing = [name for name in names if self._definitions.find(name) is None]
        if missing:
            raise DefinitionsError(
                f"{path.name} does not define {', '.join(missing)}, which the learner's model is "
                "made of",
                hint=f"write the source of {', '.join(missing)} into {path.name}, under that name",
            )
        for name in names:
            found = self._definitions.find(name)
            if not (isinstance(found, type) and issubclass(found, nn.Module)):
                raise DefinitionsError(
                    f"{path.name}: {name} is no class of torch modules",
                    hint=f"write class {name}(nn.Module), as it was where the learner was trained",
                )

    def _module(self, module: Module) -> nn.Module:
        """One module with all within it; as deep as the file's tree, which reading has bounded."""
        cls = module.cls
        if cls is None or module.changed:
            raise UnsupportedLearner(
                f"{module.path or 'the model'} has {module.changed or 'no class'}", hint=RUNTIME
            )
        if cls.module.split(".")[0] in LIBRARIES:
            return self._of_transformers(module)
        found = self._definitions.find(cls.name) if is_users(cls) else _torchs(cls)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise UnsupportedLearner(f"torch {torch.__version__} has no {cls.name}", hint=RUNTIME)
        return self._from_state(module, found)

    def _from_state(self, module: Module, cls: type[nn.Module]) -> nn.Module:
        state: dict[str, Any] = {"training": False}
        for name, value in module.attributes.items():
            if name not in _INTERNAL:
                made = self._values.make(value)
                if made is UNREAD:
                    self.left_out.append(f"{cls.__name__}.{name}")
                else:
                    state[name] = made
        state.update(_defaults(cls, state))
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        state["_parameters"] = _parameters(module)
        state["_buffers"] = _buffers(module, self._values)
        state[_TRANSIENT] = set(elements(module.attributes.get(_TRANSIENT)))
        state["_modules"] = {
            child: self._module(self._by_path[module.name_of(child)]) for child in module.children
        }
        try:
            made.__setstate__(state)  # type: ignore[no-untyped-call] # torch's own
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise self._definitions.failure(f"{cls.__name__} refuses its state", error) from error
        if isinstance(made, nn.RNNBase):
            # A list of the weights themselves, which are others now.
            names = made._flat_weights_names  # noqa: SLF001 - torch's own loading does this
            made._flat_weights = [getattr(made, name) for name in names]  # noqa: SLF001
        return made

    def _of_transformers(self, module: Module) -> nn.Module:
        """A model of transformers, or a single part of one that the user took."""
        own = configured(module)
        if own is None:
            return self._part(module)
        pooled: bool | None = None
        wanted = getattr(transformers, own.cls.name, None)
        if wanted is not None and "add_pooling_layer" in inspect.signature(wanted).parameters:
            pooled = "pooler" in module.children
        made = empty_model(own, self._anatomy, pooled=pooled)
        if self._anatomy.tokenizer is not None and self._anatomy.tokenizer.era in _TUPLES:
            made.config.return_dict = False
        self._exchange(made, module, own)
        self.models.append((own, made))
        return made

    def _exchange(self, made: nn.Module, module: Module, own: Transformer) -> None:
        """Put parts that are the user's, or another class of torch's, where they were."""
        twins = dict(made.named_modules())
        done: list[str] = []
        for part in self._anatomy.tree:
            within = f"{own.path}." if own.path else ""
            if not part.path.startswith(within) or part.path == module.path or part.cls is None:
                continue
            if any(part.path.startswith(f"{path}.") for path in done):
                continue
            name = part.path.removeprefix(within)
            parent, _, last = name.rpartition(".")
            twin = twins.get(name)
            torchs = part.cls.module.startswith("torch.nn") and hasattr(nn, part.cls.name)
            same = twin is not None and type(twin).__name__ == part.cls.name
            dropout = "Dropout" in part.cls.name  # does nothing when a learner answers
            if (is_users(part.cls) or (torchs and not dropout)) and not same and parent in twins:
                setattr(twins[parent], last, self._module(part))
                done.append(part.path)

    def _part(self, module: Module) -> nn.Module:
        """A part without a configuration of its own takes that of the model's transformer."""
        cls, around = module.cls, self._anatomy.transformer
        try:
            if cls is None or around is None:
                raise AttributeError("there is no configuration")  # noqa: TRY301
            found = importlib.import_module(f"transformers.models.{_package(cls.module)}")
            made = getattr(found, cls.name)(empty_model(around, self._anatomy).config)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UnsupportedLearner(
                f"transformers {transformers.__version__} cannot build {cls and cls.name} alone: "
                f"{error}",
                hint=RUNTIME,
            ) from error
        if not isinstance(made, nn.Module):
            raise UnsupportedLearner(f"{cls and cls.name} is no module", hint=RUNTIME)
        return made


def _torchs(cls: Global) -> object:
    """A class of torch's own modules; nothing is imported that the file names."""
    if not cls.module.startswith("torch.nn"):
        return None
    return getattr(nn, cls.name, None) or getattr(sys.modules.get(cls.module), cls.name, None)


def _package(module: str) -> str:
    """``bert.modeling_bert`` of ``transformers.modeling_bert`` or of today's longer name."""
    last = module.rsplit(".", 1)[-1]
    return f"{last.removeprefix('modeling_')}.{last}"


def _parameters(module: Module) -> dict[str, nn.Parameter | None]:
    """Parameters of the right sizes, in float32."""
    found: dict[str, nn.Parameter | None] = {}
    for name in named_entries(module.attributes.get("_parameters")):
        held = _place(module, name)
        floating = held is not None and held.is_floating_point()
        found[name] = None if held is None else nn.Parameter(held, requires_grad=floating)
    return found


def _buffers(module: Module, values: Values) -> dict[str, torch.Tensor | None]:
    """Buffers of the right sizes; those that no ``state_dict`` holds already have their numbers."""
    transient = set(elements(module.attributes.get(_TRANSIENT)))
    return {
        name: _tensor(values.make(value)) if name in transient else _place(module, name)
        for name, value in named_entries(module.attributes.get("_buffers")).items()
    }


def _tensor(value: object) -> torch.Tensor | None:
    return value if isinstance(value, torch.Tensor) else None


def _place(module: Module, name: str) -> torch.Tensor | None:
    tensor = module.tensors.get(name)
    if tensor is None:
        return None
    empty = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype))
    return empty.float() if empty.is_floating_point() else empty


def _defaults(cls: type[nn.Module], state: dict[str, Any]) -> dict[str, Any]:
    """What today's version of a torch class keeps beside what that of then did: its defaults."""
    if not cls.__module__.startswith("torch.nn"):
        return {}
    parameters = inspect.signature(cls).parameters
    kept = getattr(cls, "__constants__", ())
    return {
        name: parameters[name].default
        for name in kept
        if name not in state
        and name in parameters
        and parameters[name].default is not inspect.Parameter.empty
    }

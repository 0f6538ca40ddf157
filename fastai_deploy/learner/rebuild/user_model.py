"""Rebuild a model of user-defined classes, from the definitions and the learner file."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import nn

from fastai_deploy.errors import DefinitionsError, UnsupportedLearner
from fastai_deploy.learner.definitions import Definitions
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.architecture import LIBRARIES, Transformer, configured
from fastai_deploy.learner.examine.modules import Module
from fastai_deploy.learner.examine.unproven import RUNTIME, UNKNOWN
from fastai_deploy.learner.examine.verdict import innermost, is_users, users_classes
from fastai_deploy.learner.reading.graph import Global, elements, named_entries
from fastai_deploy.learner.rebuild.attributes import UNREAD, Values
from fastai_deploy.learner.rebuild.sketch import check_shared
from fastai_deploy.learner.rebuild.transformer import (
    Classifier,
    compare_modules,
    empty_model,
    first_position,
    learner_weights,
    load_weights,
)

_TRANSIENT = "_non_persistent_buffers_set"
_INTERNAL = frozenset(nn.Module().__dict__) - {"training"}
# In versions where models returned plain tuples: return_dict came with transformers 3.1.
_TUPLES = ("2.1", "2.2", "2.5")


class Assembly:
    """The model at path ``root``, built by :meth:`build`.

    ``models`` are the transformers models in it, each with what the file says about it.
    ``left_out`` lists attributes that could not be read: ``class.attribute``.
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
        """The model, with arbitrary weights. Raises DefinitionsError or a LearnerError."""
        self._check_classes()
        return self._module(self._by_path[self._root])

    def _check_classes(self) -> None:
        """Every user-defined class must be in the file, and be a module."""
        path = self._definitions.path
        names = users_classes(self._anatomy.tree)
        missing = [name for name in names if self._definitions.find(name) is None]
        if missing:
            raise DefinitionsError(
                f"{path.name} does not define {', '.join(missing)}, which the learner's model uses",
                hint=f"add the source of {', '.join(missing)} to {path.name}, under the same name",
            )
        for name in names:
            found = self._definitions.find(name)
            if not (isinstance(found, type) and issubclass(found, nn.Module)):
                raise DefinitionsError(
                    f"{path.name}: {name} is not a torch module class",
                    hint=f"write class {name}(nn.Module), as it was when the learner was trained",
                )

    def _module(self, module: Module) -> nn.Module:
        """A module with its submodules; the depth of the tree was bounded on reading."""
        cls = module.cls
        if cls is None or module.changed:
            raise UnsupportedLearner(
                f"{module.path or 'the model'} has {module.changed or 'no class'}",
                hint=RUNTIME,
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
            # A list of the old weights, which have been replaced.
            names = made._flat_weights_names  # noqa: SLF001 - torch's own loading does this
            made._flat_weights = [getattr(made, name) for name in names]  # noqa: SLF001
        return made

    def _of_transformers(self, module: Module) -> nn.Module:
        """A transformers model, or a part of one used on its own."""
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
        """Put back parts that are user-defined, or of another torch class."""
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
            dropout = "Dropout" in part.cls.name  # does nothing in evaluation mode
            if (is_users(part.cls) or (torchs and not dropout)) and not same and parent in twins:
                setattr(twins[parent], last, self._module(part))
                done.append(part.path)

    def _part(self, module: Module) -> nn.Module:
        """A part without its own configuration uses that of the model's transformer."""
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
            raise UnsupportedLearner(f"{cls and cls.name} is not a module", hint=RUNTIME)
        return made


def _torchs(cls: Global) -> object:
    """A class of torch's own modules; imports nothing that the file names."""
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
    """Buffers of the right sizes; those that no ``state_dict`` holds already have their values."""
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
    """Attributes that today's torch class has and the stored one lacked, at their defaults."""
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


# To ignore padding, a model must answer texts padded on the right as it does without padding, up to
# float32 rounding; a model that attends to padding is off by far more on some text.
UNMOVED = 1e-5
_PADDINGS = (1, 3, 16)  # numbers of padding tokens that are tried


class UserModelClassifier(Classifier):
    """A user's model as a function from ids (batch, sequence) to logits."""

    def __init__(self, model: nn.Module, definitions: Definitions, left_out: Sequence[str]) -> None:
        nn.Module.__init__(self)
        self.model = model  # type: ignore[assignment] # of a user-defined class
        self.mask_pad = -1  # unused: the user's forward makes its own mask
        self.first_position = None
        self._definitions = definitions
        self._left_out = tuple(left_out)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Only the ids."""
        return ("input_ids",)

    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ARG002 - signature of Classifier
        """Only the ids."""
        return (ids,)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,  # noqa: ARG002
    ) -> torch.Tensor:
        """The scores of every label: the first part of a multi-part output, as in fastai.

        Raises DefinitionsError if the user's code raises.
        """
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer: Any = self.model(input_ids)
        except Exception as error:  # the user's code may raise anything
            raise self._failed(error) from error
        scores = getattr(answer, "logits", None)
        if scores is None:
            scores = answer[0] if isinstance(answer, (tuple, list)) else answer
        if not isinstance(scores, torch.Tensor):
            raise self._definitions.failure(
                f"forward() of {type(self.model).__name__} does not return a tensor",
                TypeError(type(answer).__name__),
            )
        return scores

    def _failed(self, error: Exception) -> DefinitionsError:
        name = type(self.model).__name__
        failure = self._definitions.failure(f"forward() of {name} fails", error)
        missing = [
            each
            for each in self._left_out
            if isinstance(error, AttributeError) and each.rsplit(".", 1)[-1] == error.name
        ]
        if missing:
            return DefinitionsError(
                failure.message,
                hint=f"fdeploy cannot read the object {missing[0]}: set it in the class body in "
                f"{self._definitions.path.name}",
            )
        return failure


def rebuild_user_model(
    anatomy: Anatomy, definitions: Definitions
) -> tuple[Transformer, UserModelClassifier]:
    """A learner's model, built with the user's definitions, in evaluation mode.

    Raises DefinitionsError, UnsupportedLearner or LearnerTruncated.
    """
    check_shared(anatomy.weights)
    root = innermost(anatomy.tree)
    assembly = Assembly(anatomy, definitions, root)
    model = assembly.build()
    described = _described(anatomy, root)
    load_weights(model, learner_weights(anatomy, described, model))
    for transformer, made in assembly.models:
        compare_modules(made, anatomy, transformer)
        first = first_position(anatomy)
        if first is not None:
            made.register_forward_pre_hook(_counting_from(first), with_kwargs=True)
    model.requires_grad_(requires_grad=False).train(mode=False)
    return described, UserModelClassifier(model, definitions, assembly.left_out).eval()


def _described(anatomy: Anatomy, root: str) -> Transformer:
    """The whole model described like a transformer: its path, class and outputs."""
    by_path = {module.path: module for module in anatomy.tree}
    inner = anatomy.transformer
    own = configured(by_path[root]) or inner
    return Transformer(
        path=root,
        cls=by_path[root].cls or Global("", "Model"),
        model_type=own.model_type if own else "",
        config=own.config if own else {},
        outputs=None,
        head=inner.head if inner else (),
        forward=UNKNOWN,
        problem="",
    )


def _counting_from(first: int) -> Any:
    """A hook that counts positions as RoBERTa does in transformers before 2.4."""

    def count(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids = args[0] if args else kwargs.get("input_ids")
        if isinstance(ids, torch.Tensor) and kwargs.get("position_ids") is None:
            positions = torch.arange(ids.shape[1], device=ids.device) + first
            kwargs = {**kwargs, "position_ids": positions.unsqueeze(0)}
        return args, kwargs

    return count


def check_outputs(classifier: UserModelClassifier, ids: Sequence[int], labels: int) -> None:
    """Raise UnsupportedLearner unless one text gets a score for each label."""
    with torch.no_grad():
        scores = classifier(torch.tensor([list(ids)]))
    if tuple(scores.shape) != (1, labels):
        raise UnsupportedLearner(
            f"the model returns scores of shape {tuple(scores.shape)} for one text, "
            f"but the learner has {labels} labels",
            hint="export the learner again, with the labels that it was trained on",
        )


def ignores_padding(
    classifier: UserModelClassifier, texts: Sequence[Sequence[int]], pad: int, longest: int
) -> bool:
    """Whether padding on the right changes no answer, tested with every text."""
    with torch.no_grad():
        for ids in texts:
            alone = classifier(torch.tensor([list(ids)]))
            for count in _PADDINGS:
                if len(ids) + count <= longest:
                    padded = classifier(torch.tensor([[*ids, *[pad] * count]]))
                    scale = max(1.0, float(alone.abs().max()))
                    if float((padded - alone).abs().max()) > UNMOVED * scale:
                        return False
    return True

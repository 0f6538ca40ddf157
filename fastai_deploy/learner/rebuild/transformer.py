"""Rebuild the transformer in torch from its configuration and weights, from ids to scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    import transformers

    from fastai_deploy.learner.examine.anatomy import Anatomy
import copy
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet

import transformers

from fastai_deploy.errors import LearnerTruncated, UnsupportedLearner
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.architecture import Transformer, check_numbers
from fastai_deploy.learner.examine.modules import Module
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.reading.graph import Global
from fastai_deploy.learner.reading.tensors import Tensor
from fastai_deploy.learner.rebuild.libraries import explain
from fastai_deploy.learner.rebuild.sketch import check_shared, check_total, sketched

OUTPUT = "logits"
TokenTypes = tuple[tuple[int, ...], int, tuple[int, ...]]


class Exportable(nn.Module, ABC):
    """A module from int64 inputs ``(batch, sequence)`` to logits ``(batch, labels)``."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's name in error messages."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""

    @property
    def config(self) -> object:
        """The configuration of the transformer in it, or None."""
        return None

    @abstractmethod
    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The arguments of ``forward``, in the order of ``inputs``."""


class Classifier(Exportable):
    """Ids to logits.

    ``input_ids`` of shape (batch, sequence), and ``attention_mask`` of the same shape unless the
    learner finds padding itself, to logits of shape (batch, labels).

    ``mask_pad`` is the id that the learner's wrapper treats as padding anywhere, also in the middle
    of a text; None if all tokens of a text are attended to. ``first_position`` is the number of the
    first position if positions are simply counted, as in RoBERTa in transformers before 2.4; later
    versions do not count padding, which is left to the model. ``token_types`` are the types of the
    tokens before a text, of the text, and of those after it; None if the model does not get any.
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        *,
        mask_pad: int | None,
        first_position: int | None,
        token_types: TokenTypes | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.mask_pad = mask_pad
        self.first_position = first_position
        self.token_types = token_types

    @property
    def name(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return ("input_ids",) if self.mask_pad is not None else ("input_ids", "attention_mask")

    @property
    def config(self) -> object:
        """The configuration of the transformer in it, or None."""
        found = (getattr(each, "config", None) for each in self.model.modules())
        return next((each for each in found if hasattr(each, "vocab_size")), None)

    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The arguments of ``forward``, in the order of ``inputs``."""
        return (ids,) if self.mask_pad is not None else (ids, mask)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The scores of every label, before softmax or sigmoid."""
        if self.mask_pad is not None:
            attention_mask = (input_ids != self.mask_pad).long()
        options: dict[str, torch.Tensor] = {}
        if self.first_position is not None:
            count = torch.arange(input_ids.shape[1], device=input_ids.device)
            options["position_ids"] = (count + self.first_position).unsqueeze(0)
        if self.token_types is not None:
            options["token_type_ids"] = _types_of(input_ids, self.token_types)
        if scored_at_end(self.model):
            return _at_last_end(self.model, input_ids, attention_mask)
        answer = self.model(input_ids, attention_mask=attention_mask, return_dict=False, **options)
        scores: torch.Tensor = answer[0]
        return scores


def _types_of(ids: torch.Tensor, types: TokenTypes) -> torch.Tensor:
    """The types of the tokens, of the shape of ``ids``."""
    before, of_text, after = types
    if {of_text, *before, *after} == {0}:
        return torch.zeros_like(ids)
    middle = torch.full_like(ids, of_text)[:, len(before) : ids.shape[1] - len(after)]

    def around(kinds: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(kinds, dtype=ids.dtype).expand(ids.shape[0], len(kinds))

    return torch.cat((around(before), middle, around(after)), dim=1)


def scored_at_end(model: nn.Module) -> bool:
    """Whether a model is an encoder with a decoder that scores a text at its last end token.

    BART, T5 and related models are. They refuse batches in which a text contains the token, and
    what they do instead cannot be traced for every length.
    """
    config = getattr(model, "config", None)
    return getattr(config, "is_encoder_decoder", False) is True and hasattr(
        model, "classification_head"
    )


def _at_last_end(
    model: transformers.PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """What ``forward`` of such a model returns for each text alone, of shape (batch, labels)."""
    given: dict[str, torch.Tensor] = {}
    shift: Any = getattr(model, "_shift_right", None)
    if shift is not None:  # T5 does this in forward; the others inside the model
        given["decoder_input_ids"] = shift(ids)
    inner: Any = model.base_model
    states = inner(ids, attention_mask=mask, use_cache=False, return_dict=False, **given)[0]
    places = torch.arange(ids.shape[1], device=ids.device)
    last = (places * (ids == model.config.eos_token_id)).argmax(dim=1)
    chosen = states[torch.arange(ids.shape[0], device=ids.device), last]
    head: Any = model.classification_head
    scores: torch.Tensor = head(chosen)
    return scores


def first_position(anatomy: Anatomy) -> int | None:
    """The first position of a RoBERTa in transformers before 2.4; None for other models."""
    early = anatomy.tokenizer is not None and anatomy.tokenizer.era in ("2.1", "2.2")
    for module in anatomy.tree:
        padding = module.attributes.get("padding_idx")
        if module.cls is not None and module.cls.name == "RobertaEmbeddings" and early:
            return padding + 1 if type(padding) is int else None
    return None


# Stored as weights by some versions and computed by others.
COMPUTED = ("position_ids", "token_type_ids")
# The first token of a decoder; T5's configuration has it only if someone set it.
_STARTS = {"decoder_start_token_id"}
# Modules that pass their input through in evaluation mode.
_WITHOUT_EFFECT = {"Dropout", "StableDropout", "Identity", "Dropout1d", "AlphaDropout"}
# Attributes that differ from run to run, or matter only in training.
_OF_A_RUN = frozenset({"training", "gradient_checkpointing", "num_labels", "out_features"})
_NUMBERS = (int, float, bool)
_ROUNDED = 0.01  # of a buffer that was converted with the model's half()
_OPTIONS = (*_NUMBERS, str, type(None))
_ABSENT = object()
_SYNONYMS = {"swish": "silu", "gelunew": "newgelu", "gelufast": "fastgelu", "gelupython": "gelu"}
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}  # of a LayerNorm, in early versions


def rebuild(anatomy: Anatomy) -> transformers.PreTrainedModel:
    """The transformer of a convertible learner, on the CPU, in float32, in evaluation mode.

    Raises UnsupportedLearner if it is not exactly one of transformers' own, LearnerTruncated if its
    weights cannot be read, ExtraMissing if transformers cannot be loaded.
    """
    transformer = anatomy.transformer
    if transformer is None or transformer.problem:
        reason = transformer.problem if transformer else "it has no transformer"
        raise UnsupportedLearner(f"the learner cannot be rebuilt: {reason}", hint=RUNTIME)
    check_shared(anatomy.weights)
    model = empty_model(
        transformer,
        anatomy,
        fits=lambda sketch: check_fit(sketch, learner_weights(anatomy, transformer, sketch)),
    )
    load_weights(model, learner_weights(anatomy, transformer, model))
    compare_modules(model, anatomy, transformer)
    model.requires_grad_(requires_grad=False).train(mode=False)
    return model


def configuration(model: nn.Module, config: object) -> dict[str, Any]:
    """``config.json`` of a rebuilt model: the settings that shape it, its class and its labels.

    ``config`` is that of the transformer in it; a model without one has only its class.
    """
    if not isinstance(config, transformers.PreTrainedConfig):
        return {"architectures": [type(model).__name__]}
    general = set(transformers.PreTrainedConfig().to_dict())
    kept = {"model_type", "id2label", "label2id"}
    found = {
        name: value
        for name, value in config.to_dict().items()
        if name not in general or name in kept
    }
    return {**found, "architectures": [type(model).__name__]}


def empty_model(
    transformer: Transformer,
    anatomy: Anatomy,
    *,
    fits: Callable[[nn.Module], None] = lambda _sketch: None,
    pooled: bool | None = None,
) -> transformers.PreTrainedModel:
    """A model of the right class and size, with arbitrary weights.

    ``pooled``: whether it has a pooling layer, for classes that take that argument. Before anything
    of the claimed size is built, ``fits`` receives the same model on the meta device, and may
    refuse it. Raises UnsupportedLearner or ExtraMissing.
    """
    name = transformer.cls.name
    model_class = library_class(name)
    options = {} if pooled is None else {"add_pooling_layer": pooled}
    try:
        config_class = model_class.config_class
        shaping = _config(model_class, transformer)
        check_numbers(shaping, anatomy.weights, every=True)
        config = config_class(**{**shaping, **_around(anatomy, transformer)})
        traceable(model_class, config)
        sketch = sketched(
            lambda: model_class(copy.deepcopy(config), **options), shaping, anatomy.weights
        )
        check_total(sketch, anatomy.weights)
        fits(sketch)
        model = model_class(config, **options)
    except UnsupportedLearner:
        raise
    except Exception as error:  # any error of a class on a configuration from a file
        raise UnsupportedLearner(
            f"transformers {transformers.__version__} cannot build {name} from the learner's "
            f"configuration: {' '.join(str(error).split())}",
            hint=RUNTIME,
        ) from error
    if not isinstance(model, transformers.PreTrainedModel):
        raise UnsupportedLearner(f"{name} is not a transformers model", hint=RUNTIME)
    return model


def library_class(name: str) -> Any:
    """A class of transformers. Raises UnsupportedLearner or ExtraMissing."""
    try:
        return getattr(transformers, name)
    except AttributeError as error:
        raise UnsupportedLearner(
            f"transformers {transformers.__version__} has no class {name}", hint=RUNTIME
        ) from error
    except Exception as error:  # transformers imports the class now, with its imports
        raise explain("transformers", error) from error


def traceable(model_class: Any, config: Any) -> None:
    """Choose the implementations of attention and of experts that can be traced and fused.

    Chunks of the feed-forward layer save memory in training, and change no answer.
    """
    config.chunk_size_feed_forward = 0
    config._attn_implementation = "eager"  # noqa: SLF001 - the only switch, and what can be fused
    if model_class._can_set_experts_implementation():  # noqa: SLF001 - likewise
        config._experts_implementation = "batched_mm"  # noqa: SLF001 - the one that can be traced


def _config(
    model_class: type[transformers.PreTrainedModel], transformer: Transformer
) -> dict[str, Any]:
    """The part of the configuration that shapes this architecture."""
    config_class: Any = model_class.config_class
    general = set(transformers.PreTrainedConfig().to_dict())
    shaping = (set(config_class().to_dict()) | _asked_for(model_class) | _STARTS) - general
    found = {
        name: _without(value, general) if isinstance(value, dict) else value
        for name, value in transformer.config.items()
        if name in shaping
    }
    if found.get("is_decoder") is True:
        raise UnsupportedLearner("the learner's transformer is a decoder", hint=RUNTIME)
    return found


def _around(anatomy: Anatomy, transformer: Transformer) -> dict[str, Any]:
    """The settings that follow from the rest of the learner: its labels and its padding."""
    padding = _padding(anatomy.tree, transformer)
    names = anatomy.labels.names
    return {
        **({} if padding is None else {"pad_token_id": padding}),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _without(inner: Mapping[str, Any], general: set[str]) -> dict[str, Any]:
    """A dictionary, perhaps of nested configurations, without the ``general`` settings."""
    kept = general - {"model_type"}
    return {
        name: _without(value, general) if isinstance(value, dict) else value
        for name, value in inner.items()
        if name not in kept
    }


def _asked_for(model_class: type[transformers.PreTrainedModel]) -> set[str]:
    """Settings that a model's code reads although its configuration has no default for them.

    DeBERTa's ``share_att_key`` and ``norm_rel_ebd`` are examples.
    """
    source = inspect.getsource(sys.modules[model_class.__module__])
    asked = set(re.findall(r"""getattr\((?:self\.)?config, ["'](\w+)["']""", source))
    return asked - {"num_labels"}  # which follows from the labels


def _padding(modules: tuple[Module, ...], transformer: Transformer) -> int | None:
    """The padding id that the embeddings actually use.

    In transformers 2 it was fixed in the class, and the configuration may say something else.
    """
    for module in modules:
        padding = module.attributes.get("padding_idx")
        is_embeddings = module.cls is not None and module.cls.name.endswith("Embeddings")
        if is_embeddings and type(padding) is int and module.path.startswith(transformer.path):
            return padding
    return None


def learner_weights(
    anatomy: Anatomy, transformer: Transformer, model: nn.Module
) -> dict[str, Tensor]:
    """The learner's weights by ``model``'s names for them, without unused ones."""
    places = model.state_dict()
    prefix = f"{transformer.path}." if transformer.path else ""
    found: dict[str, Tensor] = {}
    for name, tensor in anatomy.weights.items():
        *path, last = name.removeprefix(prefix).split(".")
        if path and path[-1] == "LayerNorm":
            last = _OLD_NAMES.get(last, last)
        place = ".".join((*path, last))
        if not is_spare(place, places):
            found[place] = tensor
    return found


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights one by one, so that two full sets are never in memory.

    Raises UnsupportedLearner unless names and shapes match and every number is finite.
    """
    check_fit(model, weights)
    with torch.no_grad():
        for name, place in model.state_dict().items():
            place.copy_(read_finite(name, weights[name]))


def check_fit(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise UnsupportedLearner unless names and shapes of the weights match the model."""
    places = model.state_dict()
    check_names(places.keys(), weights.keys(), f"do not fit {type(model).__name__}")
    for name, place in places.items():
        if weights[name].shape != tuple(place.shape):
            raise UnsupportedLearner(
                f"{name} is {by(weights[name].shape)} in the learner, but its configuration makes "
                f"it {by(tuple(place.shape))}",
                hint=RUNTIME,
            )


def check_names(wanted: AbstractSet[str], found: AbstractSet[str], message: str) -> None:
    """Raise UnsupportedLearner unless the weights have exactly these names.

    ``message`` describes the mismatch, after "the learner's weights".
    """
    missing, unknown = sorted(wanted - found), sorted(found - wanted)
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not in the model"
        raise UnsupportedLearner(
            f"the learner's weights {message}: {what} "
            f"({len(missing)} missing, {len(unknown)} unexpected)",
            hint=RUNTIME,
        )


def is_spare(name: str, places: Collection[str]) -> bool:
    """Whether the rebuilt model computes this weight itself, or does not use it."""
    if name in places:
        return False
    if name.rsplit(".", 1)[-1] in COMPUTED:
        return True
    return "pooler" in name.split(".") and not any("pooler" in key.split(".") for key in places)


def read_finite(name: str, tensor: Tensor) -> torch.Tensor:
    """The numbers of a weight. Raises LearnerTruncated, and UnsupportedLearner for a NaN."""
    value = read_tensor(tensor)
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise UnsupportedLearner(
            f"{name} contains NaN or infinite numbers: the training diverged",
            hint="train again with a lower learning rate, and export a learner that predicts",
        )
    return value


def read_tensor(tensor: Tensor) -> torch.Tensor:
    """The numbers of a tensor, read from the file. Raises LearnerTruncated."""
    dtype = getattr(torch, tensor.dtype)
    if tensor.count == 0:
        return torch.empty(tensor.shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(tensor.read()), dtype=dtype)
    if flat.numel() != tensor.span:
        raise LearnerTruncated(
            "a tensor in the file is incomplete", hint="export the learner again"
        )
    return flat.as_strided(tensor.shape, tensor.stride)


def by(shape: tuple[int, ...]) -> str:
    """A shape as text: ``320 x 16``."""
    return " x ".join(map(str, shape)) or "a number"


def compare_modules(model: nn.Module, anatomy: Anatomy, transformer: Transformer) -> None:
    """Raise UnsupportedLearner if parts of a model were exchanged for others of the same size."""
    rebuilt = dict(model.named_modules())
    prefix = f"{transformer.path}." if transformer.path else ""
    for module in anatomy.tree:
        twin = rebuilt.get(module.path.removeprefix(prefix))
        if twin is None or module.cls is None or not module.path.startswith(prefix):
            continue
        theirs, ours = module.cls.name, type(twin).__name__
        leaf = not module.children and not module.tensors
        plain = module.cls.module.startswith("torch.nn") and hasattr(nn, ours)
        if (plain or leaf) and theirs != ours and not {theirs, ours} <= _WITHOUT_EFFECT:
            raise _exchanged(module, theirs, ours)
        _compare_computed(module, twin)
        for name, value in module.attributes.items():
            if not (name in _OF_A_RUN or name.startswith("_") or "drop" in name):
                other = getattr(twin, name, _ABSENT)
                _compare_attribute(module, name, value, other, plain=plain)


def _compare_computed(module: Module, twin: nn.Module) -> None:
    """Refuse a buffer that the module's class computes and someone has changed since.

    Examples are the positions and token types of BERT, and the frequencies of rotary embeddings.
    """
    ours = dict(twin.named_buffers(recurse=False))
    stored = {name: tensor for name, tensor in module.tensors.items() if name in COMPUTED}
    for name, tensor in {**stored, **module.computed}.items():
        if name in ours and tuple(ours[name].shape) == tensor.shape:
            theirs = read_tensor(tensor).double()
            if not torch.allclose(theirs, ours[name].double(), rtol=_ROUNDED):
                where = module.name_of(name)
                raise UnsupportedLearner(
                    f"{where} has other numbers in the learner than in transformers", hint=RUNTIME
                )


def _compare_attribute(
    module: Module, name: str, theirs: object, ours: object, *, plain: bool
) -> None:
    """Refuse a number or a function that differs from what the configuration says.

    ``plain``: the module is torch's own, so its other options are compared, too. An embedding with
    a ``max_norm`` shortens the vectors that it reads, and a GELU may be approximated.
    """
    kinds = _OPTIONS if plain else _NUMBERS
    unused = name == "p" or (name == "padding_idx" and None in (theirs, ours))
    if type(theirs) in kinds and type(ours) in kinds and theirs != ours and not unused:
        raise _exchanged(module, f"{name} {theirs}", f"{name} {ours}")
    if isinstance(theirs, Global) and callable(ours):
        named = _function_name(theirs.name)
        twin = _function_name(getattr(ours, "__name__", type(ours).__name__))
        if named != twin:
            raise _exchanged(module, f"{name} {theirs.name}", f"{name} {twin}")


def _function_name(name: str) -> str:
    """The name of an activation, whether it is a function or a transformers module."""
    plain = name.lower().removesuffix("activation").strip("_").replace("_", "")
    return _SYNONYMS.get(plain, plain)


def _exchanged(module: Module, theirs: str, ours: str) -> UnsupportedLearner:
    return UnsupportedLearner(
        f"{module.path} is {theirs} in the learner, but {ours} in transformers", hint=RUNTIME
    )

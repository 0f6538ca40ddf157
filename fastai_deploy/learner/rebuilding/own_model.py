"""A learner whose model is of the user's own classes, rebuilt with the user's definitions.

The user's ``forward`` is called as fastai calls it: with the ids of a batch and nothing else.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fastai_deploy.errors import DefinitionsError, UnsupportedLearner
from fastai_deploy.learner.anatomy import Anatomy
from fastai_deploy.learner.architecture import Transformer, configured
from fastai_deploy.learner.definable import innermost
from fastai_deploy.learner.definitions import Definitions
from fastai_deploy.learner.forward import UNKNOWN
from fastai_deploy.learner.reading.values import Global
from fastai_deploy.learner.rebuilding.assembly import Assembly
from fastai_deploy.learner.rebuilding.classifier import Classifier, first_position
from fastai_deploy.learner.rebuilding.rebuild import (
    compare_modules,
    learner_weights,
    load_weights,
)
from fastai_deploy.learner.rebuilding.sketch import check_shared

# Texts padded on the right must be answered as alone, up to float32's rounding, for padding to be
# of no consequence; a model that attends to it is off by far more on some text.
UNMOVED = 1e-5
_PADDINGS = (1, 3, 16)  # tokens of padding that are tried


class OwnClassifier(Classifier):
    """A model of the user's own as a function from ids (batch, sequence) to logits."""

    def __init__(self, model: nn.Module, definitions: Definitions, left_out: Sequence[str]) -> None:
        nn.Module.__init__(self)
        self.model = model  # type: ignore[assignment] # of the user's own class
        self.mask_pad = -1  # of no meaning here: the user's forward makes its own mask
        self.first_position = None
        self._definitions = definitions
        self._left_out = tuple(left_out)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The ids alone."""
        return ("input_ids",)

    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ARG002 - as Classifier has it
        """The ids alone."""
        return (ids,)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,  # noqa: ARG002
    ) -> torch.Tensor:
        """The scores of every label; of an answer of several parts the first, as fastai takes it.

        Raises DefinitionsError when the user's code does.
        """
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer: Any = self.model(input_ids)
        except Exception as error:  # the user's code raises what it likes
            raise self._failed(error) from error
        scores = getattr(answer, "logits", None)
        if scores is None:
            scores = answer[0] if isinstance(answer, (tuple, list)) else answer
        if not isinstance(scores, torch.Tensor):
            raise self._definitions.failure(
                f"forward() of {type(self.model).__name__} gives no tensor",
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
                hint=f"{missing[0]} is an object that reading cannot make: set it in the class "
                f"body in {self._definitions.path.name}",
            )
        return failure


def rebuild_own(anatomy: Anatomy, definitions: Definitions) -> tuple[Transformer, OwnClassifier]:
    """The model of a learner, put together with the user's definitions, ready to answer.

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
    return described, OwnClassifier(model, definitions, assembly.left_out).eval()


def _described(anatomy: Anatomy, root: str) -> Transformer:
    """The whole model as what stands for a transformer elsewhere: its place, class and outputs."""
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
    """A hook that counts positions as RoBERTa did in transformers before 2.4."""

    def count(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids = args[0] if args else kwargs.get("input_ids")
        if isinstance(ids, torch.Tensor) and kwargs.get("position_ids") is None:
            positions = torch.arange(ids.shape[1], device=ids.device) + first
            kwargs = {**kwargs, "position_ids": positions.unsqueeze(0)}
        return args, kwargs

    return count


def check_outputs(classifier: OwnClassifier, ids: Sequence[int], labels: int) -> None:
    """Raise UnsupportedLearner unless one text is answered with a score for each label."""
    with torch.no_grad():
        scores = classifier(torch.tensor([list(ids)]))
    if tuple(scores.shape) != (1, labels):
        raise UnsupportedLearner(
            f"the model gives scores of shape {tuple(scores.shape)} for one text, but the learner "
            f"has {labels} labels",
            hint="export the learner again, with the labels that it was trained on",
        )


def ignores_padding(
    classifier: OwnClassifier, texts: Sequence[Sequence[int]], pad: int, longest: int
) -> bool:
    """Whether padding on the right changes no answer, found by trying it on every text."""
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

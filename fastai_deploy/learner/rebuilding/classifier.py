"""The rebuilt model as a function from ids to scores, as the learner's own wrapper is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    import transformers

    from fastai_deploy.learner.anatomy import Anatomy

OUTPUT = "logits"


class Classifier(nn.Module):
    """Ids to logits.

    ``input_ids`` of shape (batch, sequence), and where the learner does not find padding itself
    ``attention_mask`` of the same shape, to logits of shape (batch, labels).

    ``mask_pad`` is the id that the learner's wrapper takes for padding wherever it stands, also in
    the middle of a text; None where all tokens of a text are attended to. ``first_position`` is the
    number of the first position where positions are simply counted, as RoBERTa did in transformers
    before 2.4; later versions leave padding out of the count, which is left to the model.
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        *,
        mask_pad: int | None,
        first_position: int | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.mask_pad = mask_pad
        self.first_position = first_position

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return ("input_ids",) if self.mask_pad is not None else ("input_ids", "attention_mask")

    @property
    def config(self) -> object:
        """The configuration of the transformer in it; None where there is none."""
        found = (getattr(each, "config", None) for each in self.model.modules())
        return next((each for each in found if hasattr(each, "vocab_size")), None)

    def arguments(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What ``forward`` is called with, in the order of ``inputs``."""
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
        if scored_at_end(self.model):
            return _at_last_end(self.model, input_ids, attention_mask)
        answer = self.model(input_ids, attention_mask=attention_mask, return_dict=False, **options)
        scores: torch.Tensor = answer[0]
        return scores


def scored_at_end(model: nn.Module) -> bool:
    """Whether a model is an encoder with a decoder that scores a text at its last end token.

    BART, T5 and their kin are. They refuse batches in which some text spells the token out, and
    what they do instead cannot be traced for every length.
    """
    config = getattr(model, "config", None)
    return getattr(config, "is_encoder_decoder", False) is True and hasattr(
        model, "classification_head"
    )


def _at_last_end(
    model: transformers.PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """What the ``forward`` of such a model gives for each text alone, of shape (batch, labels)."""
    given: dict[str, torch.Tensor] = {}
    shift: Any = getattr(model, "_shift_right", None)
    if shift is not None:  # T5, whose forward does this; the others do it within
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
    """Where a RoBERTa of transformers before 2.4 begins to count; None for every other model."""
    early = anatomy.tokenizer is not None and anatomy.tokenizer.era in ("2.1", "2.2")
    for module in anatomy.tree:
        padding = module.attributes.get("padding_idx")
        if module.cls is not None and module.cls.name == "RobertaEmbeddings" and early:
            return padding + 1 if type(padding) is int else None
    return None

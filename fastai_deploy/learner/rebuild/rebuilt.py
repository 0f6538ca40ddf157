"""A rebuilt learner: its model in torch, with its own tokenizer and text rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.definitions import Definitions
from fastai_deploy.learner.examine.anatomy import Anatomy
from fastai_deploy.learner.examine.architecture import Transformer
from fastai_deploy.learner.examine.unproven import RUNTIME
from fastai_deploy.learner.rebuild.answers import (
    Encoder,
    probabilities,
    session_scores,
    torch_scores,
)
from fastai_deploy.learner.rebuild.onnx_export import (
    Checks,
    Graph,
    export_onnx,
    masks_padding,
    open_graph,
)
from fastai_deploy.learner.rebuild.transformer import Classifier, first_position, rebuild
from fastai_deploy.learner.rebuild.user_model import (
    check_outputs,
    ignores_padding,
    rebuild_user_model,
)
from fastai_deploy.learner.text.rules import TextRules, longest
from fastai_deploy.learner.text.tokenizer import Tokenizer, fast_vocabulary
from fastai_deploy.learner.text.tokenizer_json import Json
from fastai_deploy.parity.goldens import Case
from fastai_deploy.runtime.parity import compare

Answers = list[tuple[float, ...]]
SAME = 1e-5  # smaller differences of probabilities are float32 rounding


@dataclass(frozen=True, eq=False, repr=False)
class Rebuilt:
    """A convertible learner, rebuilt.

    ``max_length`` is in tokens. ``masks_padding``: whether texts of different lengths may share a
    batch. ``mask_known`` is false if neither the file nor the goldens show whether the learner
    attends to a padding token that occurs in a text.
    """

    anatomy: Anatomy
    transformer: Transformer
    text: TextRules
    serialized: Json
    encoder: Encoder
    classifier: Classifier
    max_length: int
    pad_token_id: int
    masks_padding: bool
    mask_known: bool

    def cuts(self, text: str) -> bool:
        """Whether a text has more tokens than the model reads."""
        return self.encoder.cuts(text)

    def answer(self, texts: Iterable[str]) -> Answers:
        """Probabilities from the model in torch."""
        encoded = [self.encoder(text) for text in texts]
        return probabilities(encoded, torch_scores(self.classifier), self.anatomy.loss.activation)

    def answer_onnx(self, graph: Graph, texts: Iterable[str]) -> Answers:
        """Probabilities from the exported graph."""
        encoded = [self.encoder(text) for text in texts]
        scores = session_scores(open_graph(graph.path), graph.inputs)
        return probabilities(encoded, scores, self.anatomy.loss.activation)

    def export(self, path: Path) -> Graph:
        """Write the model as an ONNX graph. Raises UnsupportedLearner or FileError."""
        checks = Checks(
            self.classifier,
            vocabulary=self.encoder.vocabulary,
            max_length=self.max_length,
            pad=self.pad_token_id,
        )
        return export_onnx(self.classifier, path, checks)


def rebuild_learner(
    anatomy: Anatomy, cases: Sequence[Case], definitions: Definitions | None = None
) -> Rebuilt:
    """Rebuild a convertible learner.

    ``cases`` with the learner's own answers decide what the file does not show; ``definitions``
    holds the user's classes, if the model uses any.
    Raises UnsupportedLearner, DefinitionsError, LearnerTruncated or ExtraMissing.
    """
    if definitions is not None:
        return _rebuild_own(anatomy, cases, definitions)
    transformer, tokenizer, text = anatomy.transformer, anatomy.tokenizer, anatomy.text
    if transformer is None or tokenizer is None or text is None:
        raise UnsupportedLearner("the learner is not a transformer with a tokenizer", hint=RUNTIME)
    model = rebuild(anatomy)
    limit = longest(text.max_length, model.config, model)
    serialized = anatomy.tokenizer_json()
    encoder = Encoder(serialized, text.steps, limit)
    check_vocabulary(encoder, model)
    pad = pad_of(tokenizer, serialized, model.config)
    forward = transformer.forward
    mask_pad = pad if forward.pad_token_id is None else forward.pad_token_id
    first = first_position(anatomy)
    masked = Classifier(model, mask_pad=mask_pad, first_position=first).eval()
    unmasked = Classifier(model, mask_pad=None, first_position=first).eval()
    chosen, known = (masked, True) if forward.mask == "from-ids" else (unmasked, True)
    if forward.mask == "unknown":
        chosen, known = _settle(masked, unmasked, encoder, anatomy, cases)
    return Rebuilt(
        anatomy=anatomy,
        transformer=transformer,
        text=text,
        serialized=serialized,
        encoder=encoder,
        classifier=chosen,
        max_length=limit,
        pad_token_id=pad,
        masks_padding=masks_padding(chosen, vocabulary=encoder.vocabulary, pad=pad),
        mask_known=known,
    )


def _rebuild_own(anatomy: Anatomy, cases: Sequence[Case], definitions: Definitions) -> Rebuilt:
    tokenizer, text = anatomy.tokenizer, anatomy.text
    if tokenizer is None or text is None:
        raise UnsupportedLearner("the learner has no tokenizer of transformers", hint=RUNTIME)
    transformer, classifier = rebuild_user_model(anatomy, definitions)
    config = classifier.config
    limit = longest(text.max_length, config)
    serialized = anatomy.tokenizer_json()
    encoder = Encoder(serialized, text.steps, limit)
    pad = pad_of(tokenizer, serialized, config)
    texts = [encoder(case.text) for case in cases]
    check_outputs(classifier, texts[0], len(anatomy.labels.names))
    alike = ignores_padding(classifier, texts, pad, limit)
    return Rebuilt(
        anatomy=anatomy,
        transformer=transformer,
        text=text,
        serialized=serialized,
        encoder=encoder,
        classifier=classifier,
        max_length=limit,
        pad_token_id=pad,
        mask_known=True,
        masks_padding=alike,
    )


def check_vocabulary(encoder: Encoder, model: transformers.PreTrainedModel) -> None:
    """Raise UnsupportedLearner if the tokenizer has tokens that the model does not know."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    # Perceiver's input embeddings are not a table of tokens.
    rows = weight.shape[0] if isinstance(weight, torch.Tensor) else model.config.vocab_size
    if encoder.vocabulary > rows:
        raise UnsupportedLearner(
            f"the tokenizer has {encoder.vocabulary} tokens, but the model knows {rows}",
            hint="use the tokenizer that the model was trained with",
        )


def _settle(
    masked: Classifier,
    unmasked: Classifier,
    encoder: Encoder,
    anatomy: Anatomy,
    cases: Sequence[Case],
) -> tuple[Classifier, bool]:
    """The candidate that answers as the learner did, and whether the goldens decide it.

    Both agree on every text without a literal padding token. If nothing decides, the wrapper is
    assumed to mask it, as every published one does.
    """
    answered = [case for case in cases if case.probabilities is not None]
    encoded = [encoder(case.text) for case in answered]
    differences = [
        compare(
            [case.text for case in answered],
            [case.probabilities or () for case in answered],
            probabilities(encoded, torch_scores(each), anatomy.loss.activation),
            threshold=anatomy.threshold,
        ).rows
        for each in (masked, unmasked)
    ]
    for with_mask, without in zip(*differences, strict=True):
        if abs(with_mask.difference - without.difference) > SAME:
            return (masked, True) if with_mask.difference < without.difference else (unmasked, True)
    return masked, False


def pad_of(tokenizer: Tokenizer, serialized: Json, config: object) -> int:
    """The id that pads shorter texts in a batch; any will do if the model masks it.

    A tokenizer that splits at no special token does not say it, but the model's configuration does.
    """
    token = tokenizer.special.get("pad")
    found = fast_vocabulary(serialized).get(token.text) if token else None
    if found is None:
        found = getattr(config, "pad_token_id", None)
    return found if isinstance(found, int) and found >= 0 else 0

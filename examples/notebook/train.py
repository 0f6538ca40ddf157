"""Trains a tiny fastai learner in a few seconds, to stand for yours.

    pip install fastai==2.8.12 transformers pandas

A DistilBERT with random weights learns twelve adjectives. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import tokenizers
import torch
from fastai.text.all import (
    Categorize,
    ColReader,
    CrossEntropyLossFlat,
    DataBlock,
    Learner,
    RandomSplitter,
    TensorText,
    Transform,
    TransformBlock,
    accuracy,
)
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

GOOD = ("good", "brilliant", "superb", "fun", "lovely", "charming")
BAD = ("bad", "awful", "dull", "terrible", "boring", "weak")
THINGS = ("plot", "cast", "ending", "film", "acting", "music")
LENGTH, EPOCHS = 64, 4


def sentences() -> pd.DataFrame:
    """Sentences with their labels."""
    rows = [
        (f"the {thing} was {word} and the {other} was {word}", label)
        for label, words in (("negative", BAD), ("positive", GOOD))
        for word in words
        for thing in THINGS
        for other in THINGS
    ]
    return pd.DataFrame(rows, columns=["text", "label"])


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of the sentences."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "was", "and", *GOOD, *BAD, *THINGS]
    made = tokenizers.Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_max_length=LENGTH
    )


class Encode(Transform):
    """Text to token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer

    def encodes(self, text: str) -> TensorText:  # noqa: D102 - fastai's
        return TensorText(self.tokenizer(text, truncation=True, max_length=64)["input_ids"])


class Classifier(nn.Module):
    """The transformer, as fastai calls it."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, ids: Tensor) -> Tensor:  # noqa: D102 - torch's
        return self.transformer(ids, attention_mask=(ids != 0).long()).logits


def pad(samples: Any) -> Any:  # fastai casts to what is annotated here
    """Give the texts of one batch the same length."""
    longest = max(len(sample[0]) for sample in samples)
    return [
        (TensorText(torch.cat([ids, torch.zeros(longest - len(ids), dtype=torch.long)])), *rest)
        for ids, *rest in samples
    ]


def make_learner() -> Learner:
    """A trained learner."""
    torch.manual_seed(7)
    tokenizer = word_tokenizer()
    block = DataBlock(
        blocks=(
            TransformBlock(type_tfms=Encode(tokenizer), dls_kwargs={"before_batch": pad}),
            TransformBlock(type_tfms=Categorize()),
        ),
        get_x=ColReader("text"),
        get_y=ColReader("label"),
        splitter=RandomSplitter(seed=7),
    )
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=16, n_layers=1, n_heads=2, hidden_dim=32,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    learn = Learner(
        block.dataloaders(sentences(), bs=32),
        Classifier(DistilBertForSequenceClassification(config)),
        loss_func=CrossEntropyLossFlat(),
        metrics=accuracy,
        path=Path.cwd(),
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(EPOCHS, 1e-2)
    return learn

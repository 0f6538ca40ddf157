"""A small text classifier, trained with the real fastai 2 and transformers in a few seconds.

Not a test: ``make test-learner-runtime`` runs it, in an environment that has both.
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
from torch import nn
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

GOOD = ("good", "brilliant", "superb", "fun", "lovely", "charming")
BAD = ("bad", "awful", "dull", "terrible", "boring", "weak")
THINGS = ("plot", "cast", "ending", "film", "acting", "music")


def frame() -> pd.DataFrame:
    """Sentences with their labels."""
    rows = [
        (f"the {thing} was {word} and the {other} was {word}", label)
        for label, words in (("neg", BAD), ("pos", GOOD))
        for word in words
        for thing in THINGS
        for other in THINGS
    ]
    return pd.DataFrame(rows, columns=["text", "label"])


def tokenizer() -> PreTrainedTokenizerFast:
    """A word tokenizer of transformers, made here because no hub is asked."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "was", "and", *GOOD, *BAD, *THINGS]
    made = tokenizers.Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=64,
    )  # fmt: skip


class Encode(Transform):  # type: ignore[misc]
    """Text to ids."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encodes(self, text: str) -> Any:
        return TensorText(self.tokenizer(text, truncation=True, max_length=64)["input_ids"])


class Wrapper(nn.Module):
    """The transformer, as fastai calls it."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, ids: Any) -> Any:
        return self.transformer(ids, attention_mask=(ids != 0).long()).logits


class OwnHead(nn.Module):
    """A head that transformers does not know: only the learner runtime or definitions serve it."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.body = transformer.distilbert
        self.head = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, ids: Any) -> Any:
        mask = (ids != 0).long()
        hidden = self.body(ids, attention_mask=mask)[0] * mask.unsqueeze(-1)
        return self.head(hidden.sum(1) / mask.sum(1, keepdim=True))


def make(wrap: Any) -> Learner:
    """A trained learner around the transformer."""
    torch.manual_seed(7)
    made = tokenizer()
    block = DataBlock(
        blocks=(
            TransformBlock(type_tfms=Encode(made), dls_kwargs={"before_batch": _pad}),
            TransformBlock(type_tfms=Categorize()),
        ),
        get_x=ColReader("text"),
        get_y=ColReader("label"),
        splitter=RandomSplitter(seed=7),
    )
    dls = block.dataloaders(frame(), bs=32)
    config = DistilBertConfig(
        vocab_size=len(made), dim=16, n_layers=1, n_heads=2, hidden_dim=32,
        max_position_embeddings=64,
    )  # fmt: skip
    learn = Learner(
        dls,
        wrap(DistilBertForSequenceClassification(config)),
        loss_func=CrossEntropyLossFlat(),
        metrics=accuracy,
        path=Path.cwd(),
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 5e-3)
    return learn


def _pad(samples: Any) -> Any:
    length = max(len(sample[0]) for sample in samples)
    return [
        (TensorText(torch.cat([s[0], torch.zeros(length - len(s[0]), dtype=torch.long)])), *s[1:])
        for s in samples
    ]


def make_learner() -> Learner:
    """For ``fdeploy export train:make_learner``."""
    return make(Wrapper)


if __name__ == "__main__":
    make(Wrapper).export(Path("convertible.pkl").absolute())
    make(OwnHead).export(Path("own_head.pkl").absolute())

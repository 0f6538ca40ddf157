"""A learner of a library that is not fastai, small enough to be loaded in a test.

It has the interface of fastai's ``learn.predict`` (one text at a time; a label, its index, and the
probability of each label) and the structure of its pickle (the learner with its model, data and
loss), but none of fastai's code: to serve it, the user needs the ``load_learner`` below. Its labels
and its loss have fastai's names, including the module, because fdeploy recognizes them by name.
Run as a script, it writes the pickle, so that its classes are looked up in ``__main__``, as in a
notebook; with a second argument, the learner also holds objects of classes unknown to fdeploy.
"""

import sys
from ipaddress import IPv4Address
from statistics import NormalDist
from types import ModuleType
from typing import Any

import torch
from torch import nn

WORDS = ("good", "fun", "lovely", "bad", "dull", "awful")


class Categorize:
    """The labels."""

    def __init__(self, vocab: list[str]) -> None:
        self.vocab = vocab


class DataLoaders:
    """The learner's description of its data."""

    def __init__(self, vocab: list[str]) -> None:
        self.categorize = Categorize(vocab)


class CrossEntropyLossFlat:
    """A loss with the name of fastai's loss whose activation is softmax."""

    def __init__(self) -> None:
        self.axis = -1


for module in ("fastai", "fastai.data", "fastai.data.transforms", "fastai.losses"):
    sys.modules.setdefault(module, ModuleType(module))
for cls, module in (
    (Categorize, "fastai.data.transforms"),
    (CrossEntropyLossFlat, "fastai.losses"),
):
    cls.__module__ = module
    setattr(sys.modules[module], cls.__name__, cls)


class Bag(nn.Module):
    """Counts of words to scores."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(len(WORDS), 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[-1.0] * 3 + [1.0] * 3, [1.0] * 3 + [-1.0] * 3]))
            self.linear.bias.zero_()

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.linear(counts)
        return scores


class Learner:
    """A model with its tokenizer and labels."""

    def __init__(self) -> None:
        self.model = Bag().eval()
        self.loss_func = CrossEntropyLossFlat()
        self.dls = DataLoaders(["neg", "pos"])
        self.busy = False
        self.kept: list[object] = []

    def predict(self, text: str) -> tuple[str, torch.Tensor, torch.Tensor]:
        if self.busy:
            raise RuntimeError("two texts at a time")
        self.busy = True
        if "crash" in text:
            self.busy = False
            raise ValueError("no such word")
        words = text.lower().split()
        counts = torch.tensor([[float(words.count(word)) for word in WORDS]])
        with torch.no_grad():
            probabilities = self.model(counts).softmax(-1)[0]
        index = probabilities.argmax()
        self.busy = False
        return self.dls.categorize.vocab[int(index)], index, probabilities


def load_learner(path: str) -> Any:
    return torch.load(path, weights_only=False)


if __name__ == "__main__":
    learner = Learner()
    if len(sys.argv) > 2:
        learner.kept = [IPv4Address("127.0.0.1"), NormalDist()]
    torch.save(learner, sys.argv[1])

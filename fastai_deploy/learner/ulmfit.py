"""A ULMFiT learner: an AWD-LSTM classifier, and the words that its texts are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.learner.awd_lstm import AwdLstm, find_awd_lstm
from fastai_deploy.learner.modules import Module
from fastai_deploy.learner.reading.values import Call
from fastai_deploy.learner.roots import Root
from fastai_deploy.learner.text.words import WordRules
from fastai_deploy.learner.text.words_v1 import words_v1
from fastai_deploy.learner.text.words_v2 import words_v2


@dataclass(frozen=True, eq=False, repr=False)
class Ulmfit:
    """The two parts of a ULMFiT learner."""

    model: AwdLstm
    words: WordRules

    @property
    def mismatch(self) -> str:
        """Why the vocabulary is not that of the embedding; empty when it is."""
        words, rows = self.words.size, self.model.vocabulary
        if words == rows:
            return ""
        return f"its vocabulary has {words:,} words, but its embedding has {rows:,} rows"


def find_ulmfit(root: Root, modules: Sequence[Module], calls: Iterable[Call]) -> Ulmfit | None:
    """The parts of a ULMFiT learner; None for a learner of another kind."""
    model = find_awd_lstm(root.major, modules)
    if model is None:
        return None
    return Ulmfit(model, words_v1(root) if root.major == 1 else words_v2(calls))


def facts(ulmfit: Ulmfit) -> dict[str, Any]:
    """What ``fdeploy inspect`` says of it, ready for JSON; lengths are in tokens."""
    model, words = ulmfit.model, ulmfit.words
    return {
        "emb_sz": model.emb_sz,
        "n_hid": model.n_hid,
        "n_layers": model.n_layers,
        "bidirectional": model.bidirectional,
        "bptt": model.bptt,
        "max_len": model.max_len,
        "head": [layer.kind for layer in model.head],
        "embedding": model.vocabulary,
        "vocabulary": words.size,
        "splitter": words.splitter,
        "language": words.language,
        "splitter_in_file": words.splitting is not None,
        "rules": list(words.described),
        "backwards": words.backwards,
        "assumptions": list(words.assumptions),
    }

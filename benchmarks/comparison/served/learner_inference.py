"""The four functions of AWS's toolkit around the original learner."""

import json
import sys
from pathlib import Path

import torch
from fastai.text.all import TensorBase, TensorText, Transform, load_learner
from torch import nn


class TransformersTokenizer(Transform):
    """A copy of the notebook's class, which the pickle refers to."""

    def __init__(self, tokenizer, max_len):
        self.tokenizer, self.max_len = tokenizer, max_len

    def encodes(self, x: str):
        return TensorText(self.tokenizer.encode(x, truncation=True, max_length=self.max_len))


class HFClassifier(nn.Module):
    """A copy of the notebook's class, which the pickle refers to."""

    def __init__(self, hf):
        super().__init__()
        self.hf, self.pad_id = hf, hf.config.pad_token_id

    def forward(self, ids):
        if isinstance(ids, TensorBase):
            ids = ids.as_subclass(torch.Tensor)
        return self.hf(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits


def model_fn(model_dir):
    for each in (TransformersTokenizer, HFClassifier):
        setattr(sys.modules["__main__"], each.__name__, each)
    return load_learner(Path(model_dir) / "learner.pkl")


def input_fn(body, _content_type):
    return json.loads(body)["text"]


def predict_fn(text, learn):
    label, _, probabilities = learn.predict(text)
    return {
        "label": str(label),
        "probabilities": dict(zip(learn.dls.vocab, map(float, probabilities))),
    }


def output_fn(answer, _accept):
    return json.dumps(answer), "application/json"

"""A model in the shape of RoBERTa-base with random weights, and a bundle of its int8 form."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, RobertaConfig, RobertaForSequenceClassification

from fastai_deploy.learner.rebuild.onnx_export import Checks, export_onnx
from fastai_deploy.learner.rebuild.quantize import quantize
from fastai_deploy.learner.rebuild.transformer import OUTPUT, Classifier

LABELS = ("negative", "neutral", "positive")
TEXTS = ("the the the", "the", "the " * 60)
_VOCABULARY = 50265
_LONGEST = 512
_PAD = 1


def classifier(layers: int = 12, attention: str = "eager") -> Classifier:
    """The model in the form for export; ``attention`` is the implementation in transformers."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": _LONGEST + 2,
        "type_vocab_size": 1,
        "num_hidden_layers": layers,
        "num_labels": len(LABELS),
        "pad_token_id": _PAD,
        "attn_implementation": attention,
    }
    model = cast("PreTrainedModel", RobertaForSequenceClassification(RobertaConfig(**settings)))
    made = Classifier(model, mask_pad=_PAD, first_position=None).eval()
    return made.requires_grad_(requires_grad=False)


def checks(model: Classifier) -> Checks:
    """The checks that a graph of the model must pass."""
    return Checks(model, vocabulary=1000, max_length=_LONGEST, pad=_PAD)


def write_roberta_base(folder: Path) -> None:
    """Write the bundle; its goldens are the graph's own answers."""
    folder.mkdir(parents=True)
    model = classifier()
    with tempfile.TemporaryDirectory() as scratch:
        graph = export_onnx(model, Path(scratch) / "float32.onnx", checks(model))
        quantize(graph.path, folder / "model.onnx")
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    goldens = []
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        powers = np.exp(session.run(None, {"input_ids": ids})[0][0].astype(np.float64))
        probabilities = dict(zip(LABELS, (powers / powers.sum()).tolist(), strict=True))
        goldens.append({"text": text, "probabilities": probabilities, "source": "rebuilt"})
    (folder / "goldens.json").write_text(json.dumps({"goldens": goldens}))
    manifest = {
        "format": 2,
        "name": "roberta-base-random",
        "task": "single-label",
        "labels": LABELS,
        "threshold": None,
        "text": {
            "kind": "transformers",
            "steps": ["drop-trailing-nul"],
            "max_length": _LONGEST,
            "padding": "mask",
            "pad_token_id": _PAD,
        },
        "model": {
            "file": "model.onnx",
            "inputs": list(graph.inputs),
            "output": OUTPUT,
            "precision": "int8",
        },
        # As export writes it for int8, which takes its scale from the whole batch: other texts
        # affect an answer slightly.
        "tolerance": 0.04,
        "files": {
            name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
            for name in ("model.onnx", "model.onnx.data", "tokenizer.json", "goldens.json")
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _tokenizer() -> Tokenizer:
    """A byte-level tokenizer in which the one word that the benchmark sends is a single token."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for symbol in (
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "\u0120t",
        "\u0120th",
        "\u0120the",
    ):
        vocabulary[symbol] = len(vocabulary)
    merges = [("\u0120", "t"), ("\u0120t", "h"), ("\u0120th", "e")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer

"""A bundle in the shape of RoBERTa-base, with random weights, fused attention and dynamic int8."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import RobertaConfig, RobertaForSequenceClassification

LABELS = ("negative", "neutral", "positive")
TEXTS = ("the the the", "the", "the " * 60)


class _Logits(torch.nn.Module):
    """The model as a graph sees it: two tensors in, one out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids, attention_mask).logits
        return logits


def write_roberta_base(folder: Path) -> None:
    """Write the bundle; its goldens are the graph's own answers."""
    folder.mkdir(parents=True)
    _write_graph(folder / "model.onnx")
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    goldens = []
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        powers = np.exp(session.run(None, feed)[0][0].astype(np.float64))
        probabilities = dict(zip(LABELS, (powers / powers.sum()).tolist(), strict=True))
        goldens.append({"text": text, "probabilities": probabilities, "source": "rebuilt"})
    (folder / "goldens.json").write_text(json.dumps({"goldens": goldens}))
    manifest = {
        "format": 1,
        "name": "roberta-base-random",
        "task": "single-label",
        "labels": LABELS,
        "threshold": None,
        "text": {
            "kind": "transformers",
            "steps": ["drop-trailing-nul"],
            "max_length": 512,
            "padding": "mask",
            "pad_token_id": 1,
        },
        "model": {
            "file": "model.onnx",
            "inputs": ["input_ids", "attention_mask"],
            "output": "logits",
            "precision": "int8",
        },
        # Dynamic int8 takes its scale from the whole batch, so neighbours are felt a little.
        "tolerance": 0.05,
        "files": {
            name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
            for name in ("model.onnx", "tokenizer.json", "goldens.json")
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _write_graph(path: Path) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "num_labels": len(LABELS),
        "attn_implementation": "eager",  # the one that the optimizer knows how to fuse
    }
    classifier: torch.nn.Module = RobertaForSequenceClassification(RobertaConfig(**settings))
    model = _Logits(classifier.eval())
    ids = torch.randint(5, 1000, (2, 16))
    axes = {0: "batch", 1: "sequence"}
    with tempfile.TemporaryDirectory() as scratch:
        exported, fused = f"{scratch}/exported.onnx", f"{scratch}/fused.onnx"
        torch.onnx.export(
            model,
            (ids, torch.ones_like(ids)),
            exported,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
            dynamo=False,
            opset_version=17,
        )
        optimize_model(
            exported, model_type="bert", num_heads=12, hidden_size=768, opt_level=0
        ).save_model_to_file(fused)
        quantize_dynamic(
            fused,
            str(path),
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def _tokenizer() -> Tokenizer:
    """Bytes, and the one word that the benchmark sends, as one token."""
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

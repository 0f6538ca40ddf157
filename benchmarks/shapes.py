"""Models in the shape of RoBERTa-base and MiniLM with random weights, and bundles of them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from fastai_deploy.learner.rebuild.onnx_export import Checks, export_onnx
from fastai_deploy.learner.rebuild.quantize import quantize
from fastai_deploy.learner.rebuild.transformer import OUTPUT, Classifier

LABELS = ("negative", "neutral", "positive")
PRECISIONS = ("int8", "float32")
REVIEWS = Path(__file__).parents[1] / "tests" / "learners" / "reviews.csv"
_LONGEST = 512
_VOCABULARY = 4000  # of the tokenizer; the models have their usual number of embeddings
_GOLDENS = 3


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, and its kind of tokenizer."""

    name: str
    config: Any
    model: Any
    pad: int
    sizes: dict[str, int]


ROBERTA_BASE = Shape(
    "roberta-base",
    RobertaConfig,
    RobertaForSequenceClassification,
    pad=1,
    sizes={
        "vocab_size": 50265,
        "max_position_embeddings": _LONGEST + 2,
        "type_vocab_size": 1,
        "num_hidden_layers": 12,
    },
)
MINILM = Shape(
    "minilm",
    BertConfig,
    BertForSequenceClassification,
    pad=0,
    sizes={
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
)
SHAPES = {shape.name: shape for shape in (ROBERTA_BASE, MINILM)}


def classifier(
    shape: Shape = ROBERTA_BASE, *, layers: int = 0, attention: str = "eager"
) -> Classifier:
    """The model in the form for export; ``attention`` is the implementation in transformers."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        **shape.sizes,
        "num_labels": len(LABELS),
        "pad_token_id": shape.pad,
        "attn_implementation": attention,
    }
    if layers:
        settings["num_hidden_layers"] = layers
    model = cast("PreTrainedModel", shape.model(shape.config(**settings)))
    made = Classifier(model, mask_pad=shape.pad, first_position=None).eval()
    return made.requires_grad_(requires_grad=False)


def checks(model: Classifier) -> Checks:
    """The checks that a graph of the model must pass."""
    return Checks(model, vocabulary=1000, max_length=_LONGEST, pad=model.mask_pad or 0)


def write_bundle(folder: Path, shape: Shape, precision: str = "int8") -> None:
    """Write the bundle; its goldens are the graph's own answers. Raises FileExistsError."""
    folder.mkdir(parents=True)
    model = classifier(shape)
    with tempfile.TemporaryDirectory() as scratch:
        graph = export_onnx(model, Path(scratch) / "model.onnx", checks(model))
        if precision == "int8":
            quantize(graph.path, folder / "model.onnx")
        else:
            for path in graph.path, graph.path.with_name("model.onnx.data"):
                shutil.copy(path, folder / path.name)
    tokenizer = _tokenizer(shape)
    tokenizer.save(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    goldens = []
    for text in reviews()[:_GOLDENS]:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        powers = np.exp(session.run(None, {"input_ids": ids})[0][0].astype(np.float64))
        probabilities = dict(zip(LABELS, (powers / powers.sum()).tolist(), strict=True))
        goldens.append({"text": text, "probabilities": probabilities, "source": "rebuilt"})
    (folder / "goldens.json").write_text(json.dumps({"goldens": goldens}))
    manifest = {
        "format": 2,
        "name": f"{shape.name}-random",
        "task": "single-label",
        "labels": LABELS,
        "threshold": None,
        "text": {
            "kind": "transformers",
            "steps": ["drop-trailing-nul"],
            "max_length": _LONGEST,
            "padding": "mask",
            "pad_token_id": shape.pad,
        },
        "model": {
            "file": "model.onnx",
            "inputs": list(graph.inputs),
            "output": OUTPUT,
            "precision": precision,
        },
        # Dynamic int8 takes its scale from the whole batch: other texts affect an answer slightly.
        "tolerance": 0.04,
        "files": {
            name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
            for name in ("model.onnx", "model.onnx.data", "tokenizer.json", "goldens.json")
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def reviews() -> list[str]:
    """Short texts about films, in English."""
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        return [row["Phrase"] for row in csv.DictReader(file)]


def _tokenizer(shape: Shape) -> Tokenizer:
    """A tokenizer of the shape's own kind, trained on the reviews."""
    if shape is ROBERTA_BASE:
        pairs = Tokenizer(models.BPE())
        pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pairs.decoder = decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        pairs.train_from_iterator(
            reviews(),
            trainers.BpeTrainer(
                vocab_size=_VOCABULARY, special_tokens=special, initial_alphabet=sorted(alphabet)
            ),
        )
        pairs.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        return pairs
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106  # a token of text
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces.train_from_iterator(
        reviews(), trainers.WordPieceTrainer(vocab_size=_VOCABULARY, special_tokens=special)
    )
    pieces.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return pieces

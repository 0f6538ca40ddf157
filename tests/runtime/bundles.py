"""Tiny, real bundles: a tokenizer, an ONNX graph and goldens computed in plain numpy.

The graph is embedding -> ``layers`` rotations -> mean over the unmasked tokens -> weights. A
rotation does not change the size of numbers, so ``layers`` controls how slow the model is, and
little else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Floats = npt.NDArray[np.float64]

_TEXT = (
    "a all and at bad best better book but by can did film fine for from good great had half i in "
    "is it just like long love made me more movie my no not of on one out over plot poor quite "
    "really so some story that the there they thin this time to too up very was we well what when "
    "which who will with word worst would you"
)
WORDS = _TEXT.split()
GOLDEN_TEXTS = (
    "a great film and a very good story",
    "the plot is thin but i like it",
    "no",
    "",
    "what a movie, what a story: " * 12,
    "caf\u00e9 \u4e2d\u6587 \U0001f600 not in the vocabulary",
)
LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 32
HIDDEN = 16


@dataclass(frozen=True)
class TinyBundle:
    """A bundle on disk, with the answers that it must give."""

    folder: Path
    tokenizer: Tokenizer
    weights: Weights
    multi_label: bool

    def expected(self, text: str) -> dict[str, float]:
        """Label to probability, in numpy, from the plain tokenization of the whole text."""
        encoding = self.tokenizer.encode(text.rstrip("\0"))
        ids = encoding.ids
        if len(ids) > MAX_LENGTH:
            ids = [*ids[: MAX_LENGTH - 1], ids[-1]]
        logits = self.weights.logits(ids)
        if self.multi_label:
            probabilities = 1 / (1 + np.exp(-logits))
        else:
            powers = np.exp(logits - logits.max())
            probabilities = powers / powers.sum()
        return dict(zip(LABELS, probabilities.tolist(), strict=True))

    def edit_manifest(self, **changes: Any) -> None:
        """Change top-level keys of the manifest."""
        path = self.folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def edit_text(self, **changes: Any) -> None:
        """Change keys of the manifest's ``text``."""
        text = json.loads((self.folder / "manifest.json").read_text())["text"]
        self.edit_manifest(text={**text, **changes})

    def edit_model(self, **changes: Any) -> None:
        """Change keys of the manifest's ``model``."""
        model = json.loads((self.folder / "manifest.json").read_text())["model"]
        self.edit_manifest(model={**model, **changes})

    def write_goldens(self, goldens: Sequence[Mapping[str, Any]]) -> None:
        """Replace the goldens, and their hash in the manifest."""
        (self.folder / "goldens.json").write_text(json.dumps({"goldens": list(goldens)}))
        self.list_files()

    def list_files(self) -> None:
        """List the folder's files in the manifest, with their hashes."""
        self.edit_manifest(files=_files(self.folder))

    def golden(self, text: str) -> dict[str, Any]:
        """A right golden."""
        return {"text": text, "probabilities": self.expected(text), "source": "rebuilt"}


@dataclass(frozen=True)
class Weights:
    """The numbers of the graph."""

    embedding: Floats
    rotation: Floats
    layers: int
    head: Floats

    def logits(self, ids: Sequence[int]) -> Floats:
        """The graph's logits for one text."""
        hidden = self.embedding[list(ids)] @ np.linalg.matrix_power(self.rotation, self.layers)
        return np.asarray(hidden.mean(axis=0) @ self.head)


def write_bundle(
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    multi_label: bool = False,
    equal_length: bool = False,
    layers: int = 0,
    hidden: int = HIDDEN,
    goldens: Sequence[str] = GOLDEN_TEXTS,
    rows_left_out: int = 0,
) -> TinyBundle:
    """Write a bundle; with ``equal_length`` its graph has no mask and averages over padding too.

    ``rows_left_out`` removes the rows of that many last tokens from the embedding, so that the
    graph fails on them.
    """
    folder.mkdir(parents=True)
    tokenizer = tokenizer or wordpiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = _weights(tokenizer.get_vocab_size() - rows_left_out, hidden, layers)
    onnx.save(
        _graph(weights, masked=not equal_length),
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx.data",
    )
    manifest = {
        "format": 3,
        "name": "tiny",
        "task": "multi-label" if multi_label else "single-label",
        "labels": list(LABELS),
        "threshold": 0.5 if multi_label else None,
        "text": {
            "kind": "transformers",
            "steps": ["drop-trailing-nul"],
            "max_length": MAX_LENGTH,
            "padding": "equal-length" if equal_length else "mask",
            "pad_token_id": 1,
        },
        "model": {
            "forms": [form("fp32")],
            "inputs": ["input_ids"] if equal_length else ["input_ids", "attention_mask"],
            "output": "logits",
            "architecture": "Tiny",
            "parameters": 0,
        },
        "tolerance": 0.0001,
        "gate": {"margin": 0.05, "mean": 0.01, "p99": 0.05},
        "residues": [],
        "provenance": {
            "learner": {"file": "tiny.pkl", "sha256": "0" * 64, "bytes": 1, "fastai": "2"},
            "converter": {"numpy": "2.2.6", "onnxruntime": "1.22.0", "tokenizers": "0.22.0"},
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    bundle = TinyBundle(folder, tokenizer, weights, multi_label)
    bundle.write_goldens([bundle.golden(text) for text in goldens])
    return bundle


def form(precision: str, file: str = "model.onnx") -> dict[str, Any]:
    """An entry of ``model.forms``."""
    return {"precision": precision, "file": file, "proven": True}


def wordpiece() -> Tokenizer:
    """A lower-casing BERT tokenizer over ``WORDS`` and letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    entries = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *WORDS, *".,:!?'\"-"]
    entries += [piece for letter in letters for piece in (letter, f"##{letter}")]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]", "[PAD]", "[CLS]", "[SEP]"])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


PANIC = "zqz " + "the acting was superb " * 8
"""A text on which the tokenizer of ``panicking()`` panics in Rust; it encodes all others."""


def panicking() -> Tokenizer:
    """A tokenizer with a pattern that backtracks until Oniguruma gives up."""
    tokenizer = wordpiece()
    pattern = normalizers.Replace(Regex(r"zqz(?:(?:\w|\s|.)+)+(?<=\x01)"), "")
    tokenizer.normalizer = normalizers.Sequence([pattern, normalizers.BertNormalizer()])
    return tokenizer


def byte_level(*, lowercase: bool = False) -> Tokenizer:
    """A RoBERTa tokenizer: bytes, and merges that build ``WORDS`` from the left."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    merges = []
    for word in (f"\u0120{word}" for word in WORDS):
        for end in range(1, len(word)):
            pair = (word[:end], word[end])
            if word[: end + 1] not in vocabulary:
                vocabulary[word[: end + 1]] = len(vocabulary)
                merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    if lowercase:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def _weights(vocabulary: int, hidden: int, layers: int) -> Weights:
    random = np.random.default_rng(7)
    rotation, _ = np.linalg.qr(random.standard_normal((hidden, hidden)))
    return Weights(
        embedding=random.standard_normal((vocabulary, hidden)),
        rotation=rotation,
        layers=layers,
        head=random.standard_normal((hidden, len(LABELS))) * 2 / np.sqrt(hidden),
    )


def _graph(weights: Weights, *, masked: bool) -> onnx.ModelProto:
    constants: dict[str, npt.NDArray[Any]] = {
        "embedding": weights.embedding.astype(np.float32),
        "rotation": weights.rotation.astype(np.float32),
        "head": weights.head.astype(np.float32),
        "tokens": np.array([1], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
    }
    nodes = [helper.make_node("Gather", ["embedding", "input_ids"], ["hidden_0"])]
    nodes += [
        helper.make_node("MatMul", [f"hidden_{n}", "rotation"], [f"hidden_{n + 1}"])
        for n in range(weights.layers)
    ]
    hidden = f"hidden_{weights.layers}"
    if masked:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", [hidden, "column"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["column", "tokens"], ["count"], keepdims=0),
            helper.make_node("Div", ["sum", "count"], ["mean"]),
        ]
    else:
        nodes.append(helper.make_node("ReduceMean", [hidden, "tokens"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("MatMul", ["mean", "head"], ["logits"]))
    inputs = ["input_ids", "attention_mask"] if masked else ["input_ids"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", len(LABELS)])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _files(folder: Path) -> dict[str, Any]:
    return {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }

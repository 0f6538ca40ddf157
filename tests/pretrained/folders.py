"""Small folders with random weights, written by ``save_pretrained``, of every architecture.

The configurations are those of the tiny learners (``tests/learners/generators/tiny_models.py``).
Tokenizers of the kinds WordPiece and byte-level BPE are trained here; those of SentencePiece are
taken from the tiny learners, which hold them as tokenizer.json.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from fastai_deploy.learner.examine.anatomy import examine
from fastai_deploy.learner.reading.formats import open_archive
from fastai_deploy.learner.text.tokenizer import fast_json
from tests.learner.made import LEARNERS, MADE

_library: Any = transformers  # whose signatures say less than it takes
LABELS = ("negative", "neutral", "positive")
LENGTH = 128  # tokens
_SIZE = 320
_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_MPNET = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
_FUNNEL = ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>", "<s>", "</s>"]
# Settings that belong to a vocabulary and a length of real size.
_SMALL: dict[str, dict[str, Any]] = {
    "doge": {"keep_window_size": 64},
    "eurobert": {"bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4},
}
_HEADS = ("classifier", "score", "classification_head", "logits_proj", "perceiver", "sequence")
_APART = 2.0  # between two texts' scores
_SAMPLE = 4  # texts
_MOST = 100.0  # times that the head is enlarged: rounding grows with it
# The learner whose tokenizer.json a kind of SentencePiece has, and the class that reads it.
_HELD = {
    "albert": ("albert", "AlbertTokenizer"),
    "deberta-v2": ("deberta_v2", "DebertaV2Tokenizer"),
    "xlm-roberta": ("xlm_roberta", "XLMRobertaTokenizer"),
    "camembert": ("camembert", "CamembertTokenizer"),
    "xlnet": ("xlnet", "XLNetTokenizer"),
    "t5": ("t5", "T5Tokenizer"),
}


@functools.cache
def _tiny_models() -> ModuleType:
    """The generators' configurations; their folder is no package."""
    path = LEARNERS / "generators" / "tiny_models.py"
    spec = importlib.util.spec_from_file_location("tiny_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def architectures() -> dict[str, tuple[str, dict[str, Any], str]]:
    """Configuration class, settings and kind of tokenizer, by name."""
    found: dict[str, tuple[str, dict[str, Any], str]] = _tiny_models().ARCHITECTURES
    return found


@functools.cache
def texts() -> tuple[str, ...]:
    """The texts that tokenizers are trained on."""
    with (LEARNERS / "reviews.csv").open(encoding="utf-8", newline="") as file:
        return tuple(row["Phrase"] for row in csv.DictReader(file))


def save(name: str, folder: Path, **more: Any) -> Path:
    """Write a folder of an architecture; ``more`` goes into its configuration."""
    config_class, settings, kind = architectures()[name]
    tokenizer = tokenizer_of(kind)
    config = getattr(transformers, config_class)(
        **{
            **settings,
            "vocab_size": len(tokenizer),
            "id2label": dict(enumerate(LABELS)),
            "label2id": {label: number for number, label in enumerate(LABELS)},
            **_SMALL.get(name, {}),
            **more,
        }
    )
    torch.manual_seed(0)
    model = _library.AutoModelForSequenceClassification.from_config(config)
    spread(model, tokenizer)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def spread(model: Any, tokenizer: Any) -> None:
    """Enlarge the weights, so that texts get answers that differ."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3)
        model.eval()
        heads = [
            module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and module.out_features == len(LABELS)
            and name.startswith(_HEADS)
        ]
        for head in heads:
            _leave_out_the_mean(head, model, tokenizer)
        scores = [_scores(model, tokenizer, text) for text in texts()[:2]]
        apart = float((scores[0] - scores[1]).abs().max())
        for head in heads:
            head.weight.mul_(min(_MOST, max(1.0, _APART / max(apart, 1e-9))))


def _leave_out_the_mean(head: Any, model: Any, tokenizer: Any) -> None:
    """Make a head blind to what all texts have in common, which would decide alone if enlarged."""
    seen: list[torch.Tensor] = []
    read: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, -2)))
    for text in texts()[:_SAMPLE]:
        scores = _scores(model, tokenizer, text)
        if seen:  # of all its tokens, the one that the scores come from
            states = torch.cat(seen)
            away = torch.nn.functional.linear(states, head.weight, head.bias) - scores
            read.append(states[away.abs().sum(dim=-1).argmin()])
            seen.clear()
    hook.remove()
    if read:
        common = torch.nn.functional.normalize(torch.stack(read).mean(dim=0), dim=0)
        head.weight.sub_(torch.outer(head.weight @ common, common))


def _scores(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    ids = torch.tensor([tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"]])
    try:
        found: torch.Tensor = model(ids).logits[0]
    except (IndexError, RuntimeError):  # TAPAS needs a table
        return torch.zeros(len(LABELS))
    return found


@functools.cache
def tokenizer_of(kind: str) -> Any:
    """The tokenizer that transformers gives to a model of this kind."""
    options: dict[str, Any] = {"model_max_length": LENGTH}
    if kind.startswith("wordpiece"):
        lower = kind == "wordpiece"
        vocab = _wordpiece(lower=lower, special=_BERT)
        return _library.BertTokenizer(vocab=vocab, do_lower_case=lower, **options)
    if kind == "funnel":
        vocab = _wordpiece(lower=True, special=_FUNNEL)
        return _library.FunnelTokenizer(vocab=vocab, **options)
    if kind == "mpnet":
        return _library.MPNetTokenizer(vocab=_wordpiece(lower=True, special=_MPNET), **options)
    if kind == "bpe":
        vocab, merges = _byte_level(_ROBERTA)
        return _library.RobertaTokenizer(vocab=vocab, merges=merges, **options)
    if kind == "bpe-bert":
        vocab, merges = _byte_level(_BERT)
        return _library.DebertaTokenizer(vocab=vocab, merges=merges, **options)
    return _held(kind, options)


def _wordpiece(*, lower: bool, special: list[str]) -> dict[str, int]:
    unknown = next(token for token in special if "unk" in token.lower())
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts(), trainers.WordPieceTrainer(vocab_size=_SIZE, special_tokens=special)
    )
    found: dict[str, int] = tokenizer.get_vocab()
    return found


def _byte_level(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator(texts(), vocab_size=_SIZE + 80, special_tokens=special)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _held(kind: str, options: dict[str, Any]) -> Any:
    learner, cls = _HELD[kind]
    with open_archive(MADE / f"{learner}.pkl") as (source, archive):
        held = examine(archive, source.size).tokenizer
        assert held is not None
        made = fast_json(held.attributes)
        special = {f"{role}_token": token.text for role, token in held.special.items()}
    found = Tokenizer.from_str(json.dumps(made))
    found.no_truncation()
    found.no_padding()
    return getattr(transformers, cls)(tokenizer_object=found, **special, **options)

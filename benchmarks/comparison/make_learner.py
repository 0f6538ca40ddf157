"""Create a fastai 2 learner in the shape of a known model, with texts and goldens to measure it.

    python - SHAPE REVIEWS OUT < make_learner.py

Run it in an environment with fastai, on standard input, so that its classes belong to ``__main__``,
as in a notebook. REVIEWS is a CSV file with the columns ``Phrase`` and ``Label3``. OUT will hold

    learner.pkl     written by ``learn.export``
    huggingface/    the same model and tokenizer, written by ``save_pretrained``
    texts.json      {"12": [text, ...], ..., "mixture": [...]}, keyed by tokens, special ones included
    golden.jsonl    some of these texts with the answers of ``learn.predict`` from the reloaded learner

The weights are random (fixed seed) with twice the default standard deviation. With the default, answers
are nearly alike; with this, rounding matters as little as for a trained model. The last layer is scaled
so that answers differ between texts as much as ``RANGE`` says. Its bias makes one label win every text:
random answers are nearly tied, and rounding would change the label, which says nothing about a trained
model.
"""

import json
import random
import sys
from pathlib import Path

import pandas as pd
import tokenizers
import torch
import transformers
from fastai.text.all import (
    CategoryBlock,
    ColReader,
    CrossEntropyLossFlat,
    DataBlock,
    Learner,
    RandomSplitter,
    TensorBase,
    TensorText,
    Transform,
    TransformBlock,
    load_learner,
    pad_input,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn

SEED = 20261125
LABELS = ["negative", "neutral", "positive"]
DECIDED = (0.0, 1.5, -1.5)  # logits of an average text
WIDTH = 0.04  # standard deviation of the weights
RANGE = 1.0  # how far the logits of texts differ, at most
LENGTHS = (12, 92, 400)
EACH = 16  # texts of each length
MIXTURE = 64
SHORTEST, MEDIAN, SPREAD, LONGEST = 6, 32, 0.9, 400  # tokens; a log-normal, as reviews are
GOLDENS = {"12": 4, "92": 3, "400": 1, "mixture": 4}
VOCABULARY = 4000
LONGEST_TEXT = 512
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SHAPES = {
    "roberta-base": (
        "RobertaConfig",
        {
            "vocab_size": 50265,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    "distilbert": ("DistilBertConfig", {"vocab_size": 30522}),
    "minilm": (
        "BertConfig",
        {
            "vocab_size": 30522,
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
        },
    ),
}


class TransformersTokenizer(Transform):
    """Text to token ids, as in the fastai tutorial."""

    def __init__(self, tokenizer, max_len):
        self.tokenizer, self.max_len = tokenizer, max_len

    def encodes(self, x: str):
        return TensorText(self.tokenizer.encode(x, truncation=True, max_length=self.max_len))


class HFClassifier(nn.Module):
    """A classifier that masks padding."""

    def __init__(self, hf):
        super().__init__()
        self.hf, self.pad_id = hf, hf.config.pad_token_id

    def forward(self, ids):
        if isinstance(ids, TensorBase):
            ids = ids.as_subclass(torch.Tensor)
        return self.hf(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits


def tokenizer_of(shape, phrases, scratch):
    """A tokenizer of the shape's own kind, trained on the phrases."""
    options = {"model_max_length": LONGEST_TEXT}
    if shape == "roberta-base":
        bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
        bpe.train_from_iterator(phrases, vocab_size=VOCABULARY, special_tokens=ROBERTA_SPECIAL)
        scratch.mkdir(parents=True, exist_ok=True)
        bpe.save_model(str(scratch))
        return transformers.RobertaTokenizer.from_pretrained(scratch, **options)
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=BERT_SPECIAL)
    pieces.train_from_iterator(phrases, trainer)
    return transformers.BertTokenizer(vocab=pieces.get_vocab(), **options)


def classifier(shape, tokenizer):
    """The model with random weights."""
    kind, settings = SHAPES[shape]
    config = getattr(transformers, kind)(
        **{
            **settings,
            "initializer_range": WIDTH,
            "num_labels": len(LABELS),
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: number for number, label in enumerate(LABELS)}
    torch.manual_seed(SEED)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    return model


def decide(model, tokenizer, texts):
    """Scale the last layer, and set its bias."""
    last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        rows = [model(torch.tensor([tokenizer.encode(text)])).logits[0] for text in texts]
        logits = torch.stack(rows) - last.bias
        factor = RANGE / (logits.max(0).values - logits.min(0).values).max()
        last.weight.mul_(factor)
        last.bias.copy_(torch.tensor(DECIDED) - logits.mean(0) * factor)


def text_of(length, words, tokenizer, chance):
    """A text of exactly ``length`` tokens, special ones included."""
    chosen = []
    while True:
        chosen.append(chance.choice(words))
        found = len(tokenizer.encode(" ".join(chosen)))
        if found == length:
            return " ".join(chosen)
        if found > length:
            del chosen[-3:]  # try other words


def texts_of(words, tokenizer):
    """The texts for each kind of load."""
    chance = random.Random(SEED)
    lengths = [
        min(LONGEST, max(SHORTEST, round(MEDIAN * chance.lognormvariate(0, SPREAD))))
        for _ in range(MIXTURE)
    ]
    found = {
        str(length): [text_of(length, words, tokenizer, chance) for _ in range(EACH)]
        for length in LENGTHS
    }
    return {**found, "mixture": [text_of(each, words, tokenizer, chance) for each in lengths]}


def learner_of(model, tokenizer, table):
    """A learner around the model, as in a notebook."""
    text = TransformBlock(
        type_tfms=[TransformersTokenizer(tokenizer, LONGEST_TEXT)],
        dls_kwargs={"before_batch": pad_input},
    )
    blocks = DataBlock(
        blocks=(text, CategoryBlock(vocab=LABELS)),
        get_x=ColReader("Phrase"),
        get_y=ColReader("Label3"),
        splitter=RandomSplitter(0.2, seed=1),
    )
    dls = blocks.dataloaders(table, bs=32, num_workers=0)
    return Learner(dls, HFClassifier(model), loss_func=CrossEntropyLossFlat(), path=Path())


def main():
    shape, reviews, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    table = pd.read_csv(reviews).head(256)
    phrases = list(pd.read_csv(reviews).Phrase)
    words = sorted({word for phrase in phrases for word in phrase.lower().split()})
    tokenizer = tokenizer_of(shape, phrases, out / "scratch")
    model = classifier(shape, tokenizer)
    texts = texts_of(words, tokenizer)
    decide(model, tokenizer, texts["mixture"][:24])
    model.save_pretrained(out / "huggingface")
    tokenizer.save_pretrained(out / "huggingface")
    learner_of(model, tokenizer, table).export(out / "learner.pkl")
    learn = load_learner(out / "learner.pkl")
    lines = []
    with learn.no_bar(), learn.no_logging():
        for kind, number in GOLDENS.items():
            for text in texts[kind][:number]:
                said = [float(p) for p in learn.predict(text)[2]]
                lines.append({"text": text, "probabilities": dict(zip(LABELS, said))})
    with (out / "golden.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    # Written last: if it exists, so do the other files.
    (out / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    spread = [max(c) - min(c) for c in zip(*(line["probabilities"].values() for line in lines))]
    print(f"{shape}: {sum(p.numel() for p in model.parameters()):,} parameters, "
          f"probabilities differ by {max(spread):.3f} between texts")  # fmt: skip


if __name__ == "__main__":
    main()

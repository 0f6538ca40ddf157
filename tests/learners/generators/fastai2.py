"""Train tiny fastai 2 learners around transformers, export them, and record their answers.

With Python 3.11, fastai 2.8.12, torch 2.13.0, transformers 5.23 and sentencepiece, in this folder:

    python - DATA OUT [NAME ...] < fastai2.py

DATA holds ``train.csv`` and ``golden_texts.json``. The script goes to Python as standard input, so
that its classes are those of ``__main__``, as in a notebook, and its file is called ``<stdin>``.
"""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from fastai.text.all import (
    BCEWithLogitsLossFlat,
    Callback,
    CategoryBlock,
    ColReader,
    CrossEntropyLossFlat,
    DataBlock,
    Learner,
    MSELossFlat,
    MultiCategoryBlock,
    RandomSplitter,
    RegressionBlock,
    TensorBase,
    TensorText,
    Transform,
    TransformBlock,
    load_learner,
    pad_input,
    set_seed,
)
from own_callbacks import TakesScores
from tiny_models import ARCHITECTURES
from tiny_tokenizers import LENGTH, sentences, tokenizer_of
from torch import nn
import transformers

ROWS = 256  # used from the training table
LABELS = ["negative", "neutral", "positive"]


class TransformersTokenizer(Transform):
    """Text to token ids, as in the fastai tutorial."""

    def __init__(self, tokenizer, max_len):
        self.tokenizer, self.max_len = tokenizer, max_len

    def encodes(self, x: str):
        return TensorText(self.tokenizer.encode(x, truncation=True, max_length=self.max_len))


def as_plain(ids):
    return ids.as_subclass(torch.Tensor) if isinstance(ids, TensorBase) else ids


class HFClassifier(nn.Module):
    """Masks padding."""

    def __init__(self, hf):
        super().__init__()
        self.hf, self.pad_id = hf, hf.config.pad_token_id

    def forward(self, ids):
        if isinstance(ids, TensorBase):
            ids = ids.as_subclass(torch.Tensor)
        return self.hf(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits


class Unmasked(nn.Module):
    """Attends to padding as well."""

    def __init__(self, hf):
        super().__init__()
        self.network = hf

    def forward(self, ids):
        if isinstance(ids, TensorBase):
            ids = ids.as_subclass(torch.Tensor)
        return self.network(ids).logits


class TakesTheFirst(nn.Module):
    """Reads the answer as a tuple."""

    def __init__(self, hf):
        super().__init__()
        self.transformer = hf

    def forward(self, ids):
        if isinstance(ids, TensorBase):
            ids = ids.as_subclass(torch.Tensor)
        mask = (ids != self.transformer.config.pad_token_id).type(ids.type())
        return self.transformer(ids, attention_mask=mask, return_dict=False)[0]


class Outer(nn.Module):
    """A wrapper around a wrapper."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, ids):
        return self.inner(ids)


class Softened(nn.Module):
    """Changes the scores on their way out."""

    def __init__(self, hf):
        super().__init__()
        self.hf = hf

    def forward(self, ids):
        if isinstance(ids, TensorBase):
            ids = ids.as_subclass(torch.Tensor)
        return self.hf(input_ids=ids).logits.tanh()


class DropOutput(Callback):
    """Takes the scores from the transformer's output."""

    def after_pred(self):
        self.learn.pred = self.pred[0]


class PlainIds(Callback):
    """Passes plain tensors to the transformer."""

    order = -10

    def before_batch(self):
        self.learn.xb = tuple(as_plain(x) for x in self.xb)


class Temperature(Callback):
    """Softens the scores on their way out."""

    def __init__(self, degrees):
        self.degrees = degrees

    def after_pred(self):
        self.learn.pred = self.pred / self.degrees


class Counts(Callback):
    """Counts batches, and changes nothing."""

    def before_fit(self):
        self.count = 0

    def before_batch(self):
        self.count = self.count + 1


def warm():
    return Temperature(2.0)


WRAPPERS = {
    "masked": (HFClassifier, []),
    "unmasked": (Unmasked, []),
    "tuple": (TakesTheFirst, []),
    "nested": (lambda hf: Outer(HFClassifier(hf)), []),
    "softened": (Softened, []),
    "bare": (lambda hf: hf, [PlainIds, DropOutput]),
    "named": (lambda hf: hf, [PlainIds, TakesScores]),
    "warm": (HFClassifier, [warm]),
    "counted": (HFClassifier, [Counts]),
    "parallel": (lambda hf: nn.DataParallel(HFClassifier(hf)), []),
    "fp16": (HFClassifier, []),
    "half": (HFClassifier, []),
}


def small(name, tokenizer):
    """A tiny model of an architecture, with random weights that distinguish texts."""
    config_class, settings, _ = ARCHITECTURES[name]
    padding = {"pad_token_id": tokenizer.pad_token_id}
    config = getattr(transformers, config_class)(
        **{"vocab_size": len(tokenizer), "num_labels": 3, **settings, **padding}
    )
    for part in ("text_config", "encoder", "decoder"):  # of a configuration within another
        inner = getattr(config, part, None)
        for each in (inner, getattr(inner, "text_config", None)):
            if hasattr(each, "vocab_size"):
                each.vocab_size = len(tokenizer)
    set_seed(7)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    if sum(p.numel() for p in model.parameters()) > 1_000_000:
        return model
    with torch.no_grad():  # tiny models with small weights give every text the same answer
        for part, value in model.named_parameters():
            if value.dim() > 1 and value.std() < 0.3:
                value.normal_(std=0.4)
            elif value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.1)
    return model


def table(folder, kind):
    """The training table, with the labels that a kind of learner needs."""
    found = pd.read_csv(folder / "train.csv").head(ROWS)
    return {
        "one": (found, "Label3", CategoryBlock(vocab=LABELS), CrossEntropyLossFlat(), {}),
        "several": (found.assign(Tags=found.Tags.fillna("none")), "Tags", MultiCategoryBlock,
                    BCEWithLogitsLossFlat(), {"label_delim": ";"}),
        "number": (found, "Sentiment", RegressionBlock, MSELossFlat(), {}),
    }[kind]  # fmt: skip


def learner(folder, model, tokenizer, wrapper="masked", kind="one"):
    """A fastai learner, trained for a moment."""
    found, column, block, loss, reading = table(folder, kind)
    wrap, callbacks = WRAPPERS[wrapper]
    text = TransformBlock(
        type_tfms=[TransformersTokenizer(tokenizer, LENGTH)],
        # fastai's default is 1, which is T5's end-of-text token.
        dls_kwargs={"before_batch": partial(pad_input, pad_idx=tokenizer.pad_token_id)},
    )
    blocks = DataBlock(
        blocks=(text, block if not callable(block) else block()),
        get_x=ColReader("Phrase"), get_y=ColReader(column, **reading),
        splitter=RandomSplitter(0.2, seed=1),
    )  # fmt: skip
    dls = blocks.dataloaders(found, bs=32, num_workers=0)
    learn = Learner(dls, wrap(model), loss_func=loss, path=Path(),
                    cbs=[each() for each in callbacks])  # fmt: skip
    if wrapper == "fp16":
        learn = learn.to_fp16()
    if sum(p.numel() for p in model.parameters()) < 1_000_000:
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-4)
    if wrapper == "half":
        learn.model.half()
    return learn


def answers(path, texts):
    """The reloaded learner's answer to each text, by its id, or the error if it fails."""
    learn = load_learner(path)
    found = {}
    with learn.no_bar(), learn.no_logging():
        for each in texts:
            try:
                found[each["id"]] = [float(p) for p in learn.predict(each["text"])[2].float()]
            except Exception as error:  # a text on which the original fails is not a golden
                found[each["id"]] = f"{type(error).__name__}: {error}"[:120]
    return found


# More learners than one of each architecture: (architecture, wrapper, targets, change).
VARIANTS = {
    "wrapper_unmasked": ("roberta", "unmasked", "one", None),
    "wrapper_tuple": ("distilbert", "tuple", "one", None),
    "wrapper_nested": ("distilbert", "nested", "one", None),
    "wrapper_softened": ("distilbert", "softened", "one", None),
    "wrapper_bare": ("bert", "bare", "one", None),
    "wrapper_parallel": ("distilbert", "parallel", "one", None),
    "callback_by_name": ("distilbert", "named", "one", None),
    "callback_temperature": ("distilbert", "warm", "one", None),
    "callback_idle": ("distilbert", "counted", "one", None),
    "to_fp16": ("distilbert", "fp16", "one", None),
    "half": ("distilbert", "half", "one", None),
    "multi_label": ("bert", "masked", "several", None),
    "regression": ("bert", "masked", "number", None),
    "added_tokens": ("bert", "masked", "one", "added"),
    "added_tokens_bpe": ("roberta", "masked", "one", "added"),
}


def make(name, folder, out):
    """One learner and its goldens."""
    architecture, wrapper, kind, change = VARIANTS.get(name, (name, "masked", "one", None))
    texts = json.loads((folder / "golden_texts.json").read_text(encoding="utf-8"))
    if change == "added":
        texts += [{"id": "added", "text": "a brilliant[NUM]plot, xxunk and [NUM]"}]
    # A relative path, because the learner stores it.
    scratch = Path("tokenizer-folder")
    tokenizer = tokenizer_of(ARCHITECTURES[architecture][2], sentences(folder / "train.csv"),
                             scratch)  # fmt: skip
    shutil.rmtree(scratch)
    if change == "added":
        tokenizer.add_tokens(["brilliant", "xxunk"])
        tokenizer.add_special_tokens({"additional_special_tokens": ["[NUM]"]})
    model = small(architecture, tokenizer)
    if kind != "one":
        number = 1 if kind == "number" else len(
            {tag for tags in pd.read_csv(folder / "train.csv").head(ROWS).Tags.fillna("none")
             for tag in tags.split(";")})  # fmt: skip
        model.config.num_labels = number
        ARCHITECTURES["sized"] = (ARCHITECTURES[architecture][0],
                                  {**ARCHITECTURES[architecture][1], "num_labels": number},
                                  None)  # fmt: skip
        model = small("sized", tokenizer)
    learn = learner(folder, model, tokenizer, wrapper, kind)
    path = out / f"{name}.pkl"
    learn.export(path)
    said = answers(path, texts[:4] if name == "roberta_base" else texts)
    vocabulary = [str(each) for each in learn.dls.vocab] if kind != "number" else []
    meta = {"architecture": type(model).__name__, "tokenizer": type(tokenizer).__name__,
            "wrapper": wrapper, "labels": vocabulary, "python": sys.version.split()[0],
            "fastai": "2.8.12", "torch": torch.__version__,
            "transformers": transformers.__version__}  # fmt: skip
    extra = [each for each in texts if each["id"] == "added"]
    document = {"meta": meta, "texts": extra, "answers": said}
    write(out / f"{name}.golden.json", document)
    good = [row for row in said.values() if isinstance(row, list)]
    spread = max(max(c) - min(c) for c in zip(*good)) if good else 0
    print(
        f"{name}: {path.stat().st_size:,} bytes, {len(good)} answers, spread {spread:.3f}",
        next((row for row in said.values() if isinstance(row, str)), ""),
        flush=True,
    )


def write(path, document):
    """Write one line per text."""
    rows = ",\n".join(
        f"  {json.dumps(key)}: "
        + json.dumps([float(f"{p:.9g}") for p in row] if isinstance(row, list) else row)
        for key, row in document["answers"].items()
    )
    head = "".join(f' "{key}": {json.dumps(document[key])},\n' for key in ("meta", "texts"))
    path.write_text(f'{{\n{head} "answers": {{\n{rows}\n }}\n}}\n', encoding="utf-8")


def main():
    folder, out, *names = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in names or sorted({*ARCHITECTURES, *VARIANTS} - {"roberta_base"}):
        try:
            make(name, Path(folder), Path(out))
        except Exception as error:  # the survey goes on
            print(
                f"{name}: FAILED {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True
            )
            (Path(out) / f"{name}.pkl").unlink(missing_ok=True)


if __name__ == "__main__":
    main()

"""Variants of standard fastai 2 learners, exported by the real library, with its own answers.

    python fastai2_variants.py TRAIN_CSV OUT COUNT SEED
    python fastai2_variants.py TRAIN_CSV OUT OPERATION,OPERATION,... SEED

Needs fastai 2.8.12, torch, transformers 5.23, pandas and sentencepiece. ``variant_sources.py``
defines variants. Writes ``NAME.pkl`` and ``NAME.golden.jsonl`` for each, and ``variants.jsonl``
with a line for each: its kind (``harmless``, ``effect``, ``unknown``), the place and the source of
the inserted operation, how much the answers differ from those of the learner without it, and the
texts on which ``learn.predict`` itself fails. Exits with 1 if a harmless variant answers
differently from the learner without the operation, because its label would then be wrong.

One process makes each learner, and another, which has only the pickle, asks it for answers.
"""

import contextlib
import io
import json
import math
import multiprocessing
import random
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import fastai.text.all as fastai_text
import pandas as pd
import torch
import torch.nn.functional as F
import transformers
from fastai.text.all import load_learner, pad_input, set_seed
from tiny_models import ARCHITECTURES
from tiny_tokenizers import tokenizer_of
from torch import nn
from variant_sources import BASES, EFFECT, HARMLESS, UNKNOWN, choose, compose

ROWS = 24  # used from the training table
SETTINGS = {"num_hidden_layers": 1, "n_layers": 1, "max_position_embeddings": 66}
ALIKE = 1e-5  # |Δprobability| up to which answers count as the same
NORMAL = [
    "the film was good, and the music was charming", "This bad story; I do not like it.",
    "okay food & 5 books!!", "My GREAT book", "Crème brûlée, naïve café", "a dull plot. But fun!",
    "story story story", "I would watch it again, any day.", "so-so", "e", "It isn't the best: 3/10",
]  # fmt: skip


def texts_for(tokenizer, chance):
    """Eight texts: empty, short, normal, too long, with blanks, and with special tokens."""
    first, last, pad = tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token
    long = " ".join(chance.sample(NORMAL, len(NORMAL)) * 2)
    special = chance.choice([f"a good {last} film", f"{first} bad {last}", f"fun {pad} music"])
    return ["", "ok", *chance.sample(NORMAL, 3), long, "  the book \n was bad ", special]


def parts(variant, tokenizers):
    """A tokenizer and a tiny transformer with random weights that distinguish texts."""
    name = variant["chosen"]["architecture"]
    tokenizer = tokenizers[ARCHITECTURES[name][2]]
    config_class, settings, _ = ARCHITECTURES[name]
    known = {key: value for key, value in SETTINGS.items() if key in settings}
    config = getattr(transformers, config_class)(**{
        **settings, **known, "vocab_size": len(tokenizer), "num_labels": 3,
        "pad_token_id": tokenizer.pad_token_id,
    })  # fmt: skip
    set_seed(variant["seed"] % 2**31)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1 and value.std() < 0.3:
                value.normal_(std=0.4)
            elif value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.1)
            value.copy_(value.bfloat16())  # half of the bytes are zeros, which compress well
    return tokenizer, model


def build(variant, tokenizers, rows):
    """The learner, made as a notebook would make it: its classes are those of ``__main__``."""
    names = sys.modules["__main__"].__dict__
    exec("from fastai.text.all import *", names)
    names.update({"torch": torch, "nn": nn, "F": F, "transformers": transformers,
                  "MAX_LEN": variant["chosen"]["max_len"]})  # fmt: skip
    names.update({each: getattr(transformers, each) for each in BASES.values()})
    tokenizer, model = parts(variant, tokenizers)
    names.update({"tokenizer": tokenizer, "hf": model})
    exec(compile(variant["source"], "<ipython-input-7-5f3a>", "exec"), names)

    def made(expressions):
        return [eval(each, names) for each in expressions]

    blocks = fastai_text.DataBlock(
        blocks=(fastai_text.TransformBlock(
            type_tfms=made(variant["transforms"]),
            dls_kwargs={"before_batch": partial(pad_input, pad_idx=tokenizer.pad_token_id)}),
            eval(variant["block"], names)),
        get_x=fastai_text.ColReader("Phrase"), get_y=fastai_text.ColReader("Label3"),
        splitter=fastai_text.RandomSplitter(0.2, seed=1),
        item_tfms=made(variant["item"]) or None, batch_tfms=made(variant["batch"]) or None,
    )  # fmt: skip
    dls = blocks.dataloaders(rows, bs=8, num_workers=0)
    names["learn"] = fastai_text.Learner(
        dls, eval(variant["model"], names), loss_func=eval(variant["loss"], names), path=Path(),
        cbs=made(variant["callbacks"]),
    )  # fmt: skip
    for statement in variant["after"]:
        exec(statement, names)
    return names["learn"]


def answers(learn, texts):
    """``learn.predict``'s answer to each text, as rows of a golden file, or its error."""
    labels = list(map(str, learn.dls.vocab))
    rows = []
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
        for text in texts:
            try:
                label, _, found = learn.predict(text)
                found = [float(each) for each in found.float()]
                if not all(map(math.isfinite, found)):
                    raise ValueError(f"not finite: {found}")
                row = {"predicted": str(label), "probabilities": dict(zip(labels, found))}
            except Exception as error:  # a text on which the original fails is not a golden
                row = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:150]}
            rows.append({"text": text, **row})
    return rows


def make(variant, tokenizers, rows, texts, path):
    """Export the variant; return the answers of the learner without the operation."""
    standard = compose(None, variant["seed"], like=variant)
    before = answers(build(standard, tokenizers, rows), texts)
    learn = build(variant, tokenizers, rows)
    learn.export(path)
    return before


def reload_and_answer(path, texts):
    """The reloaded learner's answers."""
    return answers(load_learner(path), texts)


def apart(one, other):
    """The largest |Δprobability| between two rows; None if either has no answer."""
    if "error" in one or "error" in other:
        return None
    one, other = (list(each["probabilities"].values()) for each in (one, other))
    return max(abs(a - b) for a, b in zip(one, other)) if len(one) == len(other) else math.inf


def elsewhere(function, *arguments):
    """The result of a function that runs in a forked process; an error as its text."""
    ours, theirs = multiprocessing.Pipe(duplex=False)

    def run():
        try:
            theirs.send(function(*arguments))
        except Exception as error:
            theirs.send(f"{type(error).__name__}: {error}".splitlines()[0][:200])

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return "its process ended"
    finally:
        process.join()


def write(variant, name, tokenizers, rows, out):
    """One variant and its goldens; its line of ``variants.jsonl``."""
    chance = random.Random(variant["seed"])
    tokenizer = tokenizers[ARCHITECTURES[variant["chosen"]["architecture"]][2]]
    texts = texts_for(tokenizer, chance)
    path = out / f"{name}.pkl"
    before = elsewhere(make, variant, tokenizers, rows, texts, path)
    line = {"name": name, "seed": variant["seed"], "kind": variant["kind"],
            "place": variant["place"], "operation": variant["operation"]}  # fmt: skip
    line.update({key: value for key, value in variant.items() if key not in line})
    after = before if isinstance(before, str) else elsewhere(reload_and_answer, path, texts)
    if isinstance(after, str):
        path.unlink(missing_ok=True)
        return {**line, "failed": after}
    lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in after)
    path.with_suffix(".golden.jsonl").write_text(lines, encoding="utf-8")
    # Only a text with the padding token distinguishes some standard forms of the mask.
    compared = [apart(one, other) for one, other in zip(before, after)
                if tokenizer.pad_token not in one["text"]]  # fmt: skip
    known = [each for each in compared if each is not None]
    if line["kind"] == EFFECT and known and max(known) <= ALIKE:
        line["kind"] = UNKNOWN  # no text of these shows it
    return {**line, "answers": sum("error" not in each for each in after),
            "errors": sorted({each["error"] for each in after if "error" in each}),
            "differs_by": max(known) if known else None,
            "bytes": path.stat().st_size}  # fmt: skip


def main():
    table, out, wanted, seed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # fastai's about pickles, once for each
    for each in BASES.values():  # imported once, and not in every process
        getattr(transformers, each)
    rows = pd.read_csv(table)
    sentences = list(rows.Phrase)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizers = {kind: tokenizer_of(kind, sentences, Path(scratch) / kind)
                      for kind in ("wordpiece", "bpe")}  # fmt: skip
    for each in tokenizers.values():  # the folder is gone, and its name would differ each time
        each.name_or_path = "tokenizer"
        each.init_kwargs = {key: value for key, value in each.init_kwargs.items()
                            if not str(value).startswith(scratch)}  # fmt: skip
    wrong, failed, kinds = [], [], {}
    with out.joinpath("variants.jsonl").open("w", encoding="utf-8") as file:
        for number, variant in enumerate(choose(wanted, seed)):
            line = write(variant, f"{number:03d}_{variant['operation']}", tokenizers,
                         rows.head(ROWS), out)  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            if "failed" in line:
                failed.append(f"{line['name']}: {line['failed']}")
                continue
            kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
            differs = line["differs_by"]
            if line["kind"] == HARMLESS and (differs is None or differs > ALIKE) \
                    and line["place"] not in ("labels", "loss"):  # fmt: skip
                wrong.append(f"{line['name']}: {differs}")
    print(f"{sum(kinds.values())} variants with seed {seed}: {kinds}")
    for each in failed:
        print("could not be made:", each)
    for each in wrong:
        print("labelled harmless, and answers differently:", each)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

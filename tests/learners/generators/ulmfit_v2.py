"""Tiny ULMFiT learners of fastai 2, with the answers of the reloaded file's ``learn.predict``.

    python ulmfit_v2.py GOLDENS.golden.json OUT_FOLDER [VARIANT ...]

Python 3.9 with ``fastai==2.7.12 torch==1.13.1 fastcore<1.5.30 spacy<3.6 numpy<1.25 pandas<2.1
sentencepiece``, or Python 3.11 with ``fastai==2.8.12 torch==2.13.0 spacy sentencepiece`` and no
torchvision. The texts are those of GOLDENS.
"""

import os
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import reviews
import fastai
import numpy as np
import pandas as pd
import spacy
import torch
from fastai.text.all import *  # the way its users import it

warnings.filterwarnings("ignore")
torch.set_num_threads(1)  # tiny models only lose by more
CONFIG = dict(
    emb_sz=20,
    n_hid=36,
    n_layers=3,
    pad_token=1,
    bidir=False,
    output_p=0.4,
    hidden_p=0.3,
    input_p=0.4,
    embed_p=0.05,
    weight_p=0.5,
)


def shout(text):
    return text + "!"


VARIANTS = {
    "plain": {},
    "bidir": dict(config=dict(bidir=True, n_layers=2), seq_len=16, max_len=64),
    "tags": dict(label="tags", learner=dict(lin_ftrs=[30, 20], ps=[0.1, 0.2])),
    "backwards": dict(backwards=True, seq_len=10, max_len=40),
    "base": dict(tok=lambda: BaseTokenizer()),
    "german": dict(tok=lambda: SpacyTokenizer("de"), max_vocab=60),
    "eos": dict(rules=[fix_html, replace_rep, partial(lowercase, add_bos=False, add_eos=True)]),
    "fields": dict(mark_fields=True),
    "fp16": dict(half=True),
    "no_limit": dict(max_len=None, seq_len=12),
    "y_range": dict(y_range=(-2, 2)),
    "user_rule": dict(rules=[shout, *defaults.text_proc_rules]),
    "sentencepiece": dict(tok=lambda: SentencePieceTokenizer(vocab_sz=100)),
    "language_model": dict(lm=True),
    "folder": dict(folder=True),
}


def make(name, spec, golden_texts, out):
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    torch.manual_seed(1)
    np.random.seed(1)
    frame = pd.DataFrame(reviews.rows())
    tok = spec["tok"]() if "tok" in spec else None
    more = {
        k: spec[k]
        for k in ("rules", "mark_fields", "backwards", "seq_len", "max_vocab")
        if k in spec
    }
    if spec.get("folder"):
        for place, row in frame.iterrows():
            path = folder / "texts" / ("valid" if place % 10 == 0 else "train") / row["label"]
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{place}.txt").write_text(row["text"])
        dls = TextDataLoaders.from_folder(folder / "texts", valid="valid", bs=16, num_workers=0)
    else:
        text = TextBlock.from_df(
            "text", is_lm=bool(spec.get("lm")), tok=tok, min_freq=2, n_workers=1, **more
        )
        column = spec.get("label", "label")
        label = MultiCategoryBlock if column == "tags" else CategoryBlock
        block = DataBlock(
            blocks=[text] if spec.get("lm") else [text, label],
            get_x=ColReader("text"),
            get_y=None
            if spec.get("lm")
            else ColReader(column, label_delim=" " if column == "tags" else None),
            splitter=RandomSplitter(0.1, seed=1),
        )
        dls = block.dataloaders(frame, bs=16, num_workers=0)
    config = {**CONFIG, **spec.get("config", {})}
    if spec.get("lm"):
        learn = language_model_learner(dls, AWD_LSTM, pretrained=False)
        learn.export(folder / "learner.pkl")
    else:
        options = {k: spec[k] for k in ("seq_len", "max_len", "y_range") if k in spec}
        learn = text_classifier_learner(
            dls, AWD_LSTM, config=config, pretrained=False, **options, **spec.get("learner", {})
        )
        if spec.get("half"):
            learn = learn.to_fp16()
        with learn.no_bar():
            learn.fit_one_cycle(2, 1e-2)
        learn.export(folder / "learner.pkl")
    era = "f" + fastai.__version__.replace(".", "")
    target = out / "v2_awdlstm_{}_{}.pkl".format(era, name)
    target.write_bytes((folder / "learner.pkl").read_bytes())
    print(name, target.stat().st_size, flush=True)
    if spec.get("lm"):
        return
    again = load_learner(folder / "learner.pkl")
    rows = []
    for identity, text in golden_texts:
        try:
            with again.no_bar():
                category, _, probabilities = again.predict(text)
            ids = again.dls.test_dl([text], num_workers=0).one_batch()[0][0].tolist()
        except Exception as error:
            print(name, identity, type(error).__name__, error)
            continue
        rows.append(
            {
                "id": identity,
                "text": text,
                "label": str(category),
                "probs": [float(p) for p in probabilities],
                "ids": ids,
            }
        )
    classes = again.dls.vocab[1]
    meta = {
        "name": target.stem,
        "classes": [str(c) for c in classes],
        "fastai": fastai.__version__,
        "torch": torch.__version__,
        "spacy": spacy.__version__,
        "python": sys.version.split()[0],
        "config": config,
    }
    reviews.write(out / (target.stem + ".golden.json"), meta, rows)


if __name__ == "__main__":
    known, folder, *names = sys.argv[1:]
    folder, goldens = Path(folder).resolve(), reviews.texts(known)
    folder.mkdir(parents=True, exist_ok=True)
    for each in names or VARIANTS:
        try:
            make(each, VARIANTS[each], goldens, folder)
        except Exception as problem:
            print("FAILED", each, type(problem).__name__, problem, flush=True)

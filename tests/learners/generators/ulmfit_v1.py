"""Tiny ULMFiT learners of fastai 1, with the answers of the reloaded file's ``learn.predict``.

    python ulmfit_v1.py GOLDENS.golden.json OUT_FOLDER [VARIANT ...]

Python 3.8 with ``fastai==1.0.61 torch==1.7.1 torchvision==0.8.2 pillow<10 numpy<1.24 pandas<1.4
spacy<3 sentencepiece``. The texts are those of GOLDENS.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import reviews
import fastai
import numpy as np
import pandas as pd
import spacy
import torch
from fastai.text import *  # the way its users import it

warnings.filterwarnings("ignore")
torch.set_num_threads(1)  # tiny models only lose by more
CONFIG = dict(
    emb_sz=20,
    n_hid=36,
    n_layers=3,
    pad_token=1,
    qrnn=False,
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
    "bidir": dict(config=dict(bidir=True, n_layers=2), bptt=16, max_len=64),
    "tags": dict(label="tags", delim=" ", learner=dict(lin_ftrs=[30, 20], ps=[0.1, 0.2])),
    "fields": dict(mark_fields=True, include_eos=True, include_bos=False, max_vocab=60),
    "base": dict(tokenizer=dict(tok_func=BaseTokenizer)),
    "german": dict(tokenizer=dict(lang="de"), bptt=10, max_len=40),
    "backwards": dict(backwards=True),
    "fp16": dict(half=True),
    "few_rules": dict(tokenizer=dict(pre_rules=[fix_html, replace_rep], post_rules=[deal_caps])),
    "user_rule": dict(tokenizer=dict(pre_rules=[shout, *defaults.text_pre_rules])),
    "qrnn": dict(config=dict(qrnn=True)),
    "sentencepiece": dict(sentencepiece=True),
    "language_model": dict(lm=True),
}


def processors(spec, folder):
    if spec.get("sentencepiece"):
        return [SPProcessor(vocab_sz=100, n_cpus=1)]
    options = {
        key: spec[key] for key in ("mark_fields", "include_bos", "include_eos") if key in spec
    }
    tokenizer = Tokenizer(n_cpus=1, **spec.get("tokenizer", {}))
    return [
        TokenizeProcessor(tokenizer=tokenizer, **options),
        NumericalizeProcessor(max_vocab=spec.get("max_vocab", 60000), min_freq=2),
    ]


def make(name, spec, golden_texts, out):
    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(1)
    np.random.seed(1)
    frame = pd.DataFrame(reviews.rows())
    listed = TextList.from_df(frame, folder, cols="text", processor=processors(spec, folder))
    split = listed.split_by_rand_pct(0.1, seed=1)
    config = {**CONFIG, **spec.get("config", {})}
    if spec.get("lm"):
        data = split.label_for_lm().databunch(bs=16)
        lm = {**{k: v for k, v in awd_lstm_lm_config.items()}, "emb_sz": 20, "n_hid": 36}
        learn = language_model_learner(data, AWD_LSTM, config=lm, pretrained=False)
    else:
        label = dict(cols=spec.get("label", "label"), label_delim=spec.get("delim"))
        data = split.label_from_df(**label).databunch(bs=16, backwards=spec.get("backwards", False))
        learn = text_classifier_learner(
            data,
            AWD_LSTM,
            config=config,
            pretrained=False,
            bptt=spec.get("bptt", 70),
            max_len=spec.get("max_len", 70 * 20),
            **spec.get("learner", {}),
        )
    learn.fit_one_cycle(2, 1e-2)
    if spec.get("half"):
        learn = learn.to_fp16()
    learn.export(str(folder / "learner.pkl"))
    target = out / "v1_awdlstm_{}.pkl".format(name)
    target.write_bytes((folder / "learner.pkl").read_bytes())
    print(name, target.stat().st_size, flush=True)
    if spec.get("lm"):
        return
    options = {"backwards": True} if spec.get("backwards") else {}
    again = load_learner(folder, "learner.pkl", **options)
    if spec.get("half"):
        again.model.float()
    rows = []
    for identity, text in golden_texts:
        try:
            category, index, probabilities = again.predict(text)
            ids = again.data.one_item(text)[0][0].tolist()
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
    meta = {
        "name": target.stem,
        "classes": [str(c) for c in again.data.classes],
        "fastai": fastai.__version__,
        "torch": torch.__version__,
        "spacy": spacy.__version__,
        "python": sys.version.split()[0],
        "config": config,
    }
    reviews.write(out / (target.stem + ".golden.json"), meta, rows)


if __name__ == "__main__":
    known, folder, *names = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for each in names or VARIANTS:
        try:
            make(each, VARIANTS[each], reviews.texts(known), Path(folder))
        except Exception as problem:
            print("FAILED", each, type(problem).__name__, problem, flush=True)

"""Train a tiny learner with blurr (ohmeow-blurr), export it, and record its answers.

With Python 3.9, fastai 2.7.12, torch 1.13.1, transformers 4.30.2 and ohmeow-blurr 1.0.5, in a copy
of this folder: python blurr_learner.py DATA VOCAB OUT

VOCAB is a ``vocab.txt`` of BERT. Only ``blurr.text.data.core`` and ``blurr.text.modeling.core`` are
imported: others fetch metrics from the network.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import torch
from blurr.text.data.core import TextBlock
from blurr.text.modeling.core import BaseModelCallback, BaseModelWrapper
from fastai.text.all import (
    Adam,
    CategoryBlock,
    ColReader,
    CrossEntropyLossFlat,
    DataBlock,
    Learner,
    RandomSplitter,
    load_learner,
    partial,
)
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

FOLDER, VOCAB, OUT = map(Path, sys.argv[1:])
torch.manual_seed(7)
tokenizer = BertTokenizerFast(str(VOCAB), model_max_length=128)
config = BertConfig(
    vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=128, num_labels=3,
)  # fmt: skip
model = BertForSequenceClassification(config)
with torch.no_grad():
    for value in model.parameters():
        if value.dim() > 1:
            value.normal_(std=0.4)
block = DataBlock(
    blocks=(TextBlock("bert", config, tokenizer, model), CategoryBlock),
    get_x=ColReader("Phrase"),
    get_y=ColReader("Label3"),
    splitter=RandomSplitter(seed=1),
)
dls = block.dataloaders(pd.read_csv(FOLDER / "train.csv").head(200), bs=16, num_workers=0)
learn = Learner(dls, BaseModelWrapper(model), opt_func=partial(Adam), path=Path(),
                loss_func=CrossEntropyLossFlat(), cbs=[BaseModelCallback])  # fmt: skip
with learn.no_bar(), learn.no_logging():
    learn.fit(1, 1e-3)
learn.export(OUT / "blurr.pkl")
learn = load_learner(OUT / "blurr.pkl")
rows = []
for each in json.loads((FOLDER / "golden_texts.json").read_text(encoding="utf-8")):
    with learn.no_bar(), learn.no_logging():
        (said,) = learn.blurr_predict(each["text"])
    rows.append(f'  "{each["id"]}": {json.dumps([float(f"{p:.9g}") for p in said["probs"]])}')
meta = {"architecture": "BertForSequenceClassification", "tokenizer": "BertTokenizerFast",
        "wrapper": "blurr", "labels": list(learn.dls.vocab), "python": sys.version.split()[0],
        "fastai": "2.7.12", "torch": torch.__version__, "transformers": "4.30.2"}  # fmt: skip
(OUT / "blurr.golden.json").write_text(
    f'{{\n "meta": {json.dumps(meta)},\n "texts": [],\n "answers": {{\n'
    + ",\n".join(rows) + "\n }\n}\n", encoding="utf-8",
)  # fmt: skip

"""Train tiny fastai 2 learners whose tokenizers are the slow SentencePiece ones of transformers 4.

With Python 3.9, fastai 2.7.12, torch 1.13.1, transformers 4.30.2 and sentencepiece, in a copy of
this folder (the learners hold the path of the tokenizer's file):

    python - DATA . < sentencepiece_slow.py

These tokenizers pickle without their model (``sp_model``), or, some of them, with its bytes.
"""

import sys

import transformers

SOURCE = open("fastai2.py", encoding="utf-8").read()
FOLDER, OUT, *NAMES = sys.argv[1:]
SLOW = {
    "xlnet": "XLNetTokenizer", "albert": "AlbertTokenizer", "camembert": "CamembertTokenizer",
    "xlm_roberta": "XLMRobertaTokenizer", "deberta_v2": "DebertaV2Tokenizer",
    "big_bird": "BigBirdTokenizer", "rembert": "RemBertTokenizer", "fnet": "FNetTokenizer",
}  # fmt: skip

# The same classes and the same way as in fastai2.py; only the tokenizers differ.
exec(compile(SOURCE.replace('if __name__ == "__main__":\n    main()\n', ""), "<stdin>", "exec"))


def slow(name):
    """One learner with a slow tokenizer, and its goldens."""
    import tiny_tokenizers

    texts = json.loads((Path(FOLDER) / "golden_texts.json").read_text(encoding="utf-8"))
    kept = Path(OUT) / f"slow_{name}"
    kind, settings = {
        "xlnet": ("spiece.model", tiny_tokenizers.XLNET),
        "albert": ("spiece.model", tiny_tokenizers.ALBERT),
        "big_bird": ("spiece.model", {**tiny_tokenizers.ALBERT}),
        "rembert": ("sentencepiece.model", tiny_tokenizers.ALBERT),
        "fnet": ("spiece.model", tiny_tokenizers.ALBERT),
        "deberta_v2": ("spm.model", tiny_tokenizers.DEBERTA),
    }.get(name, ("sentencepiece.bpe.model", {}))
    if name == "xlnet":
        settings = {**settings, "rule": "nmt_nfkc"}
    file = tiny_tokenizers.sentence_piece(
        sentences(Path(FOLDER) / "train.csv"), kept / kind, **settings
    )
    tokenizer = getattr(transformers, SLOW[name])(str(file), model_max_length=LENGTH)
    model = small(name, tokenizer)
    learn = learner(Path(FOLDER), model, tokenizer)
    path = Path(OUT) / f"slow_{name}.pkl"
    learn.export(path)
    raw = path.read_bytes()
    # load_learner of these versions needs the file of the tokenizer where it was
    said = answers(path, texts)
    meta = {"architecture": type(model).__name__, "tokenizer": type(tokenizer).__name__,
            "wrapper": "masked", "labels": LABELS, "python": sys.version.split()[0],
            "fastai": "2.7.12", "torch": torch.__version__,
            "transformers": transformers.__version__}  # fmt: skip
    document = {"meta": meta, "texts": [], "answers": said}
    write(Path(OUT) / f"slow_{name}.golden.json", document)
    good = [row for row in said.values() if isinstance(row, list)]
    spread = max(max(c) - min(c) for c in zip(*good)) if good else 0
    print(
        f"slow_{name}: {path.stat().st_size:,} bytes, {len(good)} answers, spread {spread:.3f}, "
        f"model bytes within: {file.read_bytes()[:2000] in raw}",
        next((row for row in said.values() if isinstance(row, str)), ""),
        flush=True,
    )


Path(OUT).mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
for each in NAMES or SLOW:
    try:
        slow(each)
    except Exception as error:
        print(f"slow_{each}: FAILED {type(error).__name__}: {str(error)[:300]}", flush=True)

"""Small tokenizers of every kind, trained on the sentences of ``train.csv`` alone."""

import csv
import io
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SIZE = 320  # tokens
LENGTH = 128  # the longest text, in tokens


def sentences(table):
    """The texts of the training table."""
    with Path(table).open(encoding="utf-8", newline="") as file:
        return [row["Phrase"] for row in csv.DictReader(file)]


def wordpiece(texts, *, lower, special):
    """Vocabulary of a WordPiece tokenizer: token to id."""
    tokenizer = Tokenizer(
        models.WordPiece(unk_token=next(each for each in special if "unk" in each.lower()))
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab()


def byte_level(texts, special, folder):
    """Vocabulary and merges of a byte-level BPE tokenizer, as ``vocab.json`` and ``merges.txt``."""
    tokenizer = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, vocab_size=SIZE + 80, special_tokens=special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    return folder


def sentence_piece(texts, file, rule="identity", **more):
    """A SentencePiece model, as Google's library trains it.

    ``rule``: the normalization, of which ``nmt_nfkc`` is the usual one and takes 240 kB.
    """
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=buffer, vocab_size=SIZE, model_type="unigram",
        normalization_rule_name=rule, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2, num_threads=1, **more,
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(buffer.getvalue())
    return file


ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>",
          "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}  # fmt: skip
DEBERTA = {"pad_id": 0, "unk_id": 3, "bos_id": 1, "eos_id": 2, "pad_piece": "[PAD]",
           "unk_piece": "[UNK]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"}  # fmt: skip
XLNET = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1,
         "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"]}  # fmt: skip
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def tokenizer_of(kind, texts, folder):
    """The tokenizer that transformers gives to a model of this kind."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {"model_max_length": LENGTH}

    def get(name):
        return getattr(transformers, name)

    if kind.startswith("wordpiece"):
        lower = kind == "wordpiece"
        vocabulary = wordpiece(texts, lower=lower, special=BERT_SPECIAL)
        return get("BertTokenizer")(vocab=vocabulary, do_lower_case=lower, **options)
    if kind == "funnel":
        vocabulary = wordpiece(texts, lower=True, special=["<pad>", "<unk>", "<cls>", "<sep>",
                                                           "<mask>", "<s>", "</s>"])  # fmt: skip
        return get("FunnelTokenizer")(vocab=vocabulary, **options)
    if kind == "mpnet":
        vocabulary = wordpiece(texts, lower=True, special=["<s>", "<pad>", "</s>", "[UNK]",
                                                           "<mask>"])  # fmt: skip
        return get("MPNetTokenizer")(vocab=vocabulary, **options)
    if kind == "bpe":
        found = byte_level(texts, ROBERTA_SPECIAL, folder)
        return get("RobertaTokenizer").from_pretrained(found, **options)
    if kind == "bpe-bert":
        found = byte_level(texts, BERT_SPECIAL, folder)
        return get("DebertaTokenizer").from_pretrained(found, **options)
    if kind in ("xlm", "flaubert"):
        return _xlm(kind, texts, folder, options)
    if kind == "canine":
        return get("CanineTokenizer")(**options)
    name, settings, cls = {
        "albert": ("spiece.model", ALBERT, "AlbertTokenizer"),
        "deberta-v2": ("spm.model", DEBERTA, "DebertaV2Tokenizer"),
        "xlm-roberta": ("sentencepiece.bpe.model", {"rule": "nmt_nfkc"}, "XLMRobertaTokenizer"),
        "camembert": ("sentencepiece.bpe.model", {}, "CamembertTokenizer"),
        "xlnet": ("spiece.model", XLNET, "XLNetTokenizer"),
        "t5": ("spiece.model", T5, "T5Tokenizer"),
    }[kind]
    sentence_piece(texts, folder / name, **settings)
    return get(cls).from_pretrained(folder, **options)


def _xlm(kind, texts, folder, options):
    """XLM's own BPE, whose words end in ``</w>``."""
    tokenizer = tokenizers.CharBPETokenizer(unk_token="<unk>", suffix="</w>")
    tokenizer.train_from_iterator(
        texts,
        vocab_size=SIZE,
        suffix="</w>",
        special_tokens=["<s>", "</s>", "<pad>", "<unk>", *(f"<special{n}>" for n in range(10))],
    )
    tokenizer.save_model(str(folder))
    cls = transformers.XLMTokenizer if kind == "xlm" else transformers.FlaubertTokenizer
    return cls(str(folder / "vocab.json"), str(folder / "merges.txt"), **options)

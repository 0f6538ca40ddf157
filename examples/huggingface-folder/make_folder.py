"""Train a tiny DistilBERT on a few sentences, and save it as Hugging Face models are saved.

python make_folder.py my-model

Stands for a model that you trained with transformers' Trainer, or downloaded. It takes seconds, and
knows no more than the sentences below.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, DistilBertConfig, DistilBertForSequenceClassification

SENTENCES = {
    "positive": (
        "I loved every minute of it.",
        "The food was wonderful and the staff were kind.",
        "A brilliant film with a great cast.",
        "It works well and looks beautiful.",
        "What a lovely, warm and funny book.",
        "The best hotel we have ever stayed in.",
    ),
    "negative": (
        "I hated every minute of it.",
        "The food was awful and the staff were rude.",
        "A boring film with a terrible cast.",
        "It broke after a day and looks cheap.",
        "What a dull, cold and tedious book.",
        "The worst hotel we have ever stayed in.",
    ),
}
LABELS = tuple(SENTENCES)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
STEPS, LONGEST = 40, 64


def make_tokenizer(texts: list[str]) -> BertTokenizer:
    """A WordPiece tokenizer of the words in the texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL)
    tokenizer.train_from_iterator(texts, trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(), model_max_length=LONGEST)


def main(folder: Path) -> None:
    """Train the model, and write it into ``folder``."""
    torch.manual_seed(0)
    pairs = [(text, number) for number, label in enumerate(LABELS) for text in SENTENCES[label]]
    tokenizer = make_tokenizer([text for text, _ in pairs])
    model = DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer),
            dim=32,
            hidden_dim=64,
            n_layers=2,
            n_heads=2,
            max_position_embeddings=LONGEST,
            id2label=dict(enumerate(LABELS)),
            label2id={label: number for number, label in enumerate(LABELS)},
        )
    )
    batch = tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt")
    labels = torch.tensor([number for _, number in pairs])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(STEPS):
        loss = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"wrote {folder}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

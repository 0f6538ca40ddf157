"""A plain transformers pipeline, with answers in the form that the comparison expects."""

from transformers import pipeline

LONGEST = 512  # tokens


def load(folder):
    return pipeline("text-classification", model=str(folder), top_k=None, device="cpu")


def classify(model, texts):
    """One answer per text; the texts of a call are padded and run together."""
    found = model(list(texts), batch_size=len(texts), truncation=True, max_length=LONGEST)
    return [
        {
            "label": labels[0]["label"],
            "probabilities": {each["label"]: each["score"] for each in labels},
        }
        for labels in found
    ]

"""A plain transformers pipeline, and its answer in the form that is compared."""

from transformers import pipeline

LONGEST = 512  # tokens


def load(folder):
    return pipeline("text-classification", model=str(folder), top_k=None, device="cpu")


def classify(model, texts):
    """One answer for each text; what comes together is padded and run together."""
    found = model(list(texts), batch_size=len(texts), truncation=True, max_length=LONGEST)
    return [
        {
            "label": labels[0]["label"],
            "probabilities": {each["label"]: each["score"] for each in labels},
        }
        for labels in found
    ]

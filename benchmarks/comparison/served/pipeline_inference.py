"""The four functions of AWS's toolkit around a plain pipeline."""

import json
from pathlib import Path

from transformers import pipeline


def model_fn(model_dir):
    folder = str(Path(model_dir) / "huggingface")
    return pipeline("text-classification", model=folder, top_k=None, device="cpu")


def input_fn(body, _content_type):
    return json.loads(body)["text"]


def predict_fn(text, model):
    (labels,) = model([text], truncation=True, max_length=512)
    return {
        "label": labels[0]["label"],
        "probabilities": {each["label"]: each["score"] for each in labels},
    }


def output_fn(answer, _accept):
    return json.dumps(answer), "application/json"

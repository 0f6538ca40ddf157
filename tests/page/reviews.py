"""A model server that rates a review by the words in it."""

from __future__ import annotations

import json
import math
import re

from tests.gateway.servers import Received, Reply

_WORDS = {
    "loved": 2.6,
    "warm": 1.3,
    "brilliant": 2.4,
    "pleasure": 1.8,
    "unexpected": 0.6,
    "thin": -1.1,
    "late": -1.9,
    "open": -0.8,
    "dull": -2.2,
}
LABELS = ("negative", "neutral", "positive")


def reviews(received: Received) -> Reply:
    request = json.loads(received.body)
    if "texts" in request:
        return Reply(body=json.dumps([answer(text) for text in request["texts"]]).encode())
    return Reply(body=json.dumps(answer(request["text"])).encode())


def answer(text: str) -> dict[str, object]:
    mood = sum(_WORDS.get(word, 0.0) for word in re.findall(r"\w+", text.lower()))
    raw = [math.exp(-mood), math.exp(0.6), math.exp(mood)]
    shares = sorted(
        ((label, value / sum(raw)) for label, value in zip(LABELS, raw, strict=True)),
        key=lambda pair: -pair[1],
    )
    return {
        "label": shares[0][0],
        "score": shares[0][1],
        "probabilities": dict(shares),
        "truncated": len(text) > 2_000,
        "model": {"name": "film-reviews", "version": "3f2a9c01b7de"},
    }

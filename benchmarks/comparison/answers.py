"""Whether a server gives the learner's own answers, asked by several clients at once."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from benchmarks.comparison.competitors.base import Competitor, Failed
from benchmarks.comparison.models import Known, accuracy, most_likely

MOST_CHANGED = 0.05
"""A server that changes more labels than this share of the texts is broken, and not measured."""
_PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Answers:
    """A server's answers compared with the learner's own.

    ``changed`` counts the texts with another label; the rest is |Δprobability|. ``accuracy`` is
    None without true labels.
    """

    texts: int
    accuracy: float | None
    changed: int
    mean: float
    p99: float
    worst: float

    @classmethod
    def of(cls, found: Sequence[dict[str, float]], known: tuple[Known, ...]) -> Answers:
        """Compare probabilities by label."""
        differences = [
            abs(each[label] - p)
            for each, one in zip(found, known, strict=True)
            for label, p in one.probabilities.items()
        ]
        said = [most_likely(each) for each in found]
        return cls(
            texts=len(known),
            accuracy=accuracy(said, known),
            changed=sum(label != one.said for label, one in zip(said, known, strict=True)),
            mean=float(np.mean(differences)),
            p99=float(np.percentile(differences, 99)),
            worst=max(differences),
        )


def check(port: int, competitor: Competitor, known: tuple[Known, ...]) -> Answers:
    """Ask all texts. Raises Failed if an answer is missing or too many labels change."""
    local = threading.local()
    connections: list[http.client.HTTPConnection] = []

    def ask(one: Known) -> dict[str, float]:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
            connections.append(local.connection)
        status, body = post(local.connection, competitor, one.text)
        if status != HTTPStatus.OK:
            raise Failed(f"{status}: {body!r:.200}")
        return dict(competitor.read(body))

    try:
        with ThreadPoolExecutor(competitor.askers) as pool:
            found = Answers.of(list(pool.map(ask, known)), known)
    finally:
        for each in connections:
            each.close()
    if found.changed > MOST_CHANGED * len(known):
        raise Failed(f"{found.changed} of {len(known)} labels are wrong")
    return found


def answers_right(port: int, competitor: Competitor, one: Known) -> bool:
    """Whether the server gives one text the learner's label; False if it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    with closing(connection), suppress(LookupError, TypeError):
        status, body = post(connection, competitor, one.text)
        return status == HTTPStatus.OK and most_likely(competitor.read(body)) == one.said
    return False


def model_of(port: int, competitor: Competitor, one: Known) -> dict[str, Any]:
    """What fdeploy's answer says about the model that gave it; empty for other servers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    with closing(connection):
        _, body = post(connection, competitor, one.text)
    return dict(body["model"]) if competitor.form and body else {}


def post(
    connection: http.client.HTTPConnection, competitor: Competitor, text: str
) -> tuple[int, Any]:
    """The status and JSON of an answer; status 0 if there is none."""
    try:
        body = json.dumps(competitor.body(text))
        connection.request("POST", competitor.path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()
        return 0, None

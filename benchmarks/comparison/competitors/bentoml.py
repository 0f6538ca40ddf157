"""BentoML with its adaptive batching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.comparison.competitors.base import SERVED, Competitor, Launch, Site
from benchmarks.comparison.environments import BENTOML


def _launch(site: Site) -> Launch:
    command = [str(site.python), "-m", "bentoml", "serve", "bento_app:Classifier"]
    command += ["--host", "127.0.0.1", "--port", str(site.port), "--working-dir", str(SERVED)]
    variables = {
        "PYTHONPATH": str(SERVED),
        "MODEL": str(site.model.huggingface),
        "BENTOML_HOME": str(site.folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    return Launch(tuple(command), site.folder, variables)


def _body(text: str) -> object:
    return {"texts": [text]}


def _read(body: Any) -> Mapping[str, float]:
    found: Mapping[str, float] = body[0]["probabilities"]
    return found


COMPETITOR = Competitor(
    "bentoml",
    "BentoML (pipeline)",
    "The pipeline in a `bentoml.service` with a batchable endpoint: batches of up to 16.",
    _launch,
    environment=BENTOML,
    path="/predict",
    body=_body,
    read=_read,
)

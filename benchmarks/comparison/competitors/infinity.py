"""Infinity (``infinity-emb``), which classifies too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.comparison.competitors.base import Competitor, Launch, Site
from benchmarks.comparison.environments import INFINITY

_NAME = "model"


def _launch(site: Site) -> Launch:
    command = [str(site.python.with_name("infinity_emb")), "v2", "--host", "127.0.0.1"]
    command += ["--port", str(site.port), "--model-id", str(site.model.huggingface)]
    command += ["--served-model-name", _NAME, "--engine", "torch", "--device", "cpu"]
    command += ["--dtype", "float32", "--no-bettertransformer"]
    return Launch(tuple(command), site.folder, {"DO_NOT_TRACK": "1"})


def _body(text: str) -> object:
    return {"model": _NAME, "input": [text]}


def _read(body: Any) -> Mapping[str, float]:
    return {each["label"]: each["score"] for each in body["data"][0]}


COMPETITOR = Competitor(
    "infinity",
    "Infinity",
    "`infinity_emb v2` with its torch engine and its batching (up to 32), in float32.",
    _launch,
    environment=INFINITY,
    path="/classify",
    body=_body,
    read=_read,
)

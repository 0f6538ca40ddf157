"""Hugging Face's inference toolkit for SageMaker, on multi-model-server as in AWS's images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.comparison.competitors.base import Competitor, Launch, Site
from benchmarks.comparison.environments import HUGGINGFACE

_SERVE = "from sagemaker_huggingface_inference_toolkit import serving; serving.main()"


def _launch(site: Site) -> Launch:
    """The toolkit writes ``/etc/sagemaker-mms.properties``, which needs root."""
    (site.folder / "model").symlink_to(site.model.huggingface)
    scratch = site.folder / "tmp"
    scratch.mkdir()
    variables = {
        "SAGEMAKER_BASE_DIR": str(site.folder),
        "SAGEMAKER_BIND_TO_PORT": str(site.port),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "HF_TASK": "text-classification",
        "TMPDIR": str(scratch),
    }
    return Launch((str(site.python), "-c", _SERVE), site.folder, variables)


def _body(text: str) -> object:
    return {"inputs": text, "parameters": {"top_k": None, "truncation": True}}


def _read(body: Any) -> Mapping[str, float]:
    return {each["label"]: each["score"] for each in body}


COMPETITOR = Competitor(
    "huggingface",
    "HF toolkit",
    "`sagemaker-huggingface-inference-toolkit` on multi-model-server; one worker with all cores, "
    "which is better than the default.",
    _launch,
    environment=HUGGINGFACE,
    body=_body,
    read=_read,
)

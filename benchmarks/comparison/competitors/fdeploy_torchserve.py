"""fdeploy's artifact in the software of AWS's TorchServe image."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.comparison.competitors.base import Competitor, Launch, Site
from benchmarks.comparison.competitors.torchserve_start import start_torchserve
from benchmarks.comparison.environments import IMAGE_TORCHSERVE
from benchmarks.comparison.models import DEFAULT

ENVIRONMENT = {
    "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
    "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
    "SAGEMAKER_PROGRAM": "inference.py",
}
"""What a deploy sets for the container; see ``Environment`` in ``aws/templates/endpoint.yaml``."""


def _launch(site: Site) -> Launch:
    (site.folder / "model").symlink_to(site.model.artifact(DEFAULT, "torchserve"))
    launch = start_torchserve(site, workers=1)
    return replace(launch, variables={**launch.variables, **ENVIRONMENT})


COMPETITOR = Competitor(
    "fdeploy-torchserve",
    "fdeploy (TorchServe)",
    "The artifact for the TorchServe image, in that image's software, with the native handler.",
    _launch,
    environment=IMAGE_TORCHSERVE,
    form=DEFAULT,
)

"""fdeploy's artifact in the software of AWS's TorchServe image."""

from __future__ import annotations

from benchmarks.comparison.competitors.base import Competitor, Launch, Site
from benchmarks.comparison.competitors.torchserve_start import start_torchserve
from benchmarks.comparison.environments import IMAGE_TORCHSERVE
from benchmarks.comparison.models import DEFAULT


def _launch(site: Site) -> Launch:
    (site.folder / "model").symlink_to(site.model.artifact(DEFAULT, "torchserve"))
    return start_torchserve(site, workers=1)


COMPETITOR = Competitor(
    "fdeploy-torchserve",
    "fdeploy (TorchServe)",
    "The artifact for the TorchServe image, in that image's software, with the native handler.",
    _launch,
    environment=IMAGE_TORCHSERVE,
    form=DEFAULT,
)

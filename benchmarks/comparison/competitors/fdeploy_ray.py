"""fdeploy's artifact in the software of AWS's Ray Serve image."""

from __future__ import annotations

from benchmarks.comparison.competitors.base import Competitor, Launch, Site
from benchmarks.comparison.competitors.ray_start import start_ray
from benchmarks.comparison.environments import IMAGE_RAY
from benchmarks.comparison.models import INT8_TOLERANCE


def _launch(site: Site) -> Launch:
    model = site.model.artifact("int8", "ray-serve")
    return start_ray(site, model, f"{model}:{model / 'code'}")


COMPETITOR = Competitor(
    "fdeploy-ray",
    "fdeploy (Ray Serve, int8)",
    "The artifact for the Ray Serve image, in that image's software, through Ray's own port.",
    _launch,
    environment=IMAGE_RAY,
    path="/",
    tolerance=INT8_TOLERANCE,
)

"""fdeploy's own model server, as ``fdeploy deploy --target local`` starts it."""

from __future__ import annotations

import sys

from benchmarks.comparison.competitors.base import Competitor, Launch, Site
from benchmarks.comparison.models import INT8_TOLERANCE


def _launch(site: Site, precision: str) -> Launch:
    model = site.model.artifact(precision, "local")
    command = [sys.executable, "-m", "fdeploy_runtime.server", "--model-dir", str(model)]
    command += ["--announce", str(site.folder / "ready"), "--port", str(site.port)]
    return Launch(tuple(command), site.folder, {"PYTHONPATH": str(model / "code")})


INT8 = Competitor(
    "fdeploy-local",
    "fdeploy (local, int8)",
    "The packaged artifact in the model server of the `local` target.",
    lambda site: _launch(site, "int8"),
    tolerance=INT8_TOLERANCE,
)
FLOAT32 = Competitor(
    "fdeploy-local-float32",
    "fdeploy (local, float32)",
    'The model server of the `local` target, with `quantize = "none"`.',
    lambda site: _launch(site, "float32"),
)

"""LitServe with its own batching."""

from __future__ import annotations

from benchmarks.comparison.competitors.base import SERVED, Competitor, Launch, Site
from benchmarks.comparison.environments import LITSERVE


def _launch(site: Site) -> Launch:
    command = [str(site.python), str(SERVED / "litserve_app.py")]
    command += [str(site.model.huggingface), str(site.port)]
    return Launch(tuple(command), site.folder, {"PYTHONPATH": str(SERVED)})


COMPETITOR = Competitor(
    "litserve",
    "LitServe (pipeline)",
    "The pipeline in a `LitAPI`: one worker, batches of up to 16, 5 ms wait.",
    _launch,
    environment=LITSERVE,
    path="/predict",
)

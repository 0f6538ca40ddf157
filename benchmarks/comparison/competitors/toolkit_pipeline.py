"""A plain transformers pipeline in AWS's toolkit and TorchServe."""

from __future__ import annotations

from benchmarks.comparison.competitors.base import SERVED, Competitor, Launch, Site
from benchmarks.comparison.competitors.torchserve_start import lay_out, start_torchserve
from benchmarks.comparison.environments import TOOLKIT


def _launch(site: Site) -> Launch:
    lay_out(site.folder, SERVED / "pipeline_inference.py", huggingface=site.model.huggingface)
    return start_torchserve(site, workers=1)


COMPETITOR = Competitor(
    "toolkit-pipeline",
    "AWS toolkit (pipeline)",
    "`transformers.pipeline` in the four functions of AWS's toolkit; one worker with all cores, "
    "which is better than the default.",
    _launch,
    environment=TOOLKIT,
)

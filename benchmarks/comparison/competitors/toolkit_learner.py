"""``load_learner`` and ``learn.predict`` in AWS's toolkit and TorchServe."""

from __future__ import annotations

from benchmarks.comparison.competitors.base import SERVED, Competitor, Launch, Site
from benchmarks.comparison.competitors.torchserve_start import lay_out, start_torchserve
from benchmarks.comparison.environments import TOOLKIT


def _launch(site: Site) -> Launch:
    inference = SERVED / "learner_inference.py"
    lay_out(site.folder, inference, **{"learner.pkl": site.model.learner})
    return start_torchserve(site, workers=None)


COMPETITOR = Competitor(
    "article",  # the key in docs/comparison.json
    "AWS toolkit (learn.predict)",
    "`load_learner` and `learn.predict` in the four functions of AWS's toolkit, with TorchServe's "
    "default number of workers (one per core); fastai is already installed.",
    _launch,
    environment=TOOLKIT,
    askers=1,  # it is faster alone
)

"""Ray Serve with ``@serve.batch``."""

from __future__ import annotations

import os

from benchmarks.comparison.competitors.base import SERVED, Competitor, Launch, Site
from benchmarks.comparison.competitors.ray_start import start_ray
from benchmarks.comparison.environments import RAY

_CONFIG = """\
applications:
- name: default
  route_prefix: /
  import_path: ray_app:app
"""


def _launch(site: Site) -> Launch:
    (site.folder / "config.yaml").write_text(_CONFIG)
    launch = start_ray(site, site.folder, str(SERVED))
    # Otherwise Ray would give torch one thread.
    threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    variables = {**launch.variables, **threads, "MODEL": str(site.model.huggingface)}
    return Launch(launch.command, launch.folder, variables)


COMPETITOR = Competitor(
    "ray-pipeline",
    "Ray Serve (pipeline)",
    "The pipeline in one replica with `@serve.batch`: up to 16, 5 ms wait; through Ray's port.",
    _launch,
    environment=RAY,
    path="/",
)

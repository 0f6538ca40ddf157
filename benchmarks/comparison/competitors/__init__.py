"""The competitors, in the order in which each round measures them."""

from __future__ import annotations

from benchmarks.comparison.competitors import (
    bentoml,
    fdeploy_local,
    fdeploy_ray,
    fdeploy_torchserve,
    litserve,
    ray_pipeline,
    toolkit_learner,
    toolkit_pipeline,
)

COMPETITORS = (
    fdeploy_local.INT8,
    toolkit_learner.COMPETITOR,
    fdeploy_torchserve.COMPETITOR,
    toolkit_pipeline.COMPETITOR,
    fdeploy_ray.COMPETITOR,
    litserve.COMPETITOR,
    bentoml.COMPETITOR,
    ray_pipeline.COMPETITOR,
    fdeploy_local.FLOAT32,
)

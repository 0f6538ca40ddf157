"""The competitors, in the order in which each round asks them."""

from __future__ import annotations

from benchmarks.comparison.competitors import (
    article,
    bentoml,
    fdeploy_local,
    fdeploy_ray,
    fdeploy_torchserve,
    litserve,
    ray_pipeline,
    toolkit_pipeline,
)

COMPETITORS = (
    fdeploy_local.INT8,
    article.COMPETITOR,
    fdeploy_torchserve.COMPETITOR,
    toolkit_pipeline.COMPETITOR,
    fdeploy_ray.COMPETITOR,
    litserve.COMPETITOR,
    bentoml.COMPETITOR,
    ray_pipeline.COMPETITOR,
    fdeploy_local.FLOAT32,
)

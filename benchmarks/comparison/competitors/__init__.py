"""The competitors, in the order in which each round measures them."""

from __future__ import annotations

from benchmarks.comparison.competitors import (
    bentoml,
    fdeploy_image,
    fdeploy_local,
    fdeploy_ray,
    fdeploy_torchserve,
    huggingface,
    infinity,
    litserve,
    openvino,
    ray_pipeline,
    toolkit_learner,
    toolkit_pipeline,
)

COMPETITORS = (
    fdeploy_image.COMPETITOR,
    fdeploy_ray.COMPETITOR,
    fdeploy_local.COMPETITOR,
    toolkit_learner.COMPETITOR,
    fdeploy_torchserve.COMPETITOR,
    toolkit_pipeline.COMPETITOR,
    huggingface.COMPETITOR,
    litserve.COMPETITOR,
    bentoml.COMPETITOR,
    ray_pipeline.COMPETITOR,
    infinity.COMPETITOR,
    openvino.COMPETITOR,
    fdeploy_local.UNQUANTIZED,
    fdeploy_local.FORCED_INT8,
)

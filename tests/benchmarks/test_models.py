"""fdeploy is measured with its defaults and in the environment of a deploy; no gate is loosened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomli

from benchmarks.comparison.competitors import fdeploy_ray, fdeploy_torchserve
from benchmarks.comparison.models import (
    DEFAULT,
    FLOAT32,
    INT8,
    REVIEWS,
    Known,
    Model,
    accuracy,
    settings,
)
from fastai_deploy.settings import ProjectFile

TEMPLATE = Path(__file__).parents[2] / "fastai_deploy" / "aws" / "templates" / "endpoint.yaml"
KNOWN = (Known("a", {"x": 0.7, "y": 0.3}, "x"), Known("b", {"x": 0.6, "y": 0.4}, "y"))


@pytest.mark.parametrize("form", [DEFAULT, FLOAT32, INT8])
@pytest.mark.parametrize("server", ["local", "torchserve", "ray-serve"])
def test_the_settings_are_the_defaults(form: str, server: str) -> None:
    given = tomli.loads(settings(REVIEWS, form, server))
    ProjectFile.model_validate(given)
    model = {"learner": "../learner.pkl", "golden": "../golden.jsonl"}
    assert given["model"] == (model if form == DEFAULT else {**model, "quantize": form})
    assert set(given["endpoint"]) <= {"instance", "server"}


def test_a_refused_form_is_not_measured(tmp_path: Path) -> None:
    exports: dict[str, dict[str, Any]] = {
        DEFAULT: {"bytes": {}},
        INT8: {"refused": "labels changed"},
    }
    model = Model(REVIEWS, tmp_path, {}, KNOWN, KNOWN, exports)
    assert model.has(DEFAULT)
    assert not model.has(INT8)


def test_accuracy_counts_the_true_labels() -> None:
    assert accuracy(["x", "x"], KNOWN) == 0.5
    assert accuracy(["x"], (Known("a", {"x": 1.0}),)) is None


@pytest.mark.parametrize(
    ("condition", "given"),
    [
        ("IsRayServe|HasBackend", fdeploy_ray.ENVIRONMENT),
        ("IsTorchServe", fdeploy_torchserve.ENVIRONMENT),
    ],
)
def test_the_images_get_the_environment_of_a_deploy(condition: str, given: dict[str, str]) -> None:
    line = rf"^ +(\w+): !If \[(?:{condition}), '?([^,!/]+?)'?, !Ref AWS::NoValue\]$"
    found = dict(re.findall(line, TEMPLATE.read_text(encoding="utf-8"), re.MULTILINE))
    assert found.items() <= given.items()

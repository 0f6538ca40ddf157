"""The container that an artifact is packed for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastai_deploy.errors import SettingsError
from fastai_deploy.packaging.served_model import ServedModel, served_model
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.settings import load_settings
from fastai_deploy.targets.aws.stacks import serving_container

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine"


def container(folder: Path, endpoint: str) -> Container:
    (folder / "fdeploy.toml").write_text(f"[endpoint]\n{endpoint}\n", encoding="utf-8")
    settings = load_settings(folder=folder, config=None, stage=None, environ={}, flags={})
    return serving_container(settings, "us-east-1", folder / "bundle")


@pytest.mark.parametrize(
    ("endpoint", "python", "machine"),
    [
        ('instance = "ml.m5.large"', "3.13", "x86_64"),
        ('instance = "ml.m5.large"\nserver = "torchserve"', "3.12", "x86_64"),
        ('instance = "ml.c7g.large"', "3.12", "aarch64"),
        ('instance = "ml.p2.xlarge"', "3.8", "x86_64"),
    ],
)
def test_the_settings_lead_to_a_python_and_a_processor(
    tmp_path: Path, endpoint: str, python: str, machine: str
) -> None:
    found = container(tmp_path, endpoint)
    assert (found.python, found.machine) == (python, machine)
    assert found.has == {"numpy"}


@pytest.mark.parametrize("instance", ["ml.p2.xlarge", "ml.g5.xlarge"])
def test_a_gpu_gets_the_graph_that_it_computes(tmp_path: Path, instance: str) -> None:
    write_manifest(tmp_path, gpu="model.onnx")
    found = container(tmp_path, f'instance = "{instance}"')
    assert (found.gpu, found.warnings) == (True, ())
    on_processor = container(tmp_path, 'instance = "ml.m5.large"')
    assert (on_processor.gpu, on_processor.warnings) == (False, ())


def test_a_gpu_that_is_not_used_is_told(tmp_path: Path) -> None:
    write_manifest(tmp_path, gpu=None)
    found = container(tmp_path, 'instance = "ml.p2.xlarge"')
    (warning,) = found.warnings
    assert not found.gpu
    assert "the GPU of ml.p2.xlarge is paid for but not used" in warning
    assert "fdeploy cannot run its graph on a GPU" in warning
    assert container(tmp_path, 'instance = "ml.m5.large"').warnings == ()


def test_a_learner_as_it_is_does_not_use_a_gpu(tmp_path: Path) -> None:
    write_learner(tmp_path, "3.8")
    (warning,) = container(tmp_path, 'instance = "ml.p2.xlarge"').warnings
    assert "a learner served from its original pickle always does" in warning


def test_the_size_of_a_model_is_of_both_its_files(tmp_path: Path) -> None:
    write_manifest(tmp_path, gpu="model.onnx")
    assert served_model(tmp_path / "bundle") == ServedModel(11, 44, None, 11)


def write_manifest(folder: Path, *, gpu: str | None) -> None:
    """A bundle with an int8 graph beside its reference."""
    (folder / "bundle").mkdir()
    manifest = {
        "model": {"file": "model.int8.onnx", "gpu": gpu},
        "files": {
            "model.onnx": {"bytes": 4},
            "model.onnx.data": {"bytes": 40},
            "model.int8.onnx": {"bytes": 1},
            "model.int8.onnx.data": {"bytes": 10},
        },
    }
    (folder / "bundle" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_an_image_of_ones_own_is_asked_for_its_python(tmp_path: Path) -> None:
    found = container(tmp_path, f'image = "{IMAGE}:1.0-py311"')
    assert (found.python, found.known, found.has) == ("3.11", False, frozenset())
    with pytest.raises(SettingsError, match="does not state its Python"):
        container(tmp_path, f'image = "{IMAGE}:latest"')


def write_learner(folder: Path, python: str) -> None:
    """A bundle with an original learner."""
    (folder / "bundle").mkdir()
    manifest = {
        "runtime": {"python": python},
        "model": {"file": "learner.pkl"},
        "files": {"learner.pkl": {"bytes": 1}},
    }
    (folder / "bundle" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("instance", "python", "image"),
    [
        ("ml.m5.large", "3.13", "ray-serve"),
        ("ml.m5.large", "3.12", "torchserve"),
        ("ml.m5.large", "3.9", "torchserve"),
        ("ml.c7g.large", "3.11", "torchserve"),
        ("ml.p2.xlarge", "3.8", "torchserve"),
    ],
)
def test_a_learner_as_it_is_gets_its_python(
    tmp_path: Path, instance: str, python: str, image: str
) -> None:
    write_learner(tmp_path, python)
    found = container(tmp_path, f'instance = "{instance}"')
    assert (found.python, found.name) == (python, f"{image} image")


def test_a_learner_whose_python_no_image_has(tmp_path: Path) -> None:
    write_learner(tmp_path, "3.11")
    with pytest.raises(SettingsError, match=r"needs Python 3.11, .* ml.p2.xlarge have 3.8$") as no:
        container(tmp_path, 'instance = "ml.p2.xlarge"')
    assert "--instance, such as ml.m5.large" in no.value.hint
    with pytest.raises(SettingsError, match=r"needs Python 3.11, but the image .* has 3.12"):
        container(tmp_path, f'image = "{IMAGE}:1.0-py312"')
    # If the image's name does not show it, the user's setting counts.
    assert container(tmp_path, f'image = "{IMAGE}:latest"').python == "3.11"

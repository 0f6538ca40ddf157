"""Which container an artifact is packed for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastai_deploy.errors import SettingsError
from fastai_deploy.settings import load_settings
from fastai_deploy.targets.aws.container import serving_container
from fastai_deploy.wheels import Container

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine"


def container(folder: Path, endpoint: str) -> Container:
    (folder / "fdeploy.toml").write_text(f"[endpoint]\n{endpoint}\n", encoding="utf-8")
    settings = load_settings(folder=folder, config=None, stage=None, environ={}, flags={})
    return serving_container(settings, "us-east-1")


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


def test_a_gpu_that_is_not_used_is_told(tmp_path: Path) -> None:
    (warning,) = container(tmp_path, 'instance = "ml.p2.xlarge"').warnings
    assert "the GPU of ml.p2.xlarge is paid for and not used" in warning
    assert container(tmp_path, 'instance = "ml.m5.large"').warnings == ()


def test_an_image_of_ones_own_is_asked_for_its_python(tmp_path: Path) -> None:
    found = container(tmp_path, f'image = "{IMAGE}:1.0-py311"')
    assert (found.python, found.known, found.has) == ("3.11", False, frozenset())
    with pytest.raises(SettingsError, match="does not tell its Python"):
        container(tmp_path, f'image = "{IMAGE}:latest"')

from __future__ import annotations

from types import ModuleType

import pytest

from fastai_deploy.errors import ExtraMissing
from fastai_deploy.learner.rebuild.libraries import broken_torchvision, require


def failing(error: Exception) -> ModuleType:
    raise error


def test_the_libraries_of_this_environment_work() -> None:
    require()


def test_a_torchvision_for_another_torch_is_named() -> None:
    def load(_name: str) -> ModuleType:
        try:
            return failing(RuntimeError("operator torchvision::nms does not exist"))
        except RuntimeError as cause:
            raise ModuleNotFoundError("Could not import module 'BertModel'") from cause

    with pytest.raises(ExtraMissing, match="torchvision") as caught:
        require(load)
    assert "pip uninstall torchvision" in caught.value.hint


def test_another_broken_library_is_named() -> None:
    with pytest.raises(ExtraMissing, match=r"torch is installed but.*libcudart") as caught:
        require(lambda _name: failing(OSError("libcudart.so.12: cannot open\nmore")))
    assert "fastai-deploy[convert]" in caught.value.hint


def test_a_circle_of_causes_ends() -> None:
    error = ValueError("a")
    error.__cause__ = error
    assert not broken_torchvision(error)

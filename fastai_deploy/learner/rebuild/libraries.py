"""Check that the libraries needed to rebuild a learner are installed and work."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

from fastai_deploy.errors import ExtraMissing, need_extra

CONVERT = ("torch", "transformers", "tokenizers", "safetensors", "onnx", "onnxruntime", "numpy")


def require(load: Callable[[str], ModuleType] = importlib.import_module) -> None:
    """Import what conversion needs. Raises ExtraMissing with the command to install it."""
    need_extra("convert", *CONVERT)
    for name in CONVERT:
        _load(name, load)


def _load(name: str, load: Callable[[str], ModuleType]) -> None:
    try:
        load(name)
    except Exception as error:  # a broken library may raise anything on import
        raise explain(name, error) from error


def explain(name: str, error: BaseException) -> ExtraMissing:
    """The error for a library that is installed but cannot be imported."""
    if broken_torchvision(error):
        return ExtraMissing(
            "the installed torchvision does not match torch, so transformers cannot be imported",
            hint="run: pip uninstall torchvision   (fdeploy does not need it)",
        )
    reason = (str(error) or repr(error)).splitlines()[0]
    return ExtraMissing(
        f"{name} is installed but cannot be imported: {reason}",
        hint="run: pip install --force-reinstall 'fastai-deploy[convert]'",
    )


def broken_torchvision(error: BaseException | None) -> bool:
    """Whether an import failed because torchvision was built for another torch.

    Somewhere in the chain of causes, the message is then
    ``operator torchvision::nms does not exist``.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if "torchvision" in str(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False

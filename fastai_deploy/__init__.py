"""Turns a text classifier into a verified, key-protected HTTPS API, and removes it again."""

from importlib import import_module
from typing import Any

import fastai_deploy.runtime  # noqa: F401 - switches telemetry off before anything can report

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "Client",
    "Failure",
    "InvalidRequest",
    "ModelError",
    "Throttled",
    "Unauthorized",
    "Unavailable",
    "export_learner",
]


def __getattr__(name: str) -> Any:
    """What scripts and notebooks use; nothing of it is loaded until it is used.

    ``__init__.pyi`` names the types for checkers and editors.
    """
    if name == "export_learner":
        return import_module("fastai_deploy.learner.live").export_learner
    if name in __all__:
        return getattr(import_module("fastai_deploy.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What is optional, and how to install it."""

from __future__ import annotations

from importlib.util import find_spec

from fastai_deploy.errors import ExtraMissing


def need_extra(extra: str, *modules: str) -> None:
    """Raise ExtraMissing unless every module is installed; imports none of them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ExtraMissing(
            f"this needs {', '.join(missing)}, which the extra {extra!r} of fastai-deploy brings",
            hint=f"pip install 'fastai-deploy[{extra}]'",
        )

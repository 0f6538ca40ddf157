"""Whether a GPU can compute a graph: proved on the processor, with the same operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastai_deploy.learner.rebuilding.agreement import AGREEMENT, Session
from fastai_deploy.runtime.torch_session import open_torch


def gpu_form(path: Path, difference: Callable[[Session], float]) -> str | None:
    """The name of the file, if torch computes its graph alike, node by node; else None.

    ``difference`` asks a session, and gives its largest difference from the model.
    """
    try:
        alike = difference(open_torch(path, "cpu", half=False)) <= AGREEMENT
    except Exception:  # noqa: BLE001 - torch's errors have no common base; the processor is left
        return None
    return path.name if alike else None

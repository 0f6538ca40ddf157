"""The manifest's section on a learner that is served as it is, with its own libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["softmax", "sigmoid"]

KIND = "learner"  # of the text and of the runtime: the learner does everything itself
LEARNER = "learner.pkl"
REQUIREMENTS = "requirements.txt"
LOCK = "requirements.lock"  # what the environment of the proof was installed from


@dataclass(frozen=True)
class RuntimeSpec:
    """How the learner is loaded.

    ``python`` is the version that it needs (``3.11``), ``fastai`` the major version.
    ``definitions`` is the file of the bundle with the user's classes, of which ``names`` are looked
    up in ``__main__``. ``activation`` makes probabilities of raw scores, where it answers those.
    """

    python: str
    fastai: str
    definitions: str | None
    names: tuple[str, ...]
    activation: Activation | None
    kind: str = KIND

"""The Python that an unpacked artifact is served with."""

from __future__ import annotations

import sys
from pathlib import Path

from fastai_deploy.bundle.runtime_spec import LOCK, REQUIREMENTS
from fastai_deploy.environments.environment import Environments
from fastai_deploy.environments.requirements import read_requirements
from fastai_deploy.json_reader import read_object


def interpreter(model: Path, environments: Environments) -> Path:
    """The running one; for a learner served as it is, one with the versions that it states.

    Raises RuntimeUnproven when that environment cannot be made, and FileError.
    """
    manifest = read_object(model / "manifest.json", "run fdeploy package")
    if not manifest.has("runtime"):
        return Path(sys.executable)
    requirements = read_requirements(model / REQUIREMENTS)
    python = manifest.section("runtime").text("python")
    return environments.interpreter(python, requirements, model / LOCK)

"""The Python that an unpacked artifact is served with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.bundle.runtime_spec import LOCK, REQUIREMENTS
from fastai_deploy.environments.environment import Environments
from fastai_deploy.environments.requirements import read_requirements


def interpreter(model: Path, environments: Environments) -> Path:
    """The running one; for a learner served as it is, one with the versions that it states.

    Raises RuntimeUnproven when that environment cannot be made, and FileError.
    """
    manifest = model / "manifest.json"
    with files.file_errors(manifest):
        section = json.loads(manifest.read_bytes()).get("runtime")
    if section is None:
        return Path(sys.executable)
    requirements = read_requirements(model / REQUIREMENTS)
    return environments.interpreter(section["python"], requirements, model / LOCK)

"""Whether the packaged artifact fits the image that the settings lead to."""

from __future__ import annotations

from pathlib import Path

from fastai_deploy.errors import FileError
from fastai_deploy.packed import read_packed
from fastai_deploy.records import Artifact
from fastai_deploy.reports import Check
from fastai_deploy.wheels import Container

_AGAIN = "run fdeploy package with these settings"


def artifact_check(artifact: Artifact | None, container: Container) -> Check:
    """A check; what does not fit only warns, because ``deploy`` packs it again for the image."""
    name = "artifact"
    if artifact is None:
        return Check(name, "warned", "nothing is packaged yet", "run fdeploy package")
    try:
        packed = read_packed(Path(artifact.path))
    except FileError as error:
        return Check(name, "failed", error.message, error.hint)
    image = f"the {container.name} has Python {container.python} on {container.platform}"
    about = f"version {artifact.version}"
    wrong = list(packed.misfits(container))
    if wrong:
        return Check(name, "warned", f"{about} does not fit: {'; '.join(wrong)}; {image}", _AGAIN)
    if packed.learner:
        return Check(name, "passed", f"{about} is a learner of Python {packed.learner}; {image}")
    if packed.python is None:
        told = f"{about} carries no libraries: a container would fetch them when it starts; {image}"
        return Check(name, "warned", told, _AGAIN)
    return Check(name, "passed", f"{about} carries {len(packed.wheels)} wheels; {image}")

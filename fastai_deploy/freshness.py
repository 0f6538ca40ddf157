"""Checks that the input of a stage is up to date.

Every record carries a digest of what it was made from. Following that chain back finds the first
stage whose input has changed; the error names it as the command to run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastai_deploy import __version__, files
from fastai_deploy.bundle import read_manifest
from fastai_deploy.errors import RecordStale, StageError
from fastai_deploy.learner.pretrained.folder import opened_folder
from fastai_deploy.packaging.artifact import runtime_digest
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.project import Project
from fastai_deploy.records import Artifact, Bundle, Endpoint, Source, StoredArtifact


def bundle(project: Project) -> Bundle:
    """The bundle to package. Raises RecordMissing, RecordStale or FileError."""
    record = project.workspace.need(Bundle)
    learner = Path(record.source.path)
    with files.file_errors(learner):
        same = not learner.exists() or unchanged(record.source)
    if not same:
        raise _stale(f"{learner} has changed since it was exported", "export")
    manifest = Path(record.path) / "manifest.json"
    if files.size_of(manifest) is None or files.sha256(manifest) != record.version:
        raise _stale(f"{record.path} is not the bundle that fdeploy export wrote", "export")
    read_manifest(manifest.parent)
    return record


def artifact(project: Project) -> Artifact:
    """The artifact to upload. Raises RecordMissing or RecordStale."""
    record = project.workspace.need(Artifact)
    with _before("package"):
        made_from = bundle(project) if project.workspace.find(Bundle) else None
    if made_from is not None and record.made_from != package_digest(
        project, made_from, project.target.container(record)
    ):
        raise _stale(
            "the bundle, the serving code or the container image has changed since the last "
            "package",
            "package",
        )
    path = Path(record.path)
    if files.size_of(path) != record.bytes:
        raise _stale(f"{path} is not the file that fdeploy package wrote", "package")
    return record


def stored(project: Project) -> StoredArtifact:
    """The stored artifact to deploy. Raises RecordMissing or RecordStale."""
    record = project.workspace.need(StoredArtifact)
    with _before("upload"):
        made_from = artifact(project) if project.workspace.find(Artifact) else None
    if made_from is not None and record.made_from != made_from.sha256:
        raise _stale("model.tar.gz has changed since it was uploaded", "upload")
    if made_from is not None and record.image_tag != made_from.image_tag:
        raise _stale("the container image has changed since the last upload", "upload")
    _same_target(project, record.target, "upload")
    name = project.settings.project_name
    if record.project not in ("", name):
        raise _stale(
            f"the artifact was uploaded for project {record.project}, whose teardown may delete "
            f"it, and not for {name}",
            "upload",
        )
    return record


def endpoint(project: Project) -> Endpoint:
    """The endpoint to create an API for. Raises RecordMissing or RecordStale."""
    record = project.workspace.need(Endpoint)
    with _before("deploy"):
        made_from = stored(project) if project.workspace.find(StoredArtifact) else None
    if made_from is not None and record.made_from != made_from.sha256:
        raise _stale("another artifact was uploaded since the last deploy", "deploy")
    _same_target(project, record.target, "deploy")
    return record


def unchanged(source: Source) -> bool:
    """Whether the learner is the exported one; it is hashed only if its date differs."""
    path = Path(source.path)
    if source.kind == "folder":
        with opened_folder(path) as folder:
            if (folder.size, folder.modified_ns) == (source.bytes, source.modified_ns):
                return True
            return folder.size == source.bytes and folder.digest() == source.sha256
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (source.bytes, source.modified_ns):
        return True
    return status.st_size == source.bytes and files.sha256(path) == source.sha256


def export_digest(learner: str, golden: str | None, tolerance: float, *others: str | None) -> str:
    """What a bundle depends on: the hashes of the learner and the goldens, and the settings."""
    return _digest(__version__, learner, golden, tolerance, *others)


def package_digest(project: Project, made_from: Bundle, container: Container | None) -> str:
    """What an artifact depends on: the bundle, the model's name, the code and the container."""
    name = project.settings.sections.package.name
    return _digest(__version__, made_from.version, name, runtime_digest(), compatibility(container))


def compatibility(container: Container | None) -> str:
    """The Python, platform and GPU an artifact must match; empty if there is no container image."""
    if container is None:
        return ""
    if container.complete:
        return f"fdeploy's own server, {container.machine}"
    return ", ".join(
        (
            f"Python {container.python}",
            container.platform,
            *(() if container.known else ("a custom image",)),
            *(("a GPU",) if container.gpu else ()),
            *(("Lambda",) if container.function else ()),
        )
    )


def needs_repackaging(project: Project) -> bool:
    """Whether the uploaded artifact is for another target or image than deploy now needs."""
    find = project.workspace.find
    made, record = find(Artifact), find(StoredArtifact)
    if made is None or record is None or find(Bundle) is None:
        return False  # there is nothing to package again
    wanted = compatibility(project.target.container(made))
    return record.target != project.target.name or made.fits != wanted


def _same_target(project: Project, target: str, command: str) -> None:
    if target != project.target.name:
        raise _stale(f"the last {command} was for target {target}", command)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def _before(command: str) -> Iterator[None]:
    """Add ``command`` to the commands that an error of an earlier stage asks for."""
    try:
        yield
    except StageError as error:
        raise type(error)(error.message, hint=f"{error.hint} && fdeploy {command}") from None


def _stale(reason: str, command: str) -> RecordStale:
    return RecordStale(reason, hint=f"run fdeploy {command}")

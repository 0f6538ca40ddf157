"""The flow, one function a command.

    learner.pkl --export--> Bundle --package--> Artifact --upload--> StoredArtifact
                --deploy--> Endpoint --create_api--> Api            (up: all of them in a row)

    invoke asks the endpoint or the API; teardown removes what deploy, create_api and upload made.

Each stage takes the record before it and returns the next one, which it writes to the workspace
when it ends. A stage whose input has not changed returns what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastai_deploy import files, freshness
from fastai_deploy.artifact import serving_versions, write_artifact
from fastai_deploy.errors import LeftoverError, UsageError
from fastai_deploy.learner.summary import inspect as learner_summary
from fastai_deploy.progress import Advanced, StageFinished, StageStarted, Step, Warned
from fastai_deploy.project import Project
from fastai_deploy.records import (
    Api,
    Artifact,
    Bundle,
    Endpoint,
    Source,
    StoredArtifact,
    Teardown,
)
from fastai_deploy.targets.base import Json
from fastai_deploy.verification import stored_goldens, verifier
from fastai_deploy.wheels import default_cache, resolve


def inspect(project: Project) -> dict[str, Any]:
    """What is in the learner that the settings name. Raises LearnerError or FileError."""
    return learner_summary(_learner(project))


def export(project: Project) -> Bundle:
    """Read the learner that the settings name, without running it, and convert it.

    Raises LearnerError, GoldenError, ParityError, FileError or ExtraMissing.
    """
    with _stage(project, "export") as ending:
        learner, golden = _learner(project), _golden(project)
        model = project.settings.sections.model
        project.report(Step(f"reading {learner.name}; nothing in it is executed"))
        source = _source(learner)
        made_from = freshness.export_digest(
            source.sha256,
            files.sha256(golden) if golden else None,
            model.tolerance,
            model.quantize,
        )
        before = project.workspace.find(Bundle)
        if before and before.made_from == made_from and Path(before.path, "manifest.json").exists():
            record = replace(before, source=source)
            ending.summary = f"{_about(record)}, unchanged"
        else:
            # Torch and transformers, which take seconds to import, are behind this line.
            from fastai_deploy.learner.convert import convert  # noqa: PLC0415

            converted = convert(
                learner,
                project.workspace.bundle,
                golden=golden,
                tolerance=model.tolerance,
                quantize=model.quantize,
                name=learner.stem,
                report=project.report,
            )
            record = Bundle(
                path=str(converted.path),
                version=converted.version,
                name=converted.name,
                task=converted.task,
                labels=converted.labels,
                proven=_proven(converted.path),
                max_difference=converted.max_difference,
                # What was read, should the file have changed since its hash was taken above.
                source=replace(source, sha256=converted.learner_sha256),
                golden=str(golden) if golden else None,
                made_from=made_from,
            )
            ending.summary = _about(record)
        project.workspace.save(record)
    return record


def package(project: Project, bundle: Bundle) -> Artifact:
    """Pack the bundle and the serving code into ``model.tar.gz``, with wheels for its container.

    Raises FileError, WheelMissing, ExtraMissing or SettingsError.
    """
    with _stage(project, "package") as ending:
        made_from = freshness.package_digest(project, bundle)
        before = project.workspace.find(Artifact)
        if before and before.made_from == made_from and _is_whole(before):
            record = before
            ending.summary = f"version {record.version}, unchanged"
        else:
            container = project.target.container()
            for warning in container.warnings if container else ():
                project.report(Warned(warning, "a processor such as ml.c6i.large costs less"))
            wheels = container and resolve(
                container,
                serving_versions(Path(bundle.path)),
                cache=default_cache(),
                told=lambda message: project.report(Step(message)),
            )
            written = write_artifact(
                Path(bundle.path),
                project.workspace.artifact,
                container=container,
                wheels=wheels or (),
                name=project.settings.sections.package.name or bundle.name,
                told=lambda done, total: project.report(Advanced("package", done, total)),
            )
            record = Artifact(
                str(project.workspace.artifact), written.sha256, written.bytes, made_from
            )
            ending.summary = f"version {record.version}, {record.bytes:,} bytes"
        project.workspace.save(record)
    return record


def upload(project: Project, artifact: Artifact) -> StoredArtifact:
    """Store the artifact where the target can read it. Raises FileError."""
    with _stage(project, "upload") as ending:
        record = project.target.upload(artifact)
        project.workspace.save(record)
        ending.summary = f"version {artifact.version}, {artifact.bytes:,} bytes"
    return record


def deploy(project: Project, stored: StoredArtifact) -> Endpoint:
    """Serve the artifact; done when the endpoint has answered the goldens.

    Raises DeployError or ParityError; what was serving before still is, then.
    """
    with _stage(project, "deploy") as ending:
        verify = verifier(project.workspace.bundle, "the endpoint", project.report)
        record = project.target.deploy(stored, verify)
        project.workspace.save(record)
        ending.summary = f"{record.name} at {record.url}"
    return record


def create_api(project: Project, endpoint: Endpoint) -> Api:
    """Put the key-protected API in front of the endpoint; done when it has answered the goldens.

    Raises DeployError, ParityError or InvocationError.
    """
    with _stage(project, "create-api") as ending:
        verify = verifier(project.workspace.bundle, "the API", project.report)
        record = project.target.create_api(endpoint, verify)
        project.workspace.save(record)
        ending.summary = f"POST {record.url}"
    return record


def up(project: Project) -> Api:
    """Every stage in a row; those whose input has not changed end at once."""
    bundle = export(project)
    artifact = package(project, bundle)
    stored = upload(project, artifact)
    endpoint = deploy(project, stored)
    return create_api(project, endpoint)


def invoke(project: Project, request: Json, *, through_api: bool = False) -> Json:
    """Send one request of the contract to the endpoint, or through the API with its key.

    Raises RecordMissing before a deploy, UsageError for a blank text, or InvocationError.
    """
    if not str(request.get("text", "")).strip():
        raise UsageError(
            "the text is empty: there is nothing to classify",
            hint='fdeploy invoke "some text"',
        )
    if through_api:
        return project.target.call_api(project.workspace.need(Api), request)
    return project.target.invoke(project.workspace.need(Endpoint), request)


def teardown(project: Project, *, artifacts: bool = False, confirmed: bool = False) -> Teardown:
    """Remove what the target runs and stores, and prove that nothing is left.

    The bundle and ``model.tar.gz`` stay: they are the user's. ``artifacts`` and ``confirmed`` are
    explained in ``targets.base``. Raises LeftoverError, or UsageError for a protected stage.
    """
    with _stage(project, "teardown") as ending:
        proof = project.target.teardown(artifacts=artifacts, confirmed=confirmed)
        project.workspace.forget(Api, Endpoint, StoredArtifact)
        ending.summary = (
            f"{len(proof.found)} found, {len(proof.deleted)} deleted, {len(proof.left)} left"
        )
        if proof.left:
            raise LeftoverError(
                f"{len(proof.left)} left: {'; '.join(proof.left)}",
                hint="end or remove these by hand, then run fdeploy teardown again",
            )
    return proof


@dataclass
class _Ending:
    summary: str = field(default="")


@contextmanager
def _stage(project: Project, name: str) -> Iterator[_Ending]:
    """Tell that a stage begins, and when it ends well, how it ended."""
    ending = _Ending()
    began = project.clock()
    project.report(StageStarted(name))
    yield ending
    project.report(StageFinished(name, ending.summary, project.clock() - began))


def _learner(project: Project) -> Path:
    setting = project.settings.sections.model.learner
    if setting:
        return project.settings.path(setting)
    before = project.workspace.find(Bundle)
    if before:
        return Path(before.source.path)
    found = sorted(path.name for path in project.settings.root.glob("*.pkl"))
    raise UsageError(
        "no learner is named",
        hint=f"fdeploy export {found[0] if found else 'learner.pkl'}, "
        "or set learner in [model] of fdeploy.toml",
    )


def _golden(project: Project) -> Path | None:
    """The setting; else, when the learner is the one exported before, the file named then."""
    model = project.settings.sections.model
    if model.golden:
        return project.settings.path(model.golden)
    before = None if model.learner else project.workspace.find(Bundle)
    return Path(before.golden) if before and before.golden else None


def _proven(bundle: Path) -> int:
    """How many goldens hold the learner's own answers."""
    return sum(golden.source == "learner" for golden in stored_goldens(bundle)[1])


def _source(learner: Path) -> Source:
    with files.file_errors(learner):
        status = learner.stat()
    return Source(str(learner), files.sha256(learner), status.st_size, status.st_mtime_ns)


def _is_whole(artifact: Artifact) -> bool:
    path = Path(artifact.path)
    return path.is_file() and files.sha256(path) == artifact.sha256


def _about(bundle: Bundle) -> str:
    return f"{bundle.name}: {bundle.task}, {len(bundle.labels)} labels"

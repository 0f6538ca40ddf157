"""The flow: one function per command.

    learner.pkl --export--> Bundle --package--> Artifact --upload--> StoredArtifact
                --deploy--> Endpoint --create_api--> Api            (up: all five in order)

    invoke calls the endpoint or the API; teardown removes what deploy, create_api and upload made.

Each stage takes the previous stage's record and returns its own, which it saves in the workspace
when it ends. If its input has not changed, it returns the saved record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastai_deploy import export_source, files, freshness
from fastai_deploy.api_docs.client_code import collection
from fastai_deploy.api_docs.openapi import describe_api, document
from fastai_deploy.batch_invoke.run import (
    AnswerFile,
    AskOptions,
    Batch,
    BatchOptions,
    Fits,
    answers,
)
from fastai_deploy.bundle import read_manifest
from fastai_deploy.bundle.manifest import LOCK, REQUIREMENTS
from fastai_deploy.environments.requirements import lock_for_container, read_lock, read_requirements
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import LeftoverError, UsageError
from fastai_deploy.learner.examine.anatomy import inspect as learner_summary
from fastai_deploy.packaging.artifact import serving_versions, write_artifact
from fastai_deploy.packaging.wheels import Container, default_cache, fetch
from fastai_deploy.parity import Json
from fastai_deploy.parity.gate import model_summary, stored_goldens, verifier
from fastai_deploy.progress import Advanced, StageFinished, StageStarted, Step, Warned
from fastai_deploy.project import Project
from fastai_deploy.records import (
    UNPROVEN,
    Api,
    Artifact,
    Bundle,
    Checkup,
    Endpoint,
    LogLine,
    Policies,
    StagePlan,
    Status,
    StoredArtifact,
    Teardown,
    Templates,
    Version,
    counted,
)
from fastai_deploy.settings import Settings
from fastai_deploy.settings.aws_sections import MAX_BODY_BYTES
from fastai_deploy.settings.constraints import MAX_SERVERLESS_BODY
from fastai_deploy.settings.loading import REMEMBERED


def inspect(project: Project) -> dict[str, Any]:
    """Summarize the learner without running it. Raises LearnerError or FileError."""
    return learner_summary(export_source.export_request(project).learner)


def export(project: Project) -> Bundle:
    """Convert the learner into a bundle without running it.

    :mod:`fastai_deploy.export_source` describes the other sources. Raises LearnerError,
    GoldenError, ParityError, UsageError, FileError or ExtraMissing.
    """
    with _stage(project, "export") as ending:
        wanted = export_source.export_request(project)
        source = export_source.source(wanted)
        made_from = export_source.digest(wanted, source)
        before = project.workspace.find(Bundle)
        unchanged = before is not None and before.made_from == made_from
        if before and unchanged and _bundle_is_whole(before) and wanted.kind != "factory":
            record = replace(before, source=source)
            ending.summary = f"{_about(record)}, unchanged"
        else:
            made = export_source.make(project, wanted)
            record = Bundle(
                path=str(made.path),
                version=made.version,
                name=made.name,
                task=made.task,
                labels=made.labels,
                proven=_proven(made.path),
                max_difference=made.max_difference,
                # Hash of what was converted: the file may have changed since it was hashed above.
                source=replace(source, sha256=made.learner_sha256)
                if wanted.kind == "file"
                else source,
                golden=str(wanted.golden) if wanted.golden else None,
                made_from=made_from,
                definitions=str(wanted.definitions) if wanted.definitions else None,
                requirements=str(wanted.requirements) if wanted.requirements else None,
                tokenizer=str(wanted.tokenizer) if wanted.tokenizer else None,
                runtime=wanted.runtime,
                python=wanted.python,
                unproven=stored_goldens(made.path)[0].unproven,
            )
            ending.summary = _about(record)
        if record.unproven:
            project.report(Warned(UNPROVEN, "fdeploy inspect shows why"))
        project.workspace.save(record)
    return record


def package(project: Project, bundle: Bundle) -> Artifact:
    """Pack the bundle, the serving code and wheels for the container into ``model.tar.gz``.

    Raises FileError, WheelMissing, HashMismatch, ExtraMissing or SettingsError; RuntimeUnproven or
    TargetUnavailable if a learner's own packages cannot be locked for the container.
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
                project.report(Warned(warning, "a CPU instance such as ml.c6i.large costs less"))
            if container and container.gpu:
                project.report(Step("packing the float32 graph for the GPU"))
            wheels = container and fetch(
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
                lock=_learner_lock(project, Path(bundle.path), container) if container else None,
                name=project.settings.sections.package.name or bundle.name,
                told=lambda done, total: project.report(Advanced("package", done, total)),
            )
            record = Artifact(
                str(project.workspace.artifact),
                written.sha256,
                written.bytes,
                made_from,
                freshness.compatibility(project),
                unproven=bool(bundle.unproven),
                model=model_summary(Path(bundle.path)),
            )
            ending.summary = f"version {record.version}, {record.bytes:,} bytes"
        project.workspace.save(record)
    return record


def _learner_lock(project: Project, bundle: Path, container: Container) -> str | None:
    """The lock file a container installs for an original learner; None for a converted one."""
    manifest, _ = read_manifest(bundle)
    if manifest.runtime is None:
        return None
    python = manifest.runtime.python
    requirements = read_requirements(bundle / REQUIREMENTS)
    environments = Environments(project.workspace.environments, project.report)
    interpreter = environments.interpreter(python, requirements, bundle / LOCK)
    project.report(Step(f"locking the packages that the {container.name} installs"))
    lock = read_lock(bundle / LOCK) or environments.lock_here(python, requirements)
    builds = [f"{pin.name} {pin.version}" for pin in lock.pins if "+" in pin.version]
    if builds:
        project.report(
            Warned(
                f"{', '.join(builds)}: the container's package index may not have this build",
                "point pip here at the same index (pip config list), then run fdeploy export",
            )
        )
    return lock_for_container(lock, container, interpreter)


def upload(project: Project, artifact: Artifact) -> StoredArtifact:
    """Upload the artifact to where the target reads it. Raises FileError."""
    with _stage(project, "upload") as ending:
        record = project.target.upload(artifact)
        project.workspace.save(record)
        ending.summary = f"version {artifact.version}, {artifact.bytes:,} bytes"
    return record


def ready_to_deploy(project: Project) -> StoredArtifact:
    """The stored artifact, packaged and uploaded again if the target or its image has changed.

    ``fdeploy deploy --instance ml.p2.xlarge`` may be the first command that names an instance, and
    the image for it may have another Python. Raises RecordMissing, RecordStale, and the errors of
    ``package`` and ``upload``.
    """
    if not freshness.needs_repackaging(project):
        return freshness.stored(project)
    wanted = freshness.compatibility(project) or "this machine"
    project.report(
        Step(f"the uploaded artifact does not fit {wanted}: packaging and uploading again")
    )
    return upload(project, package(project, freshness.bundle(project)))


def deploy(project: Project, stored: StoredArtifact) -> Endpoint:
    """Serve the artifact and verify the endpoint against the goldens.

    Raises DeployError or ParityError; the previous version then keeps serving.
    """
    with _stage(project, "deploy") as ending:
        _warn_of_reverted(project)
        verify = verifier(project.workspace.bundle, "the endpoint", project.report)
        record = project.target.deploy(stored, verify)
        record = replace(record, **_kept_flags(project.settings))
        project.workspace.save(record)
        ending.summary = f"{record.name} at {record.url}"
    return record


def _warn_of_reverted(project: Project) -> None:
    for change in project.settings.reverted:
        project.report(Warned(change, "add that flag to this command to keep it"))


def _kept_flags(settings: Settings) -> dict[str, str]:
    """The flags of this deploy, or of an earlier one, that the next deploy repeats."""
    return {
        key[1]: value
        for key, value, origin in settings.values()
        if key in REMEMBERED and value and origin.kind in ("flag", "remembered")
    }


def create_api(project: Project, endpoint: Endpoint) -> Api:
    """Create the key-protected API in front of the endpoint and verify it against the goldens.

    Raises DeployError, ParityError or InvocationError.
    """
    with _stage(project, "create-api") as ending:
        verify = verifier(project.workspace.bundle, "the API", project.report)
        record = project.target.create_api(endpoint, verify)
        project.workspace.save(record)
        files.write(project.workspace.collection, collection(record, project.settings.project_name))
        ending.summary = f"POST {record.url}"
    return record


def key(project: Project) -> str:
    """The key of the API. Raises RecordMissing, UsageError or FileError."""
    return project.target.key(project.workspace.need(Api))


def rotate_key(project: Project) -> str:
    """Replace the API key with a new one and return it.

    Raises RecordMissing, UsageError, FileError or DeployError.
    """
    return project.target.rotate_key(project.workspace.need(Api))


def openapi(project: Project) -> dict[str, Any]:
    """The OpenAPI document of the API, whether or not it exists yet. Raises FileError."""
    described_api = describe_api(
        project.settings, project.workspace.bundle, target=project.target.name
    )
    described = document(described_api)
    api = project.workspace.find(Api)
    if api is not None:
        described["servers"] = [{"url": api.url.removesuffix(described_api.route)}]
    return described


def up(project: Project) -> Api:
    """Run every stage in order; a stage whose input has not changed ends at once."""
    project.target.check_access()
    bundle = export(project)
    artifact = package(project, bundle)
    stored = upload(project, artifact)
    endpoint = deploy(project, stored)
    return create_api(project, endpoint)


def invoke(project: Project, request: Json, *, through_api: bool = False) -> Json:
    """Send one request to the endpoint, or through the API with its key.

    Raises RecordMissing before a deploy, UsageError for an empty text, or InvocationError.
    """
    if not str(request.get("text", "")).strip():
        raise UsageError(
            "the text is empty: there is nothing to classify",
            hint='fdeploy invoke "some text"',
        )
    if through_api:
        return project.target.call_api(project.workspace.need(Api), request)
    return project.target.invoke(project.workspace.need(Endpoint), request)


def invoke_many(project: Project, texts: Sequence[str], how: BatchOptions) -> Batch:
    """Send many texts and return their answers in order; one failing text does not stop the rest.

    With ``how.output`` each answer is written to that file as it arrives, and texts that it already
    answers are skipped. Raises RecordMissing before a deploy, FileError, or InvocationError if
    continuing is pointless.
    """
    endpoint = project.workspace.need(Endpoint)
    api = project.workspace.need(Api) if how.through_api else None
    bundle = project.workspace.find(Bundle)
    labels = len(bundle.labels) if bundle else None
    kept = AnswerFile(Path(how.output)) if how.output else None
    fits = Fits(endpoint.version, min(labels, how.top_k or labels) if labels else None)
    before = kept.reusable(texts, fits) if kept else []
    if kept:
        kept.write(before)
    have = {answer.row for answer in before}
    rows = [(row, text) for row, text in enumerate(texts, 1) if row not in have]
    work = AskOptions(
        ask=lambda request: (
            project.target.call_api(api, request)
            if api
            else project.target.invoke(endpoint, request)
        ),
        sleep=how.sleep,
        limit=_request_limit(project, through_api=how.through_api),
        at_once=how.at_once,
        top_k=how.top_k,
    )
    found = list(before)
    try:
        for chunk in answers(rows, work):
            if kept:
                kept.add(chunk)
            found += chunk
            project.report(Advanced("invoke", len(found), len(texts), "texts"))
    finally:
        if kept:
            kept.write(found)
    found.sort(key=lambda answer: answer.row)
    return Batch(found, len(before), how.output)


def teardown(
    project: Project, *, artifacts: bool = False, confirmed: bool = False, wait: bool = True
) -> Teardown:
    """Delete what the target runs and stores, and verify that nothing is left.

    The local bundle and ``model.tar.gz`` stay. ``targets.base`` explains ``artifacts``,
    ``confirmed`` and ``wait``. Raises LeftoverError, or UsageError for a protected stage.
    """
    with _stage(project, "teardown") as ending:
        proof = project.target.teardown(artifacts=artifacts, confirmed=confirmed, wait=wait)
        # The next teardown looks where the records point, so they stay until everything is gone.
        if not proof.begun:
            project.workspace.forget(Api, Endpoint)
        if not proof.kept and not proof.begun:
            project.workspace.forget(StoredArtifact)
        ending.summary = proof.summary
        if proof.begun:
            ending.summary = (
                f"{counted(len(proof.begun), 'stack')} being deleted; run fdeploy teardown again "
                "to verify"
            )
        if proof.left:
            raise LeftoverError(
                f"{counted(len(proof.left), 'resource')} could not be deleted: "
                f"{'; '.join(proof.left)}",
                hint="stop or delete them by hand, then run fdeploy teardown again",
            )
    return proof


@dataclass
class _Ending:
    summary: str = field(default="")


@contextmanager
def _stage(project: Project, name: str) -> Iterator[_Ending]:
    """Report the start of a stage and, if it succeeds, its end."""
    ending = _Ending()
    began = project.clock()
    project.report(StageStarted(name))
    yield ending
    project.report(StageFinished(name, ending.summary, project.clock() - began))


def _request_limit(project: Project, *, through_api: bool) -> int:
    """The largest request in bytes."""
    sections = project.settings.sections
    if through_api:
        return sections.api.max_body
    return MAX_SERVERLESS_BODY if sections.endpoint.kind == "serverless" else MAX_BODY_BYTES


def _proven(bundle: Path) -> int:
    """How many goldens hold the learner's own answers."""
    return sum(golden.source == "learner" for golden in stored_goldens(bundle)[1])


def _bundle_is_whole(bundle: Bundle) -> bool:
    return files.size_of(Path(bundle.path, "manifest.json")) is not None


def _is_whole(artifact: Artifact) -> bool:
    path = Path(artifact.path)
    return files.size_of(path) == artifact.bytes and files.sha256(path) == artifact.sha256


def _about(bundle: Bundle) -> str:
    return f"{bundle.name}: {bundle.task}, {len(bundle.labels)} labels"


def plan(project: Project) -> StagePlan:
    """What ``up`` would change. Exports and packages first, which changes only the workspace.

    Warns if callers would notice. Raises the errors of ``export`` and ``package``, and DeployError.
    """
    project.target.check_access()
    _warn_of_reverted(project)
    found = project.operations.plan(_would_deploy(project))
    change = found.model.breaks_callers if found.model else ""
    if change:
        project.report(Warned(f"{change}: callers may depend on the old answers", _TRY_FIRST))
    return found


_TRY_FIRST = "deploy it to a stage of its own first (--stage), or tell your callers"


def _would_deploy(project: Project) -> Artifact:
    """The artifact that ``up`` would make; no learner or factory is run for a plan."""
    made = project.workspace.find(Bundle)
    stated = project.settings.sections.model.learner is not None
    if made is None and not stated and project.workspace.find(Artifact):
        return freshness.artifact(project)  # another machine made it
    if made is None or stated or Path(made.source.path).exists():
        wanted = export_source.export_request(project)
        if made is None or wanted.kind != "factory":
            made = export(project)
    return package(project, freshness.bundle(project))


def status(project: Project) -> Status:
    """What is deployed, how it is doing and what it costs. Raises AwsError."""
    return project.operations.status()


def logs(
    project: Project, *, api: bool = False, since: timedelta, follow: bool = False
) -> Iterator[LogLine]:
    """The log lines of the last ``since``; ``follow`` never ends. Raises AwsError."""
    return project.operations.logs(api=api, since=since, follow=follow)


def versions(project: Project) -> tuple[Version, ...]:
    """The deployed versions, newest first. Raises AwsError."""
    return project.operations.versions()


def rollback(project: Project, *, to: str | None = None) -> Endpoint:
    """Deploy the version before the live one, or the one whose digits start with ``to``.

    Raises UsageError if there is none, and the errors of ``deploy``.
    """
    began = project.clock()
    project.report(StageStarted("rollback"))
    record = replace(project.operations.rollback(to), **_kept_flags(project.settings))
    project.workspace.save(record)
    summary = f"version {record.version} is live again"
    project.report(StageFinished("rollback", summary, project.clock() - began))
    return record


def doctor(project: Project) -> Checkup:
    """Check that a deploy would work, packaged or not. Raises SettingsError."""
    return project.operations.doctor(project.workspace.find(Artifact))


def policies(project: Project) -> Policies:
    """The IAM permissions that a deploy needs. Raises UsageError for the local target."""
    return project.operations.policies()


def template(project: Project) -> Templates:
    """The stacks of the packaged artifact. Raises StageError, or UsageError if target is local."""
    return project.operations.template(freshness.artifact(project))

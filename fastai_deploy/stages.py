"""The flow: one function per command that builds, deploys or deletes a stage.

    learner.pkl --export--> Bundle --package--> Artifact --upload--> StoredArtifact
                --deploy--> Endpoint --create_api--> Api            (up: all five in order)

    teardown removes what deploy, create_api and upload made. ``asking`` calls what is deployed.

Each stage takes the previous stage's record and returns its own, which it saves in the workspace
when it ends. If its input has not changed, it returns the saved record.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastai_deploy import export_source, files, freshness
from fastai_deploy.api_docs.client_code import collection
from fastai_deploy.api_docs.openapi import describe_api, document
from fastai_deploy.bundle import read_manifest
from fastai_deploy.bundle.folder import CARD
from fastai_deploy.bundle.manifest import LOCK, REQUIREMENTS
from fastai_deploy.environments.requirements import lock_for_container, read_lock, read_requirements
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import FileError, LeftoverError, NoProject, SettingsError, UsageError
from fastai_deploy.evaluation.card import write_card
from fastai_deploy.packaging.artifact import serving_versions, write_artifact
from fastai_deploy.packaging.container_files import BACKEND_URL
from fastai_deploy.packaging.served_model import ServedModel, check_for_function, served_model
from fastai_deploy.packaging.wheels import Container, Wheel, default_cache, fetch
from fastai_deploy.parity.gate import model_summary, stored_goldens, verifier
from fastai_deploy.progress import Advanced, Step, Warned
from fastai_deploy.project import Project, reported
from fastai_deploy.records import (
    UNPROVEN,
    Api,
    Artifact,
    Bundle,
    Endpoint,
    StoredArtifact,
    Teardown,
    counted,
)
from fastai_deploy.settings import Settings, identity
from fastai_deploy.settings.loading import PROJECT_FILE, REMEMBERED


def inspect(project: Project) -> dict[str, Any]:
    """Summarize the learner without running it. Raises LearnerError or FileError."""
    return export_source.describe(export_source.export_request(project))


def export(project: Project) -> Bundle:
    """Convert the learner into a bundle without running it.

    :mod:`fastai_deploy.export_source` describes the other sources. Raises LearnerError,
    GoldenError, ParityError, UsageError, FileError or ExtraMissing, and SettingsError for a bundle
    that is done and that the kind of endpoint cannot serve.
    """
    with reported(project, "export") as ending:
        wanted = export_source.export_request(project)
        if wanted.runtime == "learner":
            _check_kind(project, ServedModel(0, None, wanted.python or ""))
        source = export_source.source(wanted)
        made_from = export_source.digest(wanted, source)
        before = project.workspace.find(Bundle)
        unchanged = before is not None and before.made_from == made_from
        if before and unchanged and _bundle_is_whole(before) and wanted.kind != "factory":
            record = replace(before, source=source)
            ending.summary = f"{_about(record)}, unchanged"
            if files.size_of(Path(record.path, CARD)) is None:  # of an earlier version of fdeploy
                with suppress(FileError):  # a damaged bundle is for the next stage to refuse
                    write_card(Path(record.path))
        else:
            made = export_source.make(project, wanted)
            write_card(made.path)
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
                if wanted.kind in ("file", "folder")
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
    _check_kind(project, served_model(project.workspace.bundle))
    return record


def _check_kind(project: Project, served: ServedModel | None) -> None:
    """Raise SettingsError for a model that the kind of endpoint of the settings cannot serve."""
    settings = project.settings
    if settings.target == "aws" and settings.sections.endpoint.kind == "lambda":
        check_for_function(served)


def package(project: Project, bundle: Bundle, *, pull: bool = False) -> Artifact:
    """Pack the bundle, the serving code and wheels for the container into ``model.tar.gz``.

    ``pull`` takes the newest build of the base of fdeploy's own image. Raises FileError,
    WheelMissing, HashMismatch, ExtraMissing or SettingsError; RuntimeUnproven or TargetUnavailable
    if a learner's own packages cannot be locked for the container.
    """
    with reported(project, "package") as ending:
        before = project.workspace.find(Artifact)
        container = project.target.container(before, decides=True, pull=pull)
        made_from = freshness.package_digest(project, bundle, container)
        image_tag = container.image_tag if container else ""
        image_base = container.image_base if container else ""
        if pull and not image_tag:
            project.report(
                Warned(
                    "--pull changes nothing: the model is not served from fdeploy's own image",
                    hint="leave it out",
                )
            )
        if before and before.made_from == made_from and _is_whole(before):
            record = replace(before, image_tag=image_tag, image_base=image_base)
            ending.summary = f"version {record.version}, unchanged"
        else:
            for warning in container.warnings if container else ():
                project.report(Warned(warning, "a CPU instance such as ml.c6i.large costs less"))
            if container and container.gpu:
                project.report(Step("packing the float32 graph for the GPU"))
            wheels: Sequence[Wheel] = ()
            if container and not container.complete:
                wheels = fetch(
                    container,
                    serving_versions(Path(bundle.path), container),
                    cache=default_cache(),
                    notify=lambda message: project.report(Step(message)),
                )
            written = write_artifact(
                Path(bundle.path),
                project.workspace.artifact,
                container=container,
                wheels=wheels,
                lock=_learner_lock(project, Path(bundle.path), container) if container else None,
                name=project.settings.sections.package.name or bundle.name,
                notify=lambda done, total: project.report(Advanced("package", done, total)),
            )
            record = Artifact(
                str(project.workspace.artifact),
                written.sha256,
                written.bytes,
                made_from,
                freshness.compatibility(container),
                unproven=bool(bundle.unproven),
                model=model_summary(Path(bundle.path)),
                backend_url="" if container and container.complete else BACKEND_URL,
                server="fdeploy" if container and container.complete else "",
                image_tag=image_tag,
                image_base=image_base,
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
    with reported(project, "upload") as ending:
        record = project.target.upload(artifact)
        project.workspace.save(record)
        ending.summary = f"version {artifact.version}, {artifact.bytes:,} bytes"
    return record


def claimed(project: Project, *, creates: bool = False) -> Project:
    """The project, under the id that its stage on AWS carries; ``creates``: it may be a new one.

    In a terminal, a new stage of a project without an id gets one, which is written into the
    project file. Raises NotOurs for another project's stage, UsageError if a question is answered
    with no, and FileError.
    """
    claim = project.target.claim(creates=creates)
    settings = project.settings
    if creates and settings.reverted:
        warn_of_reverted(project)
        project.consent.agree("Change this back?", refused="nothing was changed")
    values = {"id": claim.id or claim.suggested}
    if ("project", "name") not in settings.origins:
        values = {"name": settings.project_name, **values}
    lines = ", ".join(identity.lines_of(values))
    if claim.suggested:
        project.report(
            Warned(
                f"the stage {settings.stage} gets no id, without which another project called "
                f"{settings.project_name} is taken for this one",
                hint=f"add to [project] in {PROJECT_FILE}, commit it, and run fdeploy deploy "
                f"--adopt once: {lines}",
            )
        )
    if claim.id == (settings.sections.project.id or ""):
        return project
    if project.consent.ask is None:
        project.report(
            Warned(
                f"the stage {settings.stage} has an id that this folder lacks",
                hint=f"add to [project] in {PROJECT_FILE}, and commit it: {lines}",
            )
        )
        return project.named(settings.project_name, claim.id)
    file = settings.file or settings.root / PROJECT_FILE
    written = identity.add_to_project(file, values)
    project.report(Step(f"wrote {lines} to {file}: commit it with the project"))
    return project.named(written.get("name", settings.project_name), written["id"])


def ready_to_deploy(project: Project, *, pull: bool = False) -> StoredArtifact:
    """The stored artifact, packaged and uploaded again if the target or its image has changed.

    ``fdeploy deploy --instance ml.p2.xlarge`` may be the first command that names an instance, and
    the image for it may have another Python. ``pull`` always does it. Raises RecordMissing,
    RecordStale, and the errors of ``package`` and ``upload``.
    """
    if pull:
        return upload(project, package(project, freshness.bundle(project), pull=True))
    if not freshness.needs_repackaging(project):
        return freshness.stored(project)
    container = project.target.container(project.workspace.find(Artifact))
    wanted = freshness.compatibility(container) or "this machine"
    project.report(
        Step(f"the uploaded artifact does not fit {wanted}: packaging and uploading again")
    )
    return upload(project, package(project, freshness.bundle(project)))


def deploy(project: Project, stored: StoredArtifact) -> Endpoint:
    """Serve the artifact and verify the endpoint against the goldens.

    Raises DeployError or ParityError; the previous version then keeps serving.
    """
    with reported(project, "deploy") as ending:
        in_function = project.settings.sections.endpoint.kind == "lambda"
        on = "the function" if in_function and project.target.name == "aws" else "the endpoint"
        bundle = project.workspace.bundle
        verify = verifier(bundle, on, project.report, version=stored.version)
        record = project.target.deploy(stored, verify)
        record = replace(record, **kept_flags(project.settings))
        project.workspace.save(record)
        ending.summary = f"{record.name} at {record.url}"
    return record


def warn_of_reverted(project: Project) -> None:
    """Warn of what the settings change back that a flag of the last deploy had set."""
    for change in project.settings.reverted:
        project.report(Warned(change, "add that flag to this command to keep it"))


def kept_flags(settings: Settings) -> dict[str, str]:
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
    with reported(project, "create-api") as ending:
        bundle = project.workspace.bundle
        verify = verifier(bundle, "the API", project.report, version=endpoint.version)
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
    return claimed(project).target.rotate_key(project.workspace.need(Api))


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


def up(project: Project, *, pull: bool = False) -> Api:
    """Run every stage in order; a stage whose input has not changed ends at once.

    ``pull`` is that of ``package``. Raises SettingsError for an asynchronous endpoint.
    """
    if project.settings.target == "aws" and project.settings.sections.endpoint.kind == "async":
        raise SettingsError(
            "up ends with an API, and none can wait for an asynchronous endpoint, which answers "
            "through S3",
            hint="run fdeploy export, fdeploy package, fdeploy upload and fdeploy deploy instead, "
            "or set another kind in [endpoint]",
        )
    project = claimed(project, creates=True)
    bundle = export(project)
    artifact = package(project, bundle, pull=pull)
    stored = upload(project, artifact)
    endpoint = deploy(project, stored)
    return create_api(project, endpoint)


def teardown(
    project: Project, *, artifacts: bool = False, confirmed: bool = False, wait: bool = True
) -> Teardown:
    """Delete what the target runs and stores, and verify that nothing is left.

    The local bundle and ``model.tar.gz`` stay. ``targets.base`` explains ``artifacts``,
    ``confirmed`` and ``wait``. Raises LeftoverError, UsageError for a protected stage, or NoProject
    if nothing is found and the folder is no project.
    """
    with reported(project, "teardown") as ending:
        project.target.claim(creates=False)
        proof = project.target.teardown(artifacts=artifacts, confirmed=confirmed, wait=wait)
        if not proof.found:
            need_project(project, proof.where)
        if not proof.begun and not proof.left:
            _forget(project, proof)
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
    return replace(proof, workspace=project.workspace.made())


def need_project(project: Project, searched: str) -> None:
    """Raise NoProject unless the folder is a project."""
    if project.exists:
        return
    settings = project.settings
    raise NoProject(
        f"no project here: neither {settings.root} nor a folder above it has an {PROJECT_FILE} or "
        f"records of fdeploy; nothing was found {searched} for project {settings.project_name}, "
        f"stage {settings.stage}",
        hint=f"change to the project's folder, or add --config PATH/{PROJECT_FILE}",
    )


def _forget(project: Project, proof: Teardown) -> None:
    """Remove the records of what a teardown has deleted.

    The next teardown looks where the records point, so they stay until everything is gone there.
    """
    workspace, settings = project.workspace, project.settings
    if settings.last_name not in (None, settings.project_name):
        return
    endpoint, stored = workspace.find(Endpoint), workspace.find(StoredArtifact)
    if _is_there(endpoint, proof):
        workspace.forget(Api, Endpoint)
    if _is_there(stored, proof) and not proof.keeps_artifacts:
        workspace.forget(StoredArtifact)
    last = endpoint or stored
    if last is not None and not _is_there(last, proof):
        where = f"region {last.region}" if last.target == "aws" else "this machine"
        flags = f"--target {last.target}" + (f" --region {last.region}" if last.region else "")
        project.report(
            Warned(
                f"the last deploy of this stage, to {where}, was not looked at and is remembered",
                hint=f"run fdeploy teardown {flags} to delete it",
            )
        )


def _is_there(record: Endpoint | StoredArtifact | None, proof: Teardown) -> bool:
    """Whether a record is of the place of a teardown; those of earlier versions may not say."""
    return record is None or (
        record.target == proof.target
        and record.region in ("", proof.region)
        and record.account in ("", proof.account)
    )


def forget(project: Project) -> Teardown:
    """Remove the records of what the stage has on AWS, without access to its account.

    Nothing is deleted there. Raises UsageError if there are no such records.
    """
    settings, workspace = project.settings, project.workspace
    if settings.last_target != "aws":
        raise UsageError(
            f"stage {settings.stage} has no records of a deploy to AWS", hint="run fdeploy status"
        )
    account, region = settings.last_account or "", settings.last_region or ""
    workspace.forget(Api, Endpoint, StoredArtifact)
    files.remove_tree(workspace.aws)
    where = ", ".join(
        f"{what} {value}" for what, value in (("account", account), ("region", region)) if value
    )
    project.report(
        Warned(
            f"what this stage has on AWS{f' ({where})' if where else ''} keeps running and costing",
            hint=f"with credentials of that account, run fdeploy teardown --target aws"
            f"{f' --region {region}' if region else ''} to delete it",
        )
    )
    return Teardown("aws", (), (), (), region=region, account=account, forgotten=True)


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

"""Reports on a stage (plan, status, logs, versions, doctor, templates), and rollback.

Only ``rollback`` changes what is deployed. The flow itself is in :mod:`fastai_deploy.stages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from fastai_deploy import export_source, freshness, stages
from fastai_deploy.errors import UsageError
from fastai_deploy.progress import StageFinished, StageStarted, Warned
from fastai_deploy.project import Project
from fastai_deploy.records import (
    Api,
    Artifact,
    Bundle,
    Checkup,
    Endpoint,
    LogLine,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)

_TRY_FIRST = "deploy it to a stage of its own first (--stage), or tell your callers"


def plan(project: Project) -> StagePlan:
    """What ``up`` would change. Exports and packages first, which changes only the workspace.

    Warns if callers would notice. Raises the errors of ``export`` and ``package``, and DeployError.
    """
    project.target.check_access()
    stages.warn_of_reverted(project)
    found = project.operations.plan(_would_deploy(project))
    change = found.model.breaks_callers if found.model else ""
    if change:
        project.report(Warned(f"{change}: callers may depend on the old answers", _TRY_FIRST))
    return found


def _would_deploy(project: Project) -> Artifact:
    """The artifact that ``up`` would make; a factory that has run is not run again."""
    made = project.workspace.find(Bundle)
    stated = project.settings.sections.model.learner is not None
    if made is None and not stated and project.workspace.find(Artifact):
        return freshness.artifact(project)  # another machine made it
    if made is None or stated or Path(made.source.path).exists():
        wanted = export_source.export_request(project)
        if made is None or wanted.kind != "factory":
            made = stages.export(project)
    return stages.package(project, freshness.bundle(project))


def page(project: Project) -> tuple[str, str]:
    """The address of the API's page, and the key to try it with; empty for an API without keys.

    Raises RecordMissing, UsageError if the API has no page, InvocationError if another program may
    be at its address, or AwsError.
    """
    api = project.workspace.need(Api)
    if not api.page:
        raise UsageError(
            "this API has no page; on AWS it is off by default, because anyone may open it",
            hint="fdeploy config set api.page true, then fdeploy create-api",
        )
    address = urlsplit(project.target.address(api))  # the port of this machine's API may change
    found = address._replace(path=urlsplit(api.page).path).geturl()
    return found, project.target.key(api) if api.auth == "key" else ""


def console(project: Project) -> str:
    """The URL of the stage in the AWS console. Raises UsageError for this machine."""
    return project.operations.console()


def status(project: Project) -> Status:
    """What is deployed, how it is doing and what it costs. Raises AwsError or NoProject."""
    found = project.operations.status()
    if not found.parts and not found.endpoint:
        stages.need_project(project, found.where)
    return found


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
    project = stages.claimed(project)
    record = replace(project.operations.rollback(to), **stages.kept_flags(project.settings))
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

"""What is done with a stage beside the flow, one function a command.

    plan       what the next deploy would change, and what it costs then
    status     what there is, how it is doing, what it has cost
    logs       what servers and functions wrote
    versions   what was deployed, and what is live
    rollback   the version before, again
    doctor     whether a deploy would work; policies are the permissions for it
    template   the stacks, to be taken away

Only ``rollback`` changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from fastai_deploy import freshness
from fastai_deploy.progress import StageFinished, StageStarted
from fastai_deploy.project import Project
from fastai_deploy.records import Artifact, Endpoint
from fastai_deploy.reports import (
    Checkup,
    LogLine,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)


def plan(project: Project) -> StagePlan:
    """What deploying the packaged artifact would change. Raises StageError and DeployError."""
    return project.care.plan(freshness.artifact(project))


def status(project: Project) -> Status:
    """How the stage is doing. Raises AwsError."""
    return project.care.status()


def logs(
    project: Project, *, api: bool = False, since: timedelta, follow: bool = False
) -> Iterator[LogLine]:
    """The lines since then, as they come; ``follow`` goes on for ever. Raises AwsError."""
    return project.care.logs(api=api, since=since, follow=follow)


def versions(project: Project) -> tuple[Version, ...]:
    """What was deployed, newest first. Raises AwsError."""
    return project.care.versions()


def rollback(project: Project, *, to: str | None = None) -> Endpoint:
    """Deploy the version before the live one, or the one that begins with ``to``.

    Raises UsageError where there is none, and the errors of ``deploy``.
    """
    began = project.clock()
    project.report(StageStarted("rollback"))
    record = project.care.rollback(to)
    project.workspace.save(record)
    summary = f"version {record.version} serves again"
    project.report(StageFinished("rollback", summary, project.clock() - began))
    return record


def doctor(project: Project) -> Checkup:
    """Whether a deploy would work, packaged or not. Raises SettingsError."""
    return project.care.doctor(project.workspace.find(Artifact))


def policies(project: Project) -> Policies:
    """The permissions that a deploy needs. Raises UsageError on this machine."""
    return project.care.policies()


def template(project: Project) -> Templates:
    """The stacks of the packaged artifact. Raises UsageError on this machine, or StageError."""
    return project.care.template(freshness.artifact(project))

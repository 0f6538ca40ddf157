"""A project at one stage: its settings, workspace, target and progress reporter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from fastai_deploy.errors import FileError
from fastai_deploy.progress import Reporter
from fastai_deploy.records import Endpoint, StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.targets.base import Operations, Target
from fastai_deploy.workspace import Workspace


@dataclass(frozen=True)
class Project:
    """What every stage function takes; ``clock`` returns seconds.

    ``typed`` is the command line after ``fdeploy``, empty when used as a library. ``exists``: the
    folder has a project file or records, or the settings name the project.
    """

    settings: Settings
    workspace: Workspace
    target: Target
    operations: Operations
    report: Reporter
    clock: Callable[[], float] = time.monotonic
    typed: tuple[str, ...] = ()
    exists: bool = True


def open_project(settings: Settings, report: Reporter) -> Project:
    """Open the project of these settings, with the real clock and the target they select."""
    workspace = Workspace(settings.root, settings.stage)
    last = _last(workspace, needed=settings.target_is_open)
    if last is not None:
        settings = replace(
            settings,
            last_target="aws" if last.target == "aws" else "local",
            last_region=last.region or None,
            last_account=_account(last, workspace.find(StoredArtifact)) or None,
        )
    target, operations = _target(settings, workspace, report)
    return Project(settings, workspace, target, operations, report)


def _last(workspace: Workspace, *, needed: bool) -> Endpoint | StoredArtifact | None:
    """The last deploy or upload of the stage. Raises FileError if ``needed`` but unreadable."""
    if not needed:
        return workspace.find(Endpoint) or workspace.find(StoredArtifact)
    try:
        return workspace.read(Endpoint) or workspace.read(StoredArtifact)
    except FileError as error:
        raise type(error)(
            f"{error.message}; without it, the target of this stage is unknown",
            hint=f"add --target local or --target aws; {error.hint}",
        ) from None


def _account(last: Endpoint | StoredArtifact, stored: StoredArtifact | None) -> str:
    """The AWS account of the last deploy; empty if no record says it."""
    if last.target != "aws":
        return ""
    return last.account or (stored.known_account if stored else "")


def _target(
    settings: Settings, workspace: Workspace, report: Reporter
) -> tuple[Target, Operations]:
    """The target the settings select; only that target's libraries are imported."""
    if settings.target == "aws":
        from fastai_deploy.targets.aws.context import open_context  # noqa: PLC0415
        from fastai_deploy.targets.aws.operations import AwsOperations  # noqa: PLC0415
        from fastai_deploy.targets.aws.target import AwsTarget  # noqa: PLC0415

        aws = AwsTarget(open_context(settings, workspace.aws, workspace.bundle, report))
        return aws, AwsOperations(aws)
    from fastai_deploy.targets.local.operations import LocalOperations  # noqa: PLC0415
    from fastai_deploy.targets.local.target import LocalTarget  # noqa: PLC0415

    local = LocalTarget(
        settings,
        workspace.local,
        report,
        bundle=workspace.bundle,
        clock=time.monotonic,
        sleep=time.sleep,
    )
    return local, LocalOperations(
        local, settings, now=lambda: datetime.now(timezone.utc), sleep=time.sleep
    )

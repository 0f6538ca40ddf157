"""A project at one stage: its settings, workspace, target and progress reporter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from fastai_deploy.errors import FileError, RecordMissing
from fastai_deploy.progress import Reporter
from fastai_deploy.records import Endpoint, StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.settings.loading import remember
from fastai_deploy.targets.base import Operations, Target
from fastai_deploy.workspace import Record, Workspace


@dataclass(frozen=True)
class Project:
    """What every stage function takes; ``clock`` returns seconds.

    ``typed`` is the command line after ``fdeploy``, empty when used as a library.
    """

    settings: Settings
    workspace: Workspace
    target: Target
    operations: Operations
    report: Reporter
    clock: Callable[[], float] = time.monotonic
    typed: tuple[str, ...] = ()


def open_project(
    settings: Settings, report: Reporter, *, needs: type[Record] | None = None
) -> Project:
    """Open the project of these settings, with the real clock and the target they select.

    ``needs`` is the record that the command starts from. Raises RecordMissing if there is none,
    before anything that is wrong with the target.
    """
    workspace = Workspace(settings.root, settings.stage, learner=_learner(settings))
    if needs is not None:
        _need(workspace, needs, settings)
    last = _last(workspace, needed=settings.target_is_open)
    if last is not None:
        settings = replace(
            settings,
            last_target="aws" if last.target == "aws" else "local",
            last_region=last.region or None,
        )
    if isinstance(last, Endpoint) and last.target == settings.target == "aws":
        used = {("endpoint", "instance"): last.instance, ("project", "ttl"): last.ttl}
        settings = remember(settings, {key: value for key, value in used.items() if value})
    target, operations = _target(settings, workspace, report)
    return Project(settings, workspace, target, operations, report)


def _need(workspace: Workspace, kind: type[Record], settings: Settings) -> None:
    """Raise RecordMissing if a record is missing; its hint includes a region if AWS lacks one."""
    try:
        workspace.need(kind)
    except RecordMissing as error:
        names_region = settings.target != "aws" or settings.sections.project.region
        if names_region or "fdeploy up" not in error.hint:
            raise
        from fastai_deploy.aws.session import EXAMPLE_REGION, configured_region  # noqa: PLC0415

        if configured_region(settings.sections.project.profile):
            raise
        raise RecordMissing(
            error.message, hint=f"{error.hint} --region {EXAMPLE_REGION} (or another region)"
        ) from None


def _learner(settings: Settings) -> str:
    """The learner to name in hints, relative to the working folder; empty if it is a setting."""
    if settings.sections.model.learner:
        return ""
    found = sorted(settings.root.glob("*.pkl"))
    return os.path.relpath(found[0] if found else settings.root / "learner.pkl")


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


def _target(
    settings: Settings, workspace: Workspace, report: Reporter
) -> tuple[Target, Operations]:
    """The target the settings select; only that target's libraries are imported."""
    if settings.target == "aws":
        from fastai_deploy.targets.aws.context import open_context  # noqa: PLC0415
        from fastai_deploy.targets.aws.operations import AwsOperations  # noqa: PLC0415
        from fastai_deploy.targets.aws.target import AwsTarget  # noqa: PLC0415

        home = workspace.folder / "aws"
        aws = AwsTarget(open_context(settings, home, workspace.bundle, report))
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

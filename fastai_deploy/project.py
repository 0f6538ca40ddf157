"""A project at one stage: its settings, workspace, target and progress reporter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache

from fastai_deploy.errors import FileError, RecordMissing
from fastai_deploy.progress import UNASKED, Consent, Reporter, StageFinished, StageStarted, Warned
from fastai_deploy.records import Endpoint, StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.settings.loading import remember
from fastai_deploy.targets.base import Operations, Target
from fastai_deploy.workspace import Record, Workspace


@dataclass(frozen=True)
class Project:
    """What every stage function takes; ``clock`` returns seconds.

    ``opened`` opens the target once, when it is first needed: settings can be shown, and a learner
    exported, where AWS is out of reach.

    ``typed`` is the command line after ``fdeploy``, empty when used as a library. ``exists``: the
    folder has a project file or records, or the settings name the project.
    """

    settings: Settings
    workspace: Workspace
    opened: Callable[[], tuple[Target, Operations]]
    report: Reporter
    clock: Callable[[], float] = time.monotonic
    typed: tuple[str, ...] = ()
    exists: bool = True
    consent: Consent = UNASKED

    @property
    def target(self) -> Target:
        """Where the stage is deployed. Raises AwsError where that cannot be opened."""
        return self.opened()[0]

    @property
    def operations(self) -> Operations:
        """Reports on the stage, and rollback. Raises AwsError as ``target`` does."""
        return self.opened()[1]

    def named(self, name: str, id_: str) -> Project:
        """The same project under another name and id."""
        settings = self.settings.with_identity(name, id_ or None)
        opened = _opener(settings, self.workspace, self.report, self.consent)
        return replace(self, settings=settings, opened=opened)


def open_project(
    settings: Settings,
    report: Reporter,
    consent: Consent = UNASKED,
    *,
    needs: type[Record] | None = None,
) -> Project:
    """Open the project of these settings, with the real clock.

    ``needs`` is the record that the command starts from. Raises RecordMissing if there is none,
    before anything that is wrong with the target.
    """
    workspace = Workspace(settings.root, settings.stage, learner=_learner(settings))
    if needs is not None:
        _need(workspace, needs, settings)
    last = _last(workspace, needed=settings.target_is_open)
    if last is not None:
        stored = workspace.find(StoredArtifact)
        settings = replace(
            settings,
            last_target="aws" if last.target == "aws" else "local",
            last_region=last.region or None,
            last_account=_account(last, stored) or None,
            last_name=(stored.project if stored and last.target == "aws" else "") or None,
        )
    if isinstance(last, Endpoint) and last.target == settings.target == "aws":
        used = {
            ("endpoint", "kind"): last.kind,
            ("endpoint", "instance"): last.instance,
            ("project", "ttl"): last.ttl,
        }
        settings = remember(settings, {key: value for key, value in used.items() if value})
    for warning in _elsewhere(settings):
        report(warning)
    opened = _opener(settings, workspace, report, consent)
    return Project(settings, workspace, opened, report, consent=consent)


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


def _elsewhere(settings: Settings) -> Iterator[Warned]:
    """Warnings of a last deploy that this command is not about."""
    project = settings.sections.project
    if settings.target != "aws":
        return
    if project.region and settings.last_region and project.region != settings.last_region:
        yield Warned(
            f"this command uses {project.region}, but the last deploy went to "
            f"{settings.last_region}",
            hint=f"run fdeploy teardown --region {settings.last_region} to delete that one",
        )
    if settings.last_name and settings.project_name != settings.last_name:
        yield Warned(
            f"the project is now called {settings.project_name}, but the last deploy of this stage "
            f"was of {settings.last_name}, which keeps running",
            hint=f"run FDEPLOY_PROJECT_NAME={settings.last_name} fdeploy teardown to delete it",
        )


def _account(last: Endpoint | StoredArtifact, stored: StoredArtifact | None) -> str:
    """The AWS account of the last deploy; empty if no record says it."""
    if last.target != "aws":
        return ""
    return last.account or (stored.known_account if stored else "")


def _opener(
    settings: Settings, workspace: Workspace, report: Reporter, consent: Consent
) -> Callable[[], tuple[Target, Operations]]:
    """A function that opens the target at its first call and returns the same from then on."""
    return cache(lambda: _target(settings, workspace, report, consent))


def _target(
    settings: Settings, workspace: Workspace, report: Reporter, consent: Consent
) -> tuple[Target, Operations]:
    """The target the settings select; only that target's libraries are imported."""
    if settings.target == "aws":
        from fastai_deploy.targets.aws.context import open_context  # noqa: PLC0415
        from fastai_deploy.targets.aws.operations import AwsOperations  # noqa: PLC0415
        from fastai_deploy.targets.aws.target import AwsTarget  # noqa: PLC0415

        context = open_context(
            settings,
            workspace.aws,
            workspace.bundle,
            report,
            consent,
            base_record=workspace.base_image,
        )
        aws = AwsTarget(context)
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


@dataclass
class Ending:
    """What a stage has to say when it ends."""

    summary: str = field(default="")


@contextmanager
def reported(project: Project, name: str) -> Iterator[Ending]:
    """Report the start of a stage and, if it succeeds, its end."""
    ending = Ending()
    began = project.clock()
    project.report(StageStarted(name))
    yield ending
    project.report(StageFinished(name, ending.summary, project.clock() - began))

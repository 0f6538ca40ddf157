"""A project at one stage: its settings, its workspace, its target and whom it tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fastai_deploy.progress import Reporter
from fastai_deploy.records import Endpoint, StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.targets.base import Target
from fastai_deploy.workspace import Workspace


@dataclass(frozen=True)
class Project:
    """What a stage works with; ``clock`` gives seconds."""

    settings: Settings
    workspace: Workspace
    target: Target
    report: Reporter
    clock: Callable[[], float] = time.monotonic


def open_project(settings: Settings, report: Reporter) -> Project:
    """The project of these settings, with the real clock and the target that they name."""
    workspace = Workspace(settings.root, settings.stage)
    last = workspace.find(Endpoint) or workspace.find(StoredArtifact)
    if last is not None:
        settings = replace(settings, last_target="aws" if last.target == "aws" else "local")
    return Project(settings, workspace, _target(settings, workspace, report), report)


def _target(settings: Settings, workspace: Workspace, report: Reporter) -> Target:
    """The target of the settings; only its own libraries are imported."""
    if settings.target == "aws":
        from fastai_deploy.targets.aws.context import open_context  # noqa: PLC0415
        from fastai_deploy.targets.aws.target import AwsTarget  # noqa: PLC0415

        return AwsTarget(open_context(settings, workspace.folder / "aws", report))
    from fastai_deploy.targets.local.target import LocalTarget  # noqa: PLC0415

    return LocalTarget(
        settings,
        workspace.local,
        report,
        bundle=workspace.bundle,
        clock=time.monotonic,
        sleep=time.sleep,
    )

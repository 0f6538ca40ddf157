"""A project at one stage: its settings, its workspace, its target and whom it tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fastai_deploy.errors import TargetUnavailable
from fastai_deploy.progress import Reporter
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
    return Project(settings, workspace, _target(settings, workspace, report), report)


def _target(settings: Settings, workspace: Workspace, report: Reporter) -> Target:
    if settings.target == "aws":
        raise TargetUnavailable(
            f"this version cannot deploy to AWS yet ({settings.target_reason})",
            hint="run it on this machine with --target local",
        )
    from fastai_deploy.targets.local.target import LocalTarget  # noqa: PLC0415 - one target is used

    return LocalTarget(settings, workspace.local, report, clock=time.monotonic, sleep=time.sleep)

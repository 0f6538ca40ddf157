"""One run of a command: settings read, project opened, stage locked, events told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastai_deploy.cli.output import reporter
from fastai_deploy.project import Project, open_project
from fastai_deploy.settings import load_settings


@dataclass(frozen=True)
class Options:
    """The common options, and the flags that set settings: setting to (flag, value).

    ``typed`` is the command line after ``fdeploy``, for errors that say how to run it again.
    """

    config: Path | None
    stage: str | None
    as_json: bool
    typed: tuple[str, ...]
    flags: Mapping[tuple[str, str], tuple[str, Any]]


@contextmanager
def session(options: Options, command: str, *, locked: bool) -> Iterator[Project]:
    """The project that a command works on; ``locked`` keeps other commands out of the stage."""
    settings = load_settings(
        folder=Path.cwd(),
        config=options.config,
        stage=options.stage,
        environ=os.environ,
        flags=options.flags,
    )
    with reporter(sys.stderr, as_json=options.as_json) as report:
        project = replace(open_project(settings, report), typed=options.typed)
        with project.workspace.locked(command) if locked else nullcontext():
            yield project

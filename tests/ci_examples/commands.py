"""The fdeploy commands in the scripts of a pipeline."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

import typer

from fastai_deploy.cli import commands  # noqa: F401 - registers its commands
from fastai_deploy.cli.commands import app

_END = re.compile(r"\s*(?:\|\|?|>>?)")


def commands_in(lines: Iterable[str]) -> list[list[str]]:
    """The words after ``fdeploy`` in every line that begins with it."""
    found = (line.strip() for line in lines)
    return [shlex.split(_END.split(line)[0])[1:] for line in found if line.startswith("fdeploy ")]


def check_commands(found: Iterable[list[str]]) -> None:
    """Parse each command, as fdeploy would. Raises click's UsageError."""
    known: Any = typer.main.get_command(app)
    for words in found:
        with known.commands[words[0]].make_context(words[0], words[1:]):
            pass

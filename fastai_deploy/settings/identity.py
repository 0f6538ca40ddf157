"""Writes a project's name and id into its file, so that every checkout names the same stages.

The id tells projects of the same name apart.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli

from fastai_deploy import files
from fastai_deploy.settings import editing

_ID_BYTES = 6


def new_id() -> str:
    """A random id of 12 hexadecimal digits."""
    return secrets.token_hex(_ID_BYTES)


def lines_of(values: Mapping[str, str]) -> list[str]:
    """The lines of ``[project]`` that give the values."""
    return [f'{key} = "{value}"' for key, value in values.items()]


def add_to_project(path: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Add keys to ``[project]`` of a project file; create the file if there is none.

    A key that the file has by now, written by a command at the same time, keeps its value. Returns
    the values of the keys in the file. Raises FileError, or SettingsError for a file that cannot be
    changed.
    """
    path = path.resolve()
    with editing.locked(path):
        text, mode = editing.read_text(path)
        there: Mapping[str, Any] = tomli.loads(text).get("project", {})
        missing = {key: value for key, value in values.items() if key not in there}
        if missing:
            new = editing.changed(
                path.name, text, {("project", key): value for key, value in missing.items()}
            )
            files.write(path, new.encode(), mode=mode)
        return {key: str(there.get(key, value)) for key, value in values.items()}

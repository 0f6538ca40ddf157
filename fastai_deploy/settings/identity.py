"""Writes a project's name and id into its file, so that every checkout names the same stages.

The id tells projects of the same name apart. Only lines are added: comments, order and spelling of
the rest stay as they are.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli

from fastai_deploy import files
from fastai_deploy.errors import FileMissing, SettingsError

_ID_BYTES = 6
_HEADER = re.compile(r"""\s*\[\s*(project|"project"|'project')\s*\]""")
_DOTTED = re.compile(r"\s*project\s*\.")
_INLINE = re.compile(r"\s*project\s*=\s*\{")


def new_id() -> str:
    """A random id of 12 hexadecimal digits."""
    return secrets.token_hex(_ID_BYTES)


def lines_of(values: Mapping[str, str]) -> list[str]:
    """The lines of ``[project]`` that give the values."""
    return [f'{key} = "{value}"' for key, value in values.items()]


def add_to_project(path: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Add keys to ``[project]`` of a project file; create the file if there is none.

    A key that the file has by now, written by a command at the same time, keeps its value. Returns
    the values of the keys in the file. Raises FileError, or SettingsError for a file in which no
    line can be added.
    """
    path = path.resolve()
    with files.opened_folder(path.parent) as folder, files.file_errors(path):
        fcntl.flock(folder, fcntl.LOCK_EX)  # released with the descriptor
        text, mode = "", 0o644
        try:
            text = files.read(path).decode("utf-8")
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileMissing:
            pass
        there: Mapping[str, Any] = tomli.loads(text).get("project", {})
        missing = {key: value for key, value in values.items() if key not in there}
        if missing:
            files.write(path, _extended(path, text, missing).encode(), mode=mode)
        return {key: str(there.get(key, value)) for key, value in values.items()}


def _extended(path: Path, text: str, values: Mapping[str, str]) -> str:
    """The text with values added to its table; checked by reading it again."""
    wanted = tomli.loads(text)
    wanted.setdefault("project", {}).update(values)
    for candidate in _candidates(text, lines_of(values)):
        if _parsed(candidate) == wanted:
            return candidate
    raise SettingsError(
        f"{path.name} is written in a way to which fdeploy cannot add a line",
        hint=f"add to its project table: {', '.join(lines_of(values))}",
    )


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError:
        return None


def _candidates(text: str, added: list[str]) -> Iterator[str]:
    """The text with lines added below each line that may be the table's header, or at the end."""
    end = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += end
    lines = text.splitlines(keepends=True)
    for at, line in enumerate(lines):
        before, rest = "".join(lines[:at]), "".join(lines[at + 1 :])
        if _HEADER.match(line):
            yield before + line + "".join(f"{each}{end}" for each in added) + rest
        elif _DOTTED.match(line):
            yield before + "".join(f"project.{each}{end}" for each in added) + line + rest
        elif inline := _INLINE.match(line):
            inside = line[inline.end() :]
            for comma in (", ", " "):
                yield before + inline[0] + " " + ", ".join(added) + comma + inside.lstrip() + rest
    head = [*([""] if text else []), "[project]", *added]
    yield text + "".join(f"{each}{end}" for each in head)

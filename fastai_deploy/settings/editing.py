"""Changes ``fdeploy.toml`` and keeps everything else in it: comments, order and spelling."""

from __future__ import annotations

import fcntl
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli
import tomlkit
from pydantic import ValidationError
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Comment, Table, Whitespace

from fastai_deploy import files
from fastai_deploy.errors import FileMissing, SettingsError
from fastai_deploy.settings.loading import (
    place_of,
    settings_of,
    value_of,
)
from fastai_deploy.settings.validation import validation_errors

Place = tuple[str, ...]  # the tables that a key is in, and the key


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other commands from changing the file, by a lock on its folder."""
    with files.opened_folder(path.parent) as folder, files.file_errors(path):
        fcntl.flock(folder, fcntl.LOCK_EX)  # released with the descriptor
        yield


def read_text(path: Path) -> tuple[str, int]:
    """The text of a project file and its mode; an empty text if there is none."""
    try:
        return files.read(path).decode("utf-8-sig"), stat.S_IMODE(path.stat().st_mode)
    except FileMissing:
        return "", 0o644


def changed(name: str, text: str, values: Mapping[Place, Any]) -> str:
    """The text of the project file ``name`` with other values.

    Raises SettingsError if that cannot be written without changing something else.
    """
    wanted = tomli.loads(text)
    for place, value in values.items():
        _put(wanted, place, value)
    try:
        document = tomlkit.parse(text)
        for place, value in values.items():
            _put(document, place, value)
        new = tomlkit.dumps(document)
        if "\r\n" in text:
            new = new.replace("\r\n", "\n").replace("\n", "\r\n")
        if tomli.loads(new) == wanted:
            return new
    except (TOMLKitError, tomli.TOMLDecodeError):
        pass
    lines = (
        f"{dotted(place)} = {tomlkit.item(value).as_string()}" for place, value in values.items()
    )
    raise SettingsError(
        f"{name} is written in a way that fdeploy cannot change",
        hint=f"write into it: {', '.join(lines)}",
    )


def set_value(path: Path, setting: str, text: str, environ: Mapping[str, str]) -> Any:
    """Set a setting such as ``api.rate`` in a project file; return its value.

    Lists use commas, as in the variables. The file is written only if all settings are valid then.
    Raises SettingsError or FileError.
    """
    place, kind = place_of(setting)
    try:
        value = value_of(kind, text)
    except ValidationError as error:
        raise validation_errors(error, lambda _loc: setting, place)[0] from None
    with locked(path):
        before, mode = read_text(path)
        plain = list(value) if isinstance(value, tuple) else value
        after = changed(path.name, before, {place: plain})
        stage = place[1] if place[0] == "stages" else None
        settings_of(path, after, stage=stage, environ=environ)
        files.write(path, after.encode(), mode=mode)
    return value


def unset(path: Path, setting: str) -> bool:
    """Remove a setting from a project file; return whether it was there."""
    place, _kind = place_of(setting)
    with locked(path):
        before, mode = read_text(path)
        document = tomlkit.parse(before)
        table: Any = document
        for part in place[:-1]:
            table = table.get(part, {})
        if place[-1] not in table:
            return False
        del table[place[-1]]
        files.write(path, tomlkit.dumps(document).encode(), mode=mode)
        return True


def dotted(place: Sequence[str]) -> str:
    """``("api", "rate")`` as ``api.rate``."""
    return ".".join(place)


def _put(table: Any, place: Place, value: Any) -> None:
    for part in place[:-1]:
        if part not in table:
            table[part] = tomlkit.table() if isinstance(table, tomlkit.TOMLDocument) else {}
        table = table[part]
    if isinstance(table, Table) and place[-1] not in table:
        _add_last(table, place[-1], value)
    else:
        table[place[-1]] = value


def _add_last(table: Table, key: str, value: Any) -> None:
    """Add a key after the last one: what follows it belongs to the next table."""
    body = table.value.body
    after = []
    while body and isinstance(body[-1][1], Whitespace | Comment):
        after.append(body.pop()[1])
    table.add(key, value)
    for item in reversed(after):
        table.add(item)  # type: ignore[call-overload] # which does take whitespace

"""Says which setting is wrong: its file and line, what was expected, the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from fastai_deploy import __version__
from fastai_deploy.errors import SettingsError
from fastai_deploy.settings.project_file import SECTIONS, ProjectFile, Sections, class_of

_PART = r"""\s*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')\s*"""
_DOTTED = rf"{_PART}(?:\.{_PART})*"
_HEADER = re.compile(rf"^\s*\[({_DOTTED})\]")
_KEY = re.compile(rf"^({_DOTTED})=")
_NAME = re.compile(r"""[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'""")


def line_of(text: str, path: Sequence[str]) -> int | None:
    """The line number, from 1, of the key at ``path``, else of its nearest table, else None."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = found = _names(header[1])
        elif key := _KEY.match(line):
            found = table + _names(key[1])
        else:
            continue
        if tuple(path[: len(found)]) == found and (best is None or len(found) > best[0]):
            best = (len(found), number)
    return best[1] if best else None


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in _NAME.findall(dotted))


def validation_errors(
    error: ValidationError,
    where: Callable[[tuple[str, ...]], str],
    below: tuple[str, ...] = (),
) -> list[SettingsError]:
    """Each of pydantic's errors as a SettingsError; ``where`` returns a key's location.

    ``below`` is the path of what was validated.
    """
    return [_setting_error(each, where, below) for each in error.errors(include_url=False)]


def _setting_error(
    first: Any, where: Callable[[tuple[str, ...]], str], below: tuple[str, ...]
) -> SettingsError:
    loc = (*below, *(str(part) for part in first["loc"]))
    place = where(loc)
    dotted = ".".join(loc)
    if first["type"] == "extra_forbidden":
        hint = nearest(loc[-1], _known_at(loc[:-1]), "the keys")
        if "did you mean" not in hint:
            hint += f"; this is fdeploy {__version__}, and a newer one may know more"
        return SettingsError(f"{place}: unknown setting {dotted}", hint=hint)
    expected = first["msg"].replace("Input should be", "expected").replace("tuple", "list")
    expected = expected[:1].lower() + expected[1:]
    got = first["input"]
    shown = f", got {got!r}" if isinstance(got, str | int | float | bool) else ""
    subject = f"{place}: {dotted}" if dotted and dotted != place else place
    return SettingsError(
        f"{subject}: {expected}{shown}", hint=_description(loc) or "see docs/settings.md"
    )


def raise_all(errors: Sequence[SettingsError]) -> None:
    """Raise one error that tells of all; nothing without one."""
    if len(errors) > 1:
        told = "".join(f"\n  {each.message} ({each.hint})" for each in errors)
        raise SettingsError(
            f"{len(errors)} settings are wrong:{told}",
            hint="correct these, then run the same command again",
        )
    if errors:
        raise errors[0]


def _known_at(loc: tuple[str, ...]) -> list[str]:
    annotation: Any = ProjectFile
    for part in loc:
        if annotation is ProjectFile and part == "stages":
            annotation = {}
        elif isinstance(annotation, dict):
            annotation = Sections
        else:
            annotation = fields_of(annotation).get(part)
    return list(fields_of(annotation))


def _description(loc: tuple[str, ...]) -> str:
    if loc[:1] == ("stages",):
        loc = loc[2:]
    for end in range(len(loc) - 1, 0, -1):
        section = SECTIONS.get(".".join(loc[:end]))
        if section is not None:
            field = section.model_fields.get(loc[end])
            return (field.description or "") if field else ""
    return ""


def fields_of(annotation: Any) -> dict[str, Any]:
    """The keys of a section with their types."""
    model = class_of(annotation, BaseModel)
    fields = model.model_fields if model is not None else {}
    return {name: field.rebuild_annotation() for name, field in fields.items()}


def nearest(name: str, known: list[str], what: str) -> str:
    """A hint with the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"{what} known here are: {', '.join(known)}" if known else "remove it"

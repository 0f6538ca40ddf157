"""What the validator says, in words that name the place, the key and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from fastai_deploy.errors import SettingsError
from fastai_deploy.settings.model import ProjectFile, Sections


def complaint(error: ValidationError, where: Callable[[tuple[str, ...]], str]) -> SettingsError:
    """The first complaint of the validator, in our words; ``where`` gives the place of a key."""
    first = error.errors(include_url=False)[0]
    loc = tuple(str(part) for part in first["loc"])
    place = where(loc)
    dotted = ".".join(loc)
    if first["type"] == "extra_forbidden":
        known = _known_at(loc[:-1])
        return SettingsError(
            f"{place}: {dotted} is no setting", hint=nearest(loc[-1], known, "a key")
        )
    expected = first["msg"].replace("Input should be", "expected").replace("tuple", "list")
    expected = expected[:1].lower() + expected[1:]
    got = first["input"]
    shown = f", got {got!r}" if isinstance(got, str | int | float | bool) else ""
    subject = f"{place}: {dotted}" if dotted and dotted != place else place
    return SettingsError(
        f"{subject}: {expected}{shown}", hint=_description(loc) or "see docs/settings.md"
    )


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
    if len(loc) < 2 or loc[0] not in Sections.model_fields:  # noqa: PLR2004 - section and key
        return ""
    section = Sections.model_fields[loc[0]].annotation
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return ""
    field = section.model_fields.get(loc[1])
    return (field.description or "") if field else ""


def fields_of(annotation: Any) -> dict[str, Any]:
    """The keys of a section with the types of their values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: field.rebuild_annotation() for name, field in annotation.model_fields.items()}
    return {}


def nearest(name: str, known: list[str], what: str) -> str:
    """A hint at what was meant: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"{what} of this place is one of: {', '.join(known)}" if known else "remove it"

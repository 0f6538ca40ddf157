"""``requirements.txt`` with every version pinned, so that an install next year is the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastai_deploy.errors import UsageError
from fastai_deploy.files import read

_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9,._ -]*\])?\s*==\s*"
    r"(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)"
)


@dataclass(frozen=True)
class Requirements:
    """Pinned requirements; ``text`` is the same for the same pins."""

    pins: tuple[tuple[str, str], ...]
    text: str


def read_requirements(path: Path) -> Requirements:
    """Read a file of requirements. Raises UsageError for a line that is no ``name==version``."""
    data = read(path)
    try:
        return parse_requirements(data.decode("utf-8-sig"), path.name)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8", hint="save the file as UTF-8") from None


def parse_requirements(text: str, where: str) -> Requirements:
    """The same from text; comments and blank lines are left out."""
    pins: list[tuple[str, str]] = []
    lines: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        found = _PINNED.fullmatch(line)
        if found is None:
            raise UsageError(
                f"{where}, line {number}: {line[:80]!r} is not pinned",
                hint="write name==version on each line, as pip freeze shows it where the learner "
                "was trained",
            )
        pins.append((found["name"], found["version"]))
        lines.append(line)
    if not pins:
        raise UsageError(
            f"{where} names no package", hint="state fastai==..., torch==... and what else it needs"
        )
    return Requirements(tuple(pins), "\n".join(lines) + "\n")


def installed(name: str) -> str | None:
    """The version of a package that is installed here; None when it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing_here(
    requirements: Requirements, found: Callable[[str], str | None] = installed
) -> tuple[str, ...]:
    """The pins that are not what is installed here; a build (``+cpu``) counts only where pinned."""
    return tuple(
        f"{name}=={wanted}" for name, wanted in requirements.pins if not _same(found(name), wanted)
    )


def _same(here: str | None, wanted: str) -> bool:
    if here is None:
        return False
    return here == wanted or ("+" not in wanted and here.partition("+")[0] == wanted)

"""``fdeploy explain``: what an error's code or an exit code means, and what usually helps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tomli

from fastai_deploy import errors
from fastai_deploy.errors import FdeployError, UsageError


@cache
def advice() -> Mapping[str, str]:
    """What usually helps, by the code of an error."""
    said = tomli.loads(Path(__file__).with_name("advice.toml").read_text(encoding="utf-8"))
    return {code: " ".join(text.split()) for code, text in said.items()}


_OTHERS: Mapping[int, str] = {
    0: "Success.",
    1: "A bug in fdeploy: run the same command with --verbose and report its output.",
    15: "Not an error: fdeploy plan found that up would change something.",
    130: "Interrupted by Ctrl-C. Finished work is kept: run the same command again to continue.",
    141: "The reader of the output closed the pipe, as head does.",
}


@dataclass(frozen=True)
class Explained:
    """Errors that share a code or an exit code."""

    code: str
    exit_code: int
    meaning: str
    advice: str
    errors: tuple[str, ...] = ()

    def values(self) -> Explained:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """What it means, and what helps."""
        yield self.code if self.errors else f"{self.code}, exit code {self.exit_code}"
        yield f"  {self.meaning}"
        if self.advice:
            yield f"  {self.advice}"
        for error in self.errors:
            yield f"  {error}"


def explain(code: str) -> Explained:
    """Explain an error's code, such as ``record-stale``, or an exit code. Raises UsageError."""
    kinds = error_kinds()
    if code in kinds:
        kind = kinds[code]
        return Explained(code, kind.exit_code, meaning(kind), advice()[code])
    number = int(code) if code.isdecimal() else None
    if number is not None:
        named = tuple(
            f"{each.code}: {meaning(each)}" for each in kinds.values() if each.exit_code == number
        )
        if number in _OTHERS or named:
            about = _OTHERS.get(number, "One of these errors; fdeploy explain CODE says more:")
            return Explained(f"exit code {number}", number, about, "", named)
    raise UsageError(
        f"{code!r} is neither the code of an error nor an exit code",
        hint=f"use one of {', '.join(kinds)}",
    )


def error_kinds() -> dict[str, type[FdeployError]]:
    """Every kind of error, by its code."""
    return {kind.code: kind for kind in _kinds(FdeployError)}


def meaning(kind: type[FdeployError]) -> str:
    """The first paragraph of an error's docstring, in one line."""
    first = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    return re.sub(r"``([^`]*)``", r"\1", " ".join(first.split()))


def _kinds(base: type[FdeployError]) -> Iterator[type[FdeployError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from _kinds(kind)

"""A page of results with a part for each kind of endpoint; a run writes one part.

The part of the first kind begins the page. The others follow, each behind a comment with its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastai_deploy.packaging.wheels import FUNCTION, Container
from tests.packaged import Model, write_model

REAL_TIME, LAMBDA = "real-time", "lambda"
UPDATE = "lambda-update"  # of a function that serves
KINDS = (REAL_TIME, LAMBDA, UPDATE)
IN_FUNCTION: Mapping[tuple[str, str], Any] = MappingProxyType({("endpoint", "kind"): LAMBDA})


def container_of_kind(kind: str) -> Container | None:
    """What a model of a kind is packed for."""
    return None if kind == REAL_TIME else FUNCTION


def model_of_kind(kind: str, folder: Path, *, layers: int = 0) -> Model:
    """A tiny model, packed for a kind of endpoint; another one with other ``layers``."""
    name = f"model-{layers}"
    return write_model(folder, name, container=container_of_kind(kind), layers=layers)


def write_part(path: Path, kind: str, lines: Iterable[str]) -> None:
    """Replace the part of a kind in a page, or add it."""
    parts = _parts(path.read_text(encoding="utf-8") if path.exists() else "")
    parts[kind] = "\n".join(lines).strip()
    written = [
        _comment(each) * (each != REAL_TIME) + parts[each] for each in KINDS if each in parts
    ]
    path.write_text("\n\n".join(written) + "\n", encoding="utf-8")


def _parts(text: str) -> dict[str, str]:
    parts, rest = {}, text
    for kind in reversed(KINDS[1:]):
        rest, found, part = rest.partition(_comment(kind))
        if found:
            parts[kind] = part.strip()
    return {REAL_TIME: rest.strip(), **parts} if rest.strip() else parts


def _comment(kind: str) -> str:
    return f"<!-- kind: {kind} -->\n\n"

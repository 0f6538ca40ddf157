"""How long the stages took the last time here, to say how long they may take now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import FileError
from fastai_deploy.json_reader import BadJson, parse

_WORTH = 2.0  # seconds; what is shorter was up to date, or is over before it is read


def read(path: Path) -> dict[str, float]:
    """The seconds that each stage took; empty if the file is missing or spoiled."""
    try:
        found = parse(files.read(path))
    except (FileError, BadJson):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: float(took) for name, took in found.items() if isinstance(took, int | float)}


def note(path: Path, took: Mapping[str, float]) -> None:
    """Keep the seconds of the stages that took a while. Informational, so it never fails."""
    lasting = {name: round(seconds, 1) for name, seconds in took.items() if seconds >= _WORTH}
    if lasting and path.parent.is_dir():
        try:
            files.write(path, json.dumps({**read(path), **lasting}).encode())
        except FileError:
            return

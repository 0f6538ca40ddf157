"""Which versions were deployed on this machine: a line a deploy, newest last.

It is written when a server has answered its goldens, so that ``rollback`` knows what was right.
"""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import FileError, FileMissing
from fastai_deploy.json_reader import BadJson, Reader, parse
from fastai_deploy.records import Deployed, StoredArtifact
from fastai_deploy.workspace import restored


class History:
    """The deploys in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, stored: StoredArtifact, now: datetime) -> None:
        """Remember a version, unless it is the newest already. Raises FileError."""
        listed = self._read()
        if listed and listed[-1].sha256 == stored.sha256:
            return
        deployed = Deployed.of(stored, now, _user())
        lines = [json.dumps(asdict(each)) for each in (*listed, deployed)]
        files.write(self._path, ("\n".join(lines) + "\n").encode())

    def newest_first(self) -> list[Deployed]:
        """Each version once, as it was deployed last. Raises FileError for a damaged file."""
        found: dict[str, Deployed] = {}
        for deployed in reversed(self._read()):
            found.setdefault(deployed.version, deployed)
        return list(found.values())

    def _read(self) -> list[Deployed]:
        try:
            lines = files.read(self._path).split(b"\n")
        except FileMissing:
            return []
        return [self._deployed(at, line) for at, line in enumerate(lines, 1) if line.strip()]

    def _deployed(self, number: int, line: bytes) -> Deployed:
        where = f"{self._path}, line {number}"
        hint = f"take the line out, or remove {self._path}: what serves goes on"
        try:
            return restored(Deployed, Reader(parse(line), where, hint))
        except BadJson as error:
            raise FileError(f"{where}: {error}", hint=hint) from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "somebody"

"""Which versions were deployed on this machine: a line a deploy, newest last.

It is written when a server has answered its goldens, so that ``rollback`` knows what was right.
"""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import UsageError
from fastai_deploy.records import StoredArtifact


@dataclass(frozen=True)
class Deployed:
    """A version that was verified; ``at`` is in UTC."""

    version: str
    sha256: str
    uri: str
    bytes: int
    at: str
    by: str

    def stored(self) -> StoredArtifact:
        """The artifact, to be deployed again."""
        return StoredArtifact("local", self.uri, self.sha256, self.bytes, self.sha256)


class History:
    """The deploys in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, stored: StoredArtifact, now: datetime) -> None:
        """Remember a version, unless it is the newest already. Raises FileError."""
        listed = self._read()
        if listed and listed[-1].sha256 == stored.sha256:
            return
        deployed = Deployed(
            version=stored.sha256[:12],
            sha256=stored.sha256,
            uri=stored.uri,
            bytes=stored.bytes,
            at=f"{now:%Y%m%dT%H%M%SZ}",
            by=_user(),
        )
        lines = [json.dumps(asdict(each)) for each in (*listed, deployed)]
        files.write(self._path, ("\n".join(lines) + "\n").encode())

    def newest_first(self) -> list[Deployed]:
        """Each version once, as it was deployed last."""
        found: dict[str, Deployed] = {}
        for deployed in reversed(self._read()):
            found.setdefault(deployed.version, deployed)
        return list(found.values())

    def before(self, live: str, wanted: str | None) -> Deployed:
        """The version ``wanted``, else the one before the live one. Raises UsageError."""
        listed = self.newest_first()
        known = ", ".join(each.version for each in listed) or "none"
        if wanted:
            found = [each for each in listed if each.version.startswith(wanted)]
            if len(found) != 1:
                many = "several versions" if found else "no version"
                raise UsageError(
                    f"{wanted} is {many} that was deployed", hint=f"choose one of: {known}"
                )
            return found[0]
        others = [each for each in listed if each.version != live]
        if not others:
            raise UsageError(
                f"there is no version before {live}", hint="fdeploy versions lists what there is"
            )
        return others[0]

    def _read(self) -> list[Deployed]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
            return [Deployed(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError):
            return []


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "somebody"

"""Whose a resource is: the tags that everything of a stage carries, and who is at work on it.

AWS is the only memory: what carries these tags is this stage's, what does not is left alone.
"""

from __future__ import annotations

import getpass
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from fastai_deploy.naming import PROJECT_TAG, STAGE_TAG

_PREFIX = "fdeploy"
_SEPARATOR = "--"
_LONGEST_NAME = 40  # two of them and the rest fit in the 128 of a ClientRequestToken


@dataclass(frozen=True)
class Owner:
    """One stage of one project."""

    project: str
    stage: str

    @property
    def tags(self) -> dict[str, str]:
        """What everything of the stage is tagged with."""
        return {PROJECT_TAG: self.project, STAGE_TAG: self.stage}

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether something with these tags is this stage's."""
        return self.tags.items() <= tags.items()


@dataclass(frozen=True)
class Operator:
    """Who runs fdeploy: written into the tokens of stack operations, for others to read."""

    user: str
    machine: str

    @classmethod
    def here(cls) -> Operator:
        """The user and machine of this process."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user may have no name
            user = "somebody"
        return cls(_plain(user), _plain(socket.gethostname()))

    @classmethod
    def of(cls, token: str) -> Operator | None:
        """Who made a token; None for one that is not fdeploy's."""
        parts = token.split(_SEPARATOR)
        if len(parts) != 4 or parts[0] != _PREFIX:  # noqa: PLR2004 - as token() writes it
            return None
        return cls(parts[1], parts[2])

    def token(self) -> str:
        """A new ClientRequestToken: it names one operation and who began it."""
        return _SEPARATOR.join((_PREFIX, self.user, self.machine, secrets.token_hex(8)))

    def __str__(self) -> str:
        return f"{self.user} on {self.machine}"


def _plain(name: str) -> str:
    """A name of letters, digits and single hyphens: what a token may hold."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:_LONGEST_NAME].strip("-") or "unknown"

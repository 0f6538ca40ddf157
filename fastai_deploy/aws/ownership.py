"""Ownership: the tags on all resources of a stage, and who is operating on them.

No local state is involved: a resource with these tags belongs to the stage; others are left alone.
"""

from __future__ import annotations

import getpass
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from fastai_deploy.naming import ID_TAG, PROJECT_TAG, STAGE_TAG

_PREFIX = "fdeploy"
_SEPARATOR = "--"
_OF_AWS = "aws:"  # begins the keys that nobody else may set
_LONGEST_NAME = 40  # two of them and the rest fit in the 128 of a ClientRequestToken


@dataclass(frozen=True)
class Owner:
    """One stage of one project.

    ``id`` tells projects of the same name apart; it is empty for a project that has none. With
    ``adopts``, the stage is this project's whatever its id is.
    """

    project: str
    stage: str
    id: str = ""
    adopts: bool = False

    @property
    def names(self) -> dict[str, str]:
        """The tags that every resource of the stage has, whichever project of the name it is of."""
        return {PROJECT_TAG: self.project, STAGE_TAG: self.stage}

    @property
    def tags(self) -> dict[str, str]:
        """The tags of all resources of the stage."""
        return {**self.names, ID_TAG: self.id} if self.id else self.names

    def is_named(self, tags: Mapping[str, str]) -> bool:
        """Whether a resource with these tags belongs to a project and stage of these names."""
        return self.names.items() <= tags.items()

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether a resource with these tags belongs to this stage.

        One without an id does: it was made by an earlier version, or where no id was made.
        """
        return self.is_named(tags) and (self.adopts or tags.get(ID_TAG, "") in ("", self.id))

    def may_own(self, tags: Mapping[str, str]) -> bool:
        """Whether a log group of this stage's name belongs to it, too, if it has no tags.

        What a container or a function still writes creates it again, without any; tags that AWS
        itself sets tell nothing.
        """
        return self.owns(tags) or all(key.startswith(_OF_AWS) for key in tags)


@dataclass(frozen=True)
class Operator:
    """Who runs fdeploy, recorded in the tokens of stack operations for others to see."""

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
        """Who created a token; None if it is not one of fdeploy's."""
        parts = token.split(_SEPARATOR)
        if len(parts) != 4 or parts[0] != _PREFIX:  # noqa: PLR2004 - as token() writes it
            return None
        return cls(parts[1], parts[2])

    def token(self) -> str:
        """A new ClientRequestToken, which identifies an operation and who started it."""
        return _SEPARATOR.join((_PREFIX, self.user, self.machine, secrets.token_hex(8)))

    def __str__(self) -> str:
        return f"{self.user} on {self.machine}"


def _plain(name: str) -> str:
    """Reduce a name to letters, digits and single hyphens, which a token may contain."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:_LONGEST_NAME].strip("-") or "unknown"

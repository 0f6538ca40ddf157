"""The user's leave to run what is in a learner.

``--trust-pickle`` covers the user's own code: the classes of ``__main__`` and of the definitions
file, and whatever the pickle defines itself. Names that no table knows are vouched for one by one,
with ``--allow-import``. A dangerous one is never run.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy.errors import UnsupportedLearner, UntrustedLearner
from fastai_deploy.learner.anatomy import Anatomy
from fastai_deploy.learner.convert import refuse_dangerous

TRUST, ALLOW = "--trust-pickle", "--allow-import"
_SHOWN = 12  # names that the message lists; the command has all


@dataclass(frozen=True)
class Leave:
    """What may be run; ``typed`` is the command line after ``fdeploy``, to be typed again."""

    trusted: bool
    allowed: tuple[str, ...]
    definitions: Path | None
    typed: tuple[str, ...]

    def check(self, anatomy: Anatomy, name: str) -> None:
        """Raise unless the pickle called ``name`` may be run, and holds what can be served.

        Raises DangerousLearner, UnsupportedLearner, or UntrustedLearner with the command that gives
        all the leave that is needed.
        """
        refuse_dangerous(anatomy)
        if anatomy.verdict.kind == "refused":
            raise UnsupportedLearner(
                f"this learner cannot be served: {anatomy.verdict.reason}",
                hint=anatomy.verdict.hint,
            )
        needed = tuple(self._needed(anatomy))
        missing = [each for each in needed if each not in self.allowed]
        if self.trusted and not missing:
            return
        raise UntrustedLearner(
            f"to serve {name} itself it must be loaded, and that runs whatever the file says, "
            "with your rights on this machine and with the endpoint's on AWS"
            + (f"; fdeploy does not know what these do: {_some(missing)}" if missing else ""),
            hint=f"if you made the file, or trust who did: {self._command(needed)}",
        )

    def _needed(self, anatomy: Anatomy) -> Iterator[str]:
        """The unknown names that are not of the definitions file."""
        own = self.definitions.stem if self.definitions is not None else None
        for name in anatomy.unknown:
            if own is None or name.split(".")[0] != own:
                yield name

    def _command(self, needed: tuple[str, ...]) -> str:
        """The whole command, with the leave that it lacked."""
        given = " ".join(self.typed).replace("=", " ").split()
        words = ["fdeploy", *self.typed]
        if TRUST not in self.typed:
            words.append(TRUST)
        for name in needed:
            if name not in given:
                words += [ALLOW, _readable(name)]
        return shlex.join(words)


def _some(names: list[str]) -> str:
    shown = ", ".join(_readable(each) for each in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _readable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]

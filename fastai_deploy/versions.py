"""Which versions there were, and which one ``rollback`` goes back to; the same for every target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastai_deploy.errors import ParityError, UsageError
from fastai_deploy.records import Deployed, Version


def list_versions(versions: Sequence[Deployed], live: str) -> tuple[Version, ...]:
    """The versions as they are told, in the same order; ``live`` is the one that serves."""
    return tuple(
        Version(each.version, each.at, each.by, each.bytes, each.uri, each.version == live)
        for each in versions
    )


def previous_version(versions: Sequence[Deployed], live: str, wanted: str | None) -> Deployed:
    """The version that begins with ``wanted``, else the newest one that is not live.

    ``versions`` are those that were verified, newest first. Raises UsageError.
    """
    known = ", ".join(each.version for each in versions) or "none"
    if wanted:
        found = [each for each in versions if each.version.startswith(wanted)]
        if len(found) != 1:
            many = "several versions" if found else "no version"
            raise UsageError(
                f"{wanted} is {many} that was deployed", hint=f"choose one of: {known}"
            )
        return found[0]
    others = [each for each in versions if each.version != live]
    if not others:
        raise UsageError(
            f"there is no version before {live}", hint="fdeploy versions lists what there is"
        )
    return others[0]


def answers_as(version: str) -> Callable[[Callable[[Any], Any]], None]:
    """What proves a rollback: the endpoint names this version.

    Its goldens stand in its artifact, and its server has asked itself them. Raises ParityError.
    """

    def verify(invoke: Callable[[Any], Any]) -> None:
        answered = invoke({"text": "ready?"})["model"]["version"]
        if answered != version:
            raise ParityError(
                f"version {answered} answers, and not {version}",
                hint="run fdeploy status, then fdeploy deploy",
            )

    return verify

"""Lists deployed versions and picks the one to roll back to, for every target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastai_deploy.errors import ParityError, UsageError
from fastai_deploy.records import Artifact, Deployed
from fastai_deploy.stage_reports import ModelChange, Version


def list_versions(versions: Sequence[Deployed], live: str) -> tuple[Version, ...]:
    """Return the versions in the same order, with the ``live`` one marked."""
    return tuple(
        Version(
            each.version,
            each.at,
            each.by,
            each.bytes,
            each.uri,
            each.version == live,
            each.image,
        )
        for each in versions
    )


def model_change(
    artifact: Artifact, live: str, deployed: Callable[[], Iterable[Deployed]]
) -> ModelChange | None:
    """What an artifact would change of the ``live`` version, empty for none; None for nothing.

    ``deployed`` lists the versions; it is called only if there is another one to compare with.
    """
    if live == artifact.version:
        return None
    versions = deployed() if live else ()
    before = next((each.model for each in versions if each.version == live), None)
    return ModelChange(live, artifact.version, before, artifact.model)


def find_version(versions: Sequence[Deployed], wanted: str) -> Deployed:
    """Return the version whose digits start with ``wanted``. Raises UsageError."""
    known = ", ".join(each.version for each in versions) or "none"
    found = [each for each in versions if each.version.startswith(wanted)]
    if len(found) != 1:
        matches = "matches several deployed versions" if found else "was never deployed"
        raise UsageError(f"version {wanted} {matches}", hint=f"choose one of: {known}")
    return found[0]


def previous_version(versions: Sequence[Deployed], live: str, wanted: str | None) -> Deployed:
    """Return the version whose digits start with ``wanted``, by default the newest not live.

    ``versions`` are the verified ones, newest first. Raises UsageError.
    """
    if wanted:
        return find_version(versions, wanted)
    others = [each for each in versions if each.version != live]
    if not others:
        raise UsageError(
            f"there is no version to go back to: only {live} was deployed",
            hint="run fdeploy versions to list the deployed versions",
        )
    return others[0]


def answers_as(version: str) -> Callable[[Callable[[Any], Any]], None]:
    """Verify a rollback: the endpoint must report this version.

    The goldens are in the artifact, and the server has verified itself against them at its start.
    The returned function raises ParityError.
    """

    def verify(invoke: Callable[[Any], Any]) -> None:
        answered = invoke({"text": "ready?"})["model"]["version"]
        if answered != version:
            raise ParityError(
                f"the endpoint answers with version {answered} instead of {version}",
                hint="run fdeploy status, then fdeploy deploy",
            )

    return verify

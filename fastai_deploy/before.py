"""Which version ``rollback`` goes back to, the same for every target."""

from __future__ import annotations

from collections.abc import Sequence

from fastai_deploy.errors import UsageError
from fastai_deploy.records import Deployed


def version_before(versions: Sequence[Deployed], live: str, wanted: str | None) -> Deployed:
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

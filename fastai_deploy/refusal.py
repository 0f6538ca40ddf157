"""What a model server or an API answered instead of a result, as the error that users see."""

from __future__ import annotations

import json
from typing import Any

from fastai_deploy.errors import InvocationError


def refused(who: str, status: int, body: Any) -> InvocationError | None:
    """The error that ``body`` holds in the form of the contract; None where it holds none."""
    try:
        said = json.loads(body)["error"]
        return InvocationError(
            f"{who} answered {status} {said['code']}: {said['message']}",
            hint=said["hint"] or "see docs/contract.md",
            status=status,
            answer_code=said["code"],
        )
    except (ValueError, TypeError, KeyError):
        return None

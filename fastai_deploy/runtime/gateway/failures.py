"""Error responses with facts for the log. Standard library only."""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Sequence

from .. import error_responses
from ..contract import Json, RequestError


class ErrorResponse(RequestError):
    """The error for the client, with additional facts for the log only.

    ``facts`` never hold what a user sent. ``transient``: the same request may well succeed if it is
    sent again within a second.
    """

    def __init__(
        self,
        error: RequestError,
        *,
        headers: Optional[Mapping[str, str]] = None,
        facts: Optional[Mapping[str, Json]] = None,
        transient: bool = False,
    ) -> None:
        super().__init__(error.status, error.code, error.message, error.hint, error.retry_after)
        self.headers: Dict[str, str] = dict(headers or {})
        self.facts: Dict[str, Json] = dict(facts or {})
        self.transient = transient


def internal(facts: Mapping[str, Json]) -> ErrorResponse:
    """A defect: the client learns only that there is one."""
    return ErrorResponse(error_responses.internal(), facts=facts)


def overloaded(facts: Mapping[str, Json], *, transient: bool = False) -> ErrorResponse:
    """Too many requests at once, here or at the endpoint."""
    return ErrorResponse(error_responses.overloaded(), facts=facts, transient=transient)


def timeout(facts: Mapping[str, Json]) -> ErrorResponse:
    """No answer in time."""
    return ErrorResponse(error_responses.timed_out(), facts=facts)


def method_not_allowed(methods: Sequence[str]) -> ErrorResponse:
    """The route exists, the method does not."""
    allow = {"allow": ", ".join(methods)}
    return ErrorResponse(error_responses.method_not_allowed(methods), headers=allow)

"""The one exception that answers a request."""

from __future__ import annotations

from typing import Any, Dict, Optional


class RequestError(Exception):
    """A request that is answered with an error; says which status and body answer it.

    ``retry_after`` is in seconds, for the ``Retry-After`` header of 429 and 503.
    """

    def __init__(
        self, status: int, code: str, message: str, hint: str, retry_after: Optional[int] = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after

    def body(self) -> Dict[str, Any]:
        """The error as the contract spells it."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}

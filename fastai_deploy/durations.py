"""Spans of time as people type them."""

from __future__ import annotations

import re
from datetime import timedelta

from fastai_deploy.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """``90s``, ``15m``, ``2h`` or ``1d``. Raises UsageError."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smhd])", text)
    if match is None:
        raise UsageError(f"{text!r} is no span of time", hint="type 90s, 15m, 2h or 1d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})

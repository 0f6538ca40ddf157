"""Python environments for learners served from their pickle, and what processes inherit."""

from __future__ import annotations

import os

from fastai_deploy.runtime.telemetry import SWITCHES

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def clean_environment() -> dict[str, str]:
    """The environment of our processes: no credentials, no settings, telemetry switched off."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(SWITCHES)

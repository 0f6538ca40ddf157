"""The switches that keep libraries from reporting to their makers.

Each is an environment variable, because most libraries read theirs while they are imported, and
some in code that runs before any of ours. The package sets them as it is imported itself, so that
no module of it can import a library earlier; processes that it starts are given them as well.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Mapping, MutableMapping

SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        # From 1.29 on, the import alone writes a device id and a database of events below the
        # home, which a thread sends to Microsoft. disable_telemetry_events() comes too late.
        "ORT_DISABLE_TELEMETRY": "1",
        # A Ray cluster reports its usage every hour; read when the cluster starts.
        "RAY_USAGE_STATS_ENABLED": "0",
        # huggingface_hub reports which libraries use it, and looks up the tool that runs it.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # AWS's container images report their instance and kind as Python or the shell starts.
        "OPT_OUT_TRACKING": "true",
        # pip asks the package index whether there is a newer pip, and keeps the answer.
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # The convention that several libraries share: https://donottrack.sh
        "DO_NOT_TRACK": "1",
    }
)
"""Environment variables with the value that switches reporting off."""


def switch_off(environ: MutableMapping[str, str]) -> None:
    """Set every switch in ``environ``, whatever it holds: nothing that we start reports."""
    environ.update(SWITCHES)

"""Environment variables that stop libraries from reporting usage to their makers.

They are variables because most libraries read them on import, and some in code that runs before
ours. The package sets them when it is imported, before any of its modules can import a library, and
passes them to the processes that it starts.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Mapping, MutableMapping

SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        # Since 1.29 the import alone writes a device id and a database of events to the home
        # folder, which a thread sends to Microsoft. disable_telemetry_events() comes too late.
        "ORT_DISABLE_TELEMETRY": "1",
        # A Ray cluster reports its usage every hour; it reads this when the cluster starts.
        "RAY_USAGE_STATS_ENABLED": "0",
        # huggingface_hub reports which libraries use it, and detects the tool that runs it.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # AWS's container images report their instance and kind when Python or the shell starts.
        "OPT_OUT_TRACKING": "true",
        # pip asks the package index for a newer pip, and caches the answer.
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # A convention shared by several libraries: https://donottrack.sh
        "DO_NOT_TRACK": "1",
    }
)
"""Environment variables with the values that turn reporting off."""


def switch_off(environ: MutableMapping[str, str]) -> None:
    """Set every switch in ``environ``, overriding other values."""
    environ.update(SWITCHES)

"""The command line ``fdeploy``. Imports only what ``main`` itself needs, so that Ctrl-C works."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Any, NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    # The last of all: when the interpreter takes itself apart, the result is out, and Python would
    # let the signal kill it.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _interrupted)  # while the libraries are imported
    from fastai_deploy.cli.app import run  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, _interrupted)  # while threads end
    sys.exit(code)


def _interrupted(*_signal: Any) -> NoReturn:
    os._exit(130)

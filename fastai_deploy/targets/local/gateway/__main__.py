"""``python -m fastai_deploy.targets.local.gateway --config FILE --announce FILE``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TextIO

from fastai_deploy import files
from fastai_deploy.errors import FdeployError
from fastai_deploy.targets.local.gateway.config import GatewayConfig
from fastai_deploy.targets.local.gateway.server import serve

INTERRUPTED = 130


def main(arguments: Sequence[str], environ: MutableMapping[str, str], out: TextIO) -> int:
    """Serve until a signal arrives; return the exit code."""
    parser = argparse.ArgumentParser(prog="fdeploy-gateway", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON, see GatewayConfig")
    parser.add_argument("--announce", type=Path, required=True, help="written when ready")
    options = parser.parse_args(arguments)
    forget_aws(environ)
    try:
        config = GatewayConfig.decode(files.read(options.config))
        serve(
            config,
            folder=options.config.parent / "lambda",
            announce=options.announce,
            log=out,
        )
    except FdeployError as error:
        out.write(f"{error.message}\n{error.hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def forget_aws(environ: MutableMapping[str, str]) -> None:
    """Remove the user's AWS settings from this process, whose client calls only this machine."""
    for name in [name for name in environ if name.startswith("AWS_")]:
        del environ[name]
    environ["AWS_CONFIG_FILE"] = environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    environ["AWS_EC2_METADATA_DISABLED"] = "true"


if __name__ == "__main__":
    # uvicorn shuts down gracefully and then raises the signal again, which this handles.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(main(sys.argv[1:], os.environ, sys.stdout))

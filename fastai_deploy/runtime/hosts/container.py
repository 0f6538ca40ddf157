"""The first process of a container of fdeploy's own image: ``serve``, as SageMaker calls it.

SageMaker runs ``docker run IMAGE serve``, mounts the unpacked artifact at ``/opt/ml/model``, and
asks ``/ping`` and ``/invocations`` on port 8080. Source: "Custom Inference Code with Hosting
Services" in its guide. Other hosts give the port in ``PORT``; ``FDEPLOY_HOST`` is the address to
listen on, by default every one.

SageMaker expects a container to start as root. The server does not need that: it becomes another
user first, unless that user could not read the model.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import List, Mapping, Optional

from ..log import Log

_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  # the container's own; its host decides who reaches it
_PORT = "8080"
_MODEL = "/opt/ml/model"
_NOBODY = 1000  # user and group
_ENDED = 128 + signal.SIGTERM


def main(arguments: Optional[List[str]] = None) -> int:
    """Serve until a signal ends it. Returns the exit code."""
    # Importing makes no garbage, and looking for some takes a seventh of its time, because an image
    # holds no bytecode. Before it serves, the server collects, and enables it again.
    gc.disable()
    from .. import server  # noqa: PLC0415

    log = Log(sys.stderr)
    command = sys.argv[1:] if arguments is None else arguments
    if command not in ([], ["serve"]):
        log("refused", reason=f"this image has one command, serve, and not {' '.join(command)}")
        return 2
    # The kernel ignores a signal to the first process of a container that nothing handles.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED))
    folder = Path(os.environ.get("FDEPLOY_MODEL_DIR") or _MODEL)
    if not (folder / "manifest.json").exists():
        log("refused", reason=f"there is no model: mount an unpacked model.tar.gz at {folder}")
        return server.EXIT_MODEL
    leave_root(folder, log)
    host = os.environ.get("FDEPLOY_HOST") or _EVERY_ADDRESS
    options = ["--host", host, "--port", _port(os.environ), "--alone"]
    return server.main(["--model-dir", str(folder), *options])


def _port(environment: Mapping[str, str]) -> str:
    """The port that the host names: SageMaker's variable, or that of Cloud Run and others."""
    named = (environment.get(name) for name in ("SAGEMAKER_BIND_TO_PORT", "PORT"))
    return next((port for port in named if port), _PORT)


def leave_root(folder: Path, log: Log) -> None:
    """Become another user for good, if this is root and that user may read the model."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
        unreadable = _unreadable(folder)
        os.seteuid(0)
        if unreadable:
            os.setegid(0)
            log("stays_root", reason=f"{unreadable} can be read by root only")
            return
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    except PermissionError as error:  # a root without the capability to become someone else
        log("stays_root", reason=str(error))


def _unreadable(folder: Path) -> Optional[str]:
    """The first file or folder that this user may not read."""
    for at, folders, names in os.walk(folder):
        needed = [(Path(at, name), os.R_OK | os.X_OK) for name in folders]
        needed += [(Path(at, name), os.R_OK) for name in names]
        for path, access in needed:
            if not os.access(path, access, effective_ids=True):
                return str(path)
    return None if os.access(folder, os.R_OK | os.X_OK, effective_ids=True) else str(folder)


if __name__ == "__main__":
    sys.exit(main())

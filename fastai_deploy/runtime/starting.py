"""What a host that does the HTTP itself (TorchServe, Ray Serve) needs first: a model that is right.

Its hosts import nothing that a learner that is served as it is comes without: ONNX Runtime and the
tokenizers library are behind ``loading``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Tuple

from . import hardware
from .loading import VERSION_VARIABLE, Loaded, load
from .log import Log
from .memory import let_go
from .planning import Plan, plan


def start(folder: Path, log: Log, *, workers: int = 1) -> Tuple[Loaded, Plan]:
    """Load and check the model, for this process as one of ``workers`` of the machine; and tell it.

    Raises ModelError, or what a library raises; the reason is then in the log.
    """
    found = hardware.detect()
    planned = plan(replace(found, cores=max(1, found.cores // workers)))
    try:
        loaded = load(folder, found, planned.threads, version=os.environ.get(VERSION_VARIABLE))
    except Exception as error:
        log("refused", reason=str(error)[:1000])
        raise
    let_go()
    log("ready", threads=planned.threads, workers=planned.workers, **loaded.facts)
    return loaded, planned

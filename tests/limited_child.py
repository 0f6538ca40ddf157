"""The work that tests run in a limited process: ``python -m tests.limited_child``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from fastai_deploy.environments.limited_process import answer


def work(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``given`` asks for."""
    if given["do"] == "hang":
        while True:
            pass
    if given["do"] == "eat":
        return {"bytes": len(b"x" * given["bytes"])}
    if given["do"] == "crash":
        os.abort()
    if given["do"] == "fail":
        raise ValueError("it failed")
    return {"environment": sorted(os.environ), "echo": given["echo"]}


if __name__ == "__main__":
    answer(sys.argv[1:], work)

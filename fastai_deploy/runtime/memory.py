"""Memory that is freed, and kept by the C library all the same."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back() -> None:
    """Return freed memory to the system, which glibc else keeps for itself, a gigabyte and more."""
    gc.collect()  # graphs hold one another
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
        if trim is not None:
            trim(0)

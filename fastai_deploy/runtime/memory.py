"""Memory that is freed, and kept by the C library all the same."""

from __future__ import annotations

import ctypes
import gc
import sys

_GARBAGE = 50_000  # objects, between collections


def give_back() -> None:
    """Return freed memory to the system, which glibc else keeps for itself, a gigabyte and more."""
    gc.collect()  # graphs hold one another
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
        if trim is not None:
            trim(0)


def let_go() -> None:
    """Give back what loading needed, and look no more for garbage in what it has left.

    A collection goes through everything that lives, and thousands of open requests would be gone
    through again and again: a fifth of what each takes of the event loop. What is given back is
    81 MB after int8 RoBERTa-base.
    """
    give_back()
    gc.freeze()
    gc.set_threshold(_GARBAGE)

"""What code means, whichever of the Pythons that may have written it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from fastai_deploy.learner.code.bytecode import InvalidBytecode, Version
from fastai_deploy.learner.code.interpreter import NotUnderstood

T = TypeVar("T")


def settled(versions: Sequence[Version], follow: Callable[[Version], T]) -> T:
    """What ``follow`` finds for each version, which must be the same.

    Raises NotUnderstood, also where two versions differ or none can have written the code.
    """
    found: list[T] = []
    for version in versions:
        try:
            found.append(follow(version))
        except InvalidBytecode:
            continue
    if not found:
        raise NotUnderstood("it was written by a Python whose bytecode is not known here")
    if any(other != found[0] for other in found[1:]):
        raise NotUnderstood("it means one thing to one Python and another to the next")
    return found[0]

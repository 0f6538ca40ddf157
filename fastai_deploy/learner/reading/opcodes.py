"""Every opcode of pickle protocols 0 to 5, by its byte."""

from __future__ import annotations

from types import MappingProxyType

# Each of the three registers its handlers as it is imported.
from fastai_deploy.learner.reading import calls, containers, scalars
from fastai_deploy.learner.reading.registry import HANDLERS

__all__ = ["OPCODES", "calls", "containers", "scalars"]

OPCODES = MappingProxyType(HANDLERS)

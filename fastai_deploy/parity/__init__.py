"""Parity: are the answers those of the learner? Goldens, comparison, report and gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = Any
# Sends one request of the contract and returns the answer. Raises InvocationError.
Invoke = Callable[[Json], Json]
# Asks the goldens through an invoke. Raises ParityError or InvocationError.
Verify = Callable[[Invoke], None]

"""Parity with the learner's own answers: goldens, comparison, report and gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = Any
# Sends one request in the contract's form and returns the answer. Raises InvocationError.
Invoke = Callable[[Json], Json]
# Sends the goldens through an Invoke and checks the answers. Raises ParityError or InvocationError.
Verify = Callable[[Invoke], None]

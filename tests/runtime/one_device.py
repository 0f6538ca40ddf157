"""A second device without a GPU: torch's "meta", which computes shapes only.

For most operators torch itself fails if devices are mixed; this makes all of them fail.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ELSEWHERE = "meta"


class OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside the block, an operator whose inputs are on both devices fails, as on a GPU.

    Scalars on the CPU are accepted beside values on the other device.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        devices = {each.device.type for each in values}
        wide = [each for each in values if each.dim() and each.device.type == "cpu"]
        if len(devices) > 1 and wide:
            raise AssertionError(f"{func} is given values of {sorted(devices)}")
        return func(*args, **(kwargs or {}))

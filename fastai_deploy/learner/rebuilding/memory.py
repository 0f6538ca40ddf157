"""Keeping an export small: one copy of the weights in memory at a time, whoever needs them.

Torch, the graph's optimizer and ONNX Runtime each want the weights for themselves, but in turns.
"""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import torch
from torch import nn

from fastai_deploy.files import file_errors
from fastai_deploy.runtime.memory import give_back

ALIGNMENT = 64  # bytes: a line of a processor's cache


class Parked:
    """The parameters of a module, in a file that is mapped in their place.

    The module works as before; between its uses :meth:`rest` takes them out of memory. The file has
    no name and ends with the module. Where the system cannot do that, all stays in memory.
    """

    def __init__(self, module: nn.Module, folder: Path) -> None:
        """Write the parameters to a file on the disk of ``folder``. Raises FileError."""
        self._map: mmap.mmap | None = None
        parameters = [each for each in module.parameters() if each.numel()]
        if not parameters or not hasattr(mmap, "MADV_DONTNEED"):
            return
        starts: list[int] = []
        with file_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
            for each in parameters:
                starts.append(file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT))
                whole = each.detach().contiguous().flatten()
                file.write(whole.view(torch.uint8).numpy().data)
            file.flush()
            # Writes to a parameter, which nobody makes, would not reach the file.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        for each, start in zip(parameters, starts, strict=True):
            mapped = torch.frombuffer(self._map, dtype=each.dtype, count=each.numel(), offset=start)
            each.data = mapped.view(each.shape)
        give_back()

    def rest(self) -> None:
        """Out of memory; the next use reads them from the file again."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
        give_back()

"""Writing weights as safetensors, tensor by tensor: the numbers go from file to file unchanged.

The layout: 8 bytes with the length of the header, the header (JSON), then the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastai_deploy.files import replacing
from fastai_deploy.learner.reading.tensors import Tensor

ALIGNMENT = 8
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in the order of their names. Raises FileError or LearnerTruncated."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % ALIGNMENT)
    with replacing(path) as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for name in sorted(tensors):
            file.write(_contiguous(tensors[name]))


def _contiguous(tensor: Tensor) -> bytes:
    """The elements in order."""
    if tensor.contiguous or tensor.count == 0:
        return tensor.read() if tensor.count else b""
    size = tensor.storage.item_size
    flat = np.frombuffer(tensor.read(), dtype=f"u{size}")
    steps = [step * size for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False).tobytes()

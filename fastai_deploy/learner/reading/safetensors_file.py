"""Reads and writes safetensors files; numbers stay in their file until they are needed.

Format: https://huggingface.co/docs/safetensors/en/index#format. Eight bytes give the length of a
JSON header; the header gives each tensor's type, shape and bytes; the bytes follow without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastai_deploy.errors import LearnerTooComplex, LearnerTruncated, UnsupportedLearner
from fastai_deploy.files import replacing
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.learner.reading.sources import Slice, Source
from fastai_deploy.learner.reading.tensors import ITEM_SIZE, MAX_DIMENSIONS, Storage, Tensor

SUFFIX = ".safetensors"
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_TYPES = {name: kind for kind, name in _NAMES.items()}
ALIGNMENT = 8
_PREFIX = 8  # bytes of the header's length
MOST_HEADER = 16 << 20  # bytes; the library's own limit is 100 MB, a model's header takes 100 kB
MOST_TENSORS = 1 << 16
_METADATA = "__metadata__"
_LARGEST = 1 << 48  # elements of a dimension, or bytes of the file
_AGAIN = "download or copy the folder again, or write it again with model.save_pretrained()"


def read_safetensors(source: Source, name: str) -> dict[str, Tensor]:
    """The tensors in a file, by name; ``name`` is the file's, for errors.

    Raises LearnerTruncated for a damaged file, LearnerTooComplex for a header larger than any
    model's, and UnsupportedLearner for numbers of a type that cannot be served.
    """
    if source.size < _PREFIX:
        raise _damaged(name, "it has no header")
    length = int.from_bytes(source.read(0, _PREFIX), "little")
    start = _PREFIX + length
    if start > source.size:
        raise _damaged(name, f"its header should have {length:,} bytes, but the file ends before")
    if length > MOST_HEADER:
        raise _too_complex(name, f"its header has {length:,} bytes")
    header = source.read(_PREFIX, length)
    if header.count(b"{") > MOST_TENSORS:
        raise _too_complex(name, f"its header lists more than {MOST_TENSORS:,} tensors")
    try:
        listed = parse(header)
    except BadJson as error:
        raise _damaged(name, f"its header is {error}") from None
    if not isinstance(listed, dict):
        raise _damaged(name, "its header is not an object")
    found: dict[str, Tensor] = {}
    places: list[tuple[int, int]] = []
    for key, entry in listed.items():
        if key != _METADATA:
            begin, end, made = _tensor(name, key, entry, source, start)
            found[key] = made
            places.append((begin, end))
    _check_places(name, places, source.size - start)
    return found


def _tensor(file: str, key: str, entry: Any, source: Source, start: int) -> tuple[int, int, Tensor]:
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _damaged(file, f"the header's entry for {key[:80]!a} has the wrong form")
    if kind not in _TYPES:
        raise UnsupportedLearner(
            f"{file}: {key[:80]} holds numbers of the type {kind[:20]!a}, which fdeploy does not "
            "read",
            hint="save the model in float32: model.float().save_pretrained(DIR)",
        )
    sizes = tuple(each for each in shape if type(each) is int and 0 <= each < _LARGEST)
    if len(sizes) != len(shape) or len(sizes) > MAX_DIMENSIONS:
        raise _damaged(file, f"the shape of {key[:80]!a} is invalid")
    count = math.prod(sizes)
    size = count * ITEM_SIZE[_TYPES[kind]]
    if not 0 <= begin <= end or end - begin != size or start + end > source.size:
        raise _damaged(
            file, f"{key[:80]} should have {size:,} bytes, which are not there or not as many"
        )
    storage = Storage(key, _TYPES[kind], count, "cpu")
    storage.data = Slice(source, start + begin, size)
    return begin, end, Tensor(storage, 0, sizes, _strides(sizes), trainable=True)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a row-major tensor, in elements."""
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


def _check_places(file: str, places: list[tuple[int, int]], size: int) -> None:
    """Raise LearnerTruncated unless the tensors fill the file, without gaps and overlaps."""
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise _damaged(file, f"its tensors overlap or leave a gap at byte {reached:,}")
        reached = end
    if reached != size:
        raise _damaged(file, f"its tensors have {reached:,} bytes, but the file holds {size:,}")


def check_index(weight_map: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise LearnerTruncated unless each weight of an index is in the file that it names."""
    for name, file in weight_map.items():
        if found.get(name) != file:
            where = f"in {found[name]}" if name in found else "in no file"
            raise LearnerTruncated(
                f"the index says that {name[:80]} is in {file}, but it is {where}", hint=_AGAIN
            )


def _damaged(file: str, why: str) -> LearnerTruncated:
    return LearnerTruncated(f"{file} is damaged or incomplete: {why}", hint=_AGAIN)


def _too_complex(file: str, why: str) -> LearnerTooComplex:
    return LearnerTooComplex(
        f"{file}: {why}, more than any model needs",
        hint="the file is damaged or malicious; download the folder again",
    )


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, sorted by name. Raises FileError or LearnerTruncated."""
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
    """A tensor's elements in row-major order."""
    if tensor.contiguous or tensor.count == 0:
        return tensor.read() if tensor.count else b""
    import numpy as np  # noqa: PLC0415 - only for views; inspect must do without

    size = tensor.storage.item_size
    flat = np.frombuffer(tensor.read(), dtype=f"u{size}")
    steps = [step * size for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False).tobytes()

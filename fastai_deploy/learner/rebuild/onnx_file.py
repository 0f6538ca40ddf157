"""ONNX files in two parts: the graph, and its larger weights in ONNX's external data format.

Weights are written and read one by one, so they are never all in memory, and their file may have
any size. Each starts on a page boundary, so that ONNX Runtime can map it.

Source: "External Data" in the ONNX documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from onnx.helper import np_dtype_to_tensor_dtype, tensor_dtype_to_np_dtype

from fastai_deploy.files import replacing, write
from fastai_deploy.runtime.bundle import weights_file

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[Any]]"

SMALL = 1 << 10  # bytes; smaller weights stay in the graph
PAGE = 1 << 12  # bytes


def write_onnx(path: Path, model: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
    """Write ``model`` with ``weights`` as additional initializers; ``model`` itself is unchanged.

    The same model and weights give the same bytes. Raises FileError.
    """
    written = onnx.ModelProto()
    written.CopyFrom(model)
    initializers = written.graph.initializer
    del initializers[:]
    held = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = {**held, **weights}
    outside = path.with_name(weights_file(path.name))
    large = {name: each for name, each in weights.items() if each.nbytes >= SMALL}
    if large:
        with replacing(outside) as file:
            for name in sorted(large):
                start = file.seek(-(-file.tell() // PAGE) * PAGE)
                file.write(np.ascontiguousarray(large[name]).reshape(-1).data)
                initializers.append(_external(name, large[name], outside.name, start))
    for name in sorted(weights.keys() - large.keys()):
        initializers.append(onnx.numpy_helper.from_array(np.asarray(weights[name]), name))
    write(path, written.SerializeToString(deterministic=True))


def read_onnx(path: Path) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Read what ``write_onnx`` wrote: the graph without its initializers, and those by name.

    Large weights are mapped and read on access, so their file must not change.
    """
    model = onnx.load(path, load_external_data=False)
    weights = {each.name: _array(each, path) for each in model.graph.initializer}
    del model.graph.initializer[:]
    return model, weights


def remove_onnx(path: Path) -> None:
    """Remove a graph and its weights, if they exist."""
    for each in (path, path.with_name(weights_file(path.name))):
        each.unlink(missing_ok=True)


def _external(name: str, weight: Array, location: str, start: int) -> onnx.TensorProto:
    """A tensor that refers to its data in another file."""
    kind = np_dtype_to_tensor_dtype(weight.dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=list(weight.shape))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": location, "offset": start, "length": weight.nbytes}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _array(tensor: onnx.TensorProto, path: Path) -> Array:
    if not uses_external_data(tensor):
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    place = ExternalDataInfo(tensor)
    dtype = tensor_dtype_to_np_dtype(tensor.data_type)
    file = path.with_name(place.location)
    return np.asarray(np.memmap(file, dtype, "r", place.offset or 0, tuple(tensor.dims)))

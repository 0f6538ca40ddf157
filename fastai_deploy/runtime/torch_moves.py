"""Operators that move numbers and change none: shapes, slices, gathering and scattering.

Source: the operator documents of ONNX (opset 17).
"""

from __future__ import annotations

from typing import Any, Dict, List

import torch
from torch.nn import functional

from .torch_values import Attributes, Operator, Output, Tensor, axes_of, integers, together

_BOOL, _FLOATS = 9, (1, 10, 11)  # kinds of numbers, as onnx.proto counts them
_INTEGERS = {2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64}


def _cast(inputs: List[Any], attributes: Attributes) -> Output:
    kind = attributes["to"]
    if kind in _FLOATS:
        return inputs[0].to(torch.float32)
    return inputs[0].to(torch.bool if kind == _BOOL else _INTEGERS[kind])


def _shape(inputs: List[Any], attributes: Attributes) -> Output:
    whole = list(inputs[0].shape)
    return torch.tensor(whole[attributes.get("start", 0) : attributes.get("end")])


def _constant_of_shape(inputs: List[Any], attributes: Attributes) -> Output:
    value = attributes.get("value")
    filling = torch.zeros(()) if value is None else torch.from_numpy(value.copy()).reshape(())
    return filling.expand(integers(inputs[0]))


def _range(inputs: List[Any], _: Attributes) -> Output:
    return torch.arange(*(each.item() for each in inputs), dtype=inputs[0].dtype)


def _eye_like(inputs: List[Any], attributes: Attributes) -> Output:
    rows, columns = inputs[0].shape
    if attributes.get("k") or attributes.get("dtype", 1) not in _FLOATS:
        raise ValueError("EyeLike beside the diagonal, or of integers, is not computed here")
    return torch.eye(rows, columns, device=inputs[0].device)


def _reshape(inputs: List[Any], attributes: Attributes) -> Output:
    data, shape = inputs[0], integers(inputs[1])
    if not attributes.get("allowzero"):
        shape = [size or data.shape[axis] for axis, size in enumerate(shape)]
    return data.reshape(shape)


def _flatten(inputs: List[Any], attributes: Attributes) -> Output:
    axis = attributes.get("axis", 1)
    rows = inputs[0].shape[:axis].numel()
    return inputs[0].reshape(rows, inputs[0].numel() // rows if rows else 0)


def _expand(inputs: List[Any], _: Attributes) -> Output:
    data, shape = inputs[0], integers(inputs[1])
    # Either may be the longer one, and a 1 in either leaves the other's size.
    return data.expand(torch.broadcast_shapes(data.shape, shape))  # type: ignore[no-untyped-call]


def _squeeze(inputs: List[Any], attributes: Attributes) -> Output:
    data, axes = inputs[0], axes_of(inputs, attributes)
    sizes = list(enumerate(data.shape))
    gone = {axis % data.dim() for axis in axes} or {axis for axis, size in sizes if size == 1}
    return data.reshape([size for axis, size in sizes if axis not in gone])


def _unsqueeze(inputs: List[Any], attributes: Attributes) -> Output:
    data, axes = inputs[0], axes_of(inputs, attributes)
    for axis in sorted(axis % (data.dim() + len(axes)) for axis in axes):
        data = data.unsqueeze(axis)
    return data


def _transpose(inputs: List[Any], attributes: Attributes) -> Output:
    return inputs[0].permute(attributes.get("perm") or list(reversed(range(inputs[0].dim()))))


def _concat(inputs: List[Any], attributes: Attributes) -> Output:
    return torch.cat(together(*inputs), attributes["axis"])


def _split(inputs: List[Any], attributes: Attributes) -> Output:
    axis = attributes.get("axis", 0)
    sizes = attributes.get("split") or (integers(inputs[1]) if len(inputs) > 1 else None)
    if sizes is None:
        raise ValueError("Split without sizes is not computed here")
    return inputs[0].split(sizes, axis)


def _slice(inputs: List[Any], _: Attributes) -> Output:
    data, starts, ends, axes, steps = (*inputs, None, None)[:5]
    begins, stops = integers(starts), integers(ends)
    along = list(range(len(begins))) if axes is None else integers(axes)
    by = [1] * len(begins) if steps is None else integers(steps)
    for axis, begin, stop, step in zip(along, begins, stops, by):  # noqa: B905  # not in Python 3.8
        places = range(*slice(begin, stop, step).indices(data.shape[axis]))
        if step == 1:
            data = data.narrow(axis, places.start if places else 0, len(places))
        else:
            chosen = torch.tensor(list(places), dtype=torch.int64, device=data.device)
            data = data.index_select(axis, chosen)
    return data


def _gather(inputs: List[Any], attributes: Attributes) -> Output:
    data, indices = together(*inputs)
    axis = attributes.get("axis", 0) % data.dim()
    chosen = data.index_select(axis, _positive(indices, data.shape[axis]).reshape(-1))
    return chosen.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


def _gather_elements(inputs: List[Any], attributes: Attributes) -> Output:
    data, indices = together(*inputs)
    axis = attributes.get("axis", 0)
    return torch.gather(data, axis, _positive(indices, data.shape[axis]))


def _gather_nd(inputs: List[Any], attributes: Attributes) -> Output:
    if attributes.get("batch_dims"):
        raise ValueError("GatherND over batches is not computed here")
    data, indices = together(*inputs)
    return data[tuple(indices.unbind(-1))]


def _scatter_nd(inputs: List[Any], attributes: Attributes) -> Output:
    if attributes.get("reduction", "none") not in ("none", b"none"):
        raise ValueError("ScatterND that adds up is not computed here")
    data, indices, updates = together(*inputs)
    data = data.clone()
    data[tuple(indices.unbind(-1))] = updates.to(data.dtype)
    return data


def _positive(indices: Tensor, size: int) -> Tensor:
    """Indices that count from the end, counted from the beginning."""
    return torch.where(indices < 0, indices + size, indices)


def _pad(inputs: List[Any], attributes: Attributes) -> Output:
    data, pads, value, axes = (*inputs, None, None)[:4]
    if attributes.get("mode", "constant") != "constant" or axes is not None:
        raise ValueError("Pad other than with a constant on every axis is not computed here")
    sizes = integers(pads)
    # ONNX has all beginnings before all ends; torch has pairs, those of the last axis first.
    half = len(sizes) // 2
    pairs = [size for axis in reversed(range(half)) for size in (sizes[axis], sizes[axis + half])]
    return functional.pad(data, pairs, value=float(value.item()) if value is not None else 0.0)


def _one_hot(inputs: List[Any], attributes: Attributes) -> Output:
    if attributes.get("axis", -1) != -1:
        raise ValueError("OneHot on another axis than the last is not computed here")
    indices, depth, values = inputs
    off, on = together(indices, *values.unbind())[1:]
    count = integers(depth)[0]
    numbers = torch.arange(count, device=indices.device)
    return torch.where(_positive(indices, count).unsqueeze(-1) == numbers, on, off)


def _non_zero(inputs: List[Any], _: Attributes) -> Output:
    return inputs[0].nonzero().t()


MOVES: Dict[str, Operator] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": lambda inputs, _: inputs[0],
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda inputs, _: inputs[0].repeat(integers(inputs[1])),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By the name that ONNX gives them."""

"""ONNX operators in torch: arithmetic, layers, attention, shapes and gathering."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import torch
from torch.nn import functional

Tensor = torch.Tensor
Attributes = Mapping[str, Any]
Output = Any
"""A tensor, or a tuple of tensors in which None is an output that no node reads."""
Operator = Callable[[List[Any], Attributes], Output]
"""Computes an output from inputs (None for an omitted one) and attributes."""


def together(*values: Tensor) -> List[Tensor]:
    """Move the values to one device: the GPU if any of them is there."""
    away = _away(values)
    return [value if away is None else value.to(away) for value in values]


def plain(function: Callable[..., Any]) -> Operator:
    """An elementwise operator without attributes, from a torch function.

    Scalars stay on the CPU, which torch accepts beside tensors on a GPU.
    """

    def work(inputs: List[Any], _: Attributes) -> Any:
        away = _away(inputs)
        return function(
            *(value if away is None or not value.dim() else value.to(away) for value in inputs)
        )

    return work


def _away(values: Sequence[Tensor]) -> Optional[torch.device]:
    """The device of the values that are not on the CPU; None if all are."""
    return next((value.device for value in values if value.device.type != "cpu"), None)


def integers(value: Tensor) -> List[int]:
    """A tensor of integers, such as a shape or axes, as a list."""
    return [int(each) for each in value.reshape(-1).tolist()]


def axes_of(inputs: List[Any], attributes: Attributes) -> List[int]:
    """An operator's axes, which are its second input or an attribute; [] if it has neither."""
    if len(inputs) > 1 and inputs[1] is not None:
        return integers(inputs[1])
    return list(attributes.get("axes") or [])


_BOOL, _FLOATS = 9, (1, 10, 11)  # TensorProto.DataType in onnx.proto
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
        raise ValueError("EyeLike off the main diagonal, or of integers, is not supported")
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
    # The data may have more dimensions than the shape, and a 1 in either takes the other's size.
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
        raise ValueError("Split without sizes is not supported")
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
        raise ValueError("GatherND with batch_dims is not supported")
    data, indices = together(*inputs)
    return data[tuple(indices.unbind(-1))]


def _scatter_nd(inputs: List[Any], attributes: Attributes) -> Output:
    if attributes.get("reduction", "none") not in ("none", b"none"):
        raise ValueError("ScatterND with a reduction is not supported")
    data, indices, updates = together(*inputs)
    data = data.clone()
    data[tuple(indices.unbind(-1))] = updates.to(data.dtype)
    return data


def _positive(indices: Tensor, size: int) -> Tensor:
    """Indices with negative ones, which count from the end, made positive."""
    return torch.where(indices < 0, indices + size, indices)


def _pad(inputs: List[Any], attributes: Attributes) -> Output:
    data, pads, value, axes = (*inputs, None, None)[:4]
    if attributes.get("mode", "constant") != "constant" or axes is not None:
        raise ValueError("Pad is supported only with a constant and on every axis")
    sizes = integers(pads)
    # ONNX lists all beginnings, then all ends; torch lists pairs, starting with the last axis.
    half = len(sizes) // 2
    pairs = [size for axis in reversed(range(half)) for size in (sizes[axis], sizes[axis + half])]
    return functional.pad(data, pairs, value=float(value.item()) if value is not None else 0.0)


def _one_hot(inputs: List[Any], attributes: Attributes) -> Output:
    if attributes.get("axis", -1) != -1:
        raise ValueError("OneHot is supported only on the last axis")
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
"""Operators that move or select values, by their ONNX name."""


PRODUCTS = frozenset(("Attention", "Conv", "Gemm", "LSTM", "MatMul"))
"""The operators that use weights in half precision."""

_MASKED = -10000.0  # the default of Attention's mask_filter_value


def _alike(*values: Any) -> List[Any]:
    """Factors on one device, all in half precision if any of them is."""
    there = [value for value in values if value is not None]
    half = any(value.dtype == torch.float16 for value in there)
    met = iter(value.half() if half else value for value in together(*there))
    return [None if value is None else next(met) for value in values]


def _multiply(inputs: List[Any], _: Attributes) -> Output:
    return torch.matmul(*_alike(*inputs))


def _gemm(inputs: List[Any], attributes: Attributes) -> Output:
    left, right, bias = (*inputs, None)[:3]
    left, right = _alike(left, right)
    left = left.t() if attributes.get("transA") else left
    right = right.t() if attributes.get("transB") else right
    product = torch.matmul(left, right).float() * attributes.get("alpha", 1.0)
    return product if bias is None else product + bias * attributes.get("beta", 1.0)


def _convolution(inputs: List[Any], attributes: Attributes) -> Output:
    data, weight, *bias = _alike(*inputs)
    pads = attributes.get("pads") or [0] * 2 * (data.dim() - 2)
    half = len(pads) // 2
    if attributes.get("auto_pad", "NOTSET") != "NOTSET" or pads[:half] != pads[half:]:
        raise ValueError("Conv with asymmetric padding is not supported")
    convolve = (functional.conv1d, functional.conv2d)[data.dim() - 3]
    return convolve(
        data,
        weight,
        bias[0] if bias else None,
        attributes.get("strides") or 1,
        pads[:half],
        attributes.get("dilations") or 1,
        attributes.get("group", 1),
    )


def _attention(inputs: List[Any], attributes: Attributes) -> Output:
    """Self-attention of ``(batch, sequence, hidden)`` with one matrix for query, key and value."""
    data, weight, bias, mask = (*inputs, None)[:4]
    if attributes.get("unidirectional") or any(each is not None for each in inputs[4:]):
        raise ValueError("Attention that is unidirectional or has a past is not supported")
    batch, sequence, _ = data.shape
    heads = attributes["num_heads"]
    size = weight.shape[1] // 3 // heads
    data, weight, bias = _alike(data, weight, bias)
    made = functional.linear(data, weight.t(), bias).reshape(batch, sequence, 3, heads, size)
    query, key, value = made.permute(2, 0, 3, 1, 4)
    scale = attributes.get("scale")
    if scale:  # replaces the default scale, which _attend applies
        query = query * (scale * math.sqrt(size))
    added = None
    if mask is not None:
        if mask.shape != (batch, sequence):
            raise ValueError("Attention is supported only with a mask of shape (batch, sequence)")
        lowest = attributes.get("mask_filter_value", _MASKED)
        hidden_tokens = (mask == 0).to(made.dtype) * max(lowest, torch.finfo(made.dtype).min)
        added = hidden_tokens[:, None, None, :].expand(batch, 1, sequence, sequence)
    attended = _attend(query, key, value, added)
    return attended.permute(0, 2, 1, 3).reshape(batch, sequence, heads * size)


def _attend(query: Tensor, key: Tensor, value: Tensor, added: Any) -> Any:
    """Scaled dot-product attention; the scale is torch's default, 1 / sqrt(head size)."""
    fused = getattr(functional, "scaled_dot_product_attention", None)  # since torch 2.0
    if fused is not None:
        return fused(query, key, value, attn_mask=added)
    scores = torch.matmul(query / math.sqrt(query.shape[-1]), key.transpose(-1, -2))
    scores = scores if added is None else scores + added
    return torch.matmul(torch.softmax(scores.float(), -1).to(value.dtype), value)


def _lstm(inputs: List[Any], attributes: Attributes) -> Output:
    """One forward LSTM layer, ``(sequence, batch, input)`` to ``(sequence, 1, batch, hidden)``.

    States have the shape ``(1, batch, hidden)``. The sequence lengths in graphs of bundle format 1
    are ignored: outputs after the end of a text are computed too, but no node reads them.
    """
    if attributes.get("direction", "forward") != "forward" or any(
        each is not None for each in inputs[7:]
    ):
        raise ValueError("LSTM with peepholes, or not forward, is not supported")
    data, entering, recurrent, bias = _alike(*inputs[:4])
    weights = [_gates(each) for each in (entering[0], recurrent[0], *bias[0].chunk(2))]
    zeros = data.new_zeros(1, data.shape[1], attributes["hidden_size"])
    states = [zeros if each is None else each.to(data) for each in (*inputs[5:], None, None)[:2]]
    # has_biases, layers, dropout, train, bidirectional, batch_first
    options = (True, 1, 0.0, False, False, False)
    return torch.lstm(data, states, weights, *options)[0].unsqueeze(1).float()


def _gates(weight: Tensor) -> Tensor:
    """Reorder rows: ONNX has input, output, forget, cell; torch has input, forget, cell, output."""
    entering, leaving, forget, cell = weight.chunk(4)
    return torch.cat((entering, forget, cell, leaving))


def _softmax(inputs: List[Any], attributes: Attributes) -> Output:
    return torch.softmax(inputs[0].float(), attributes.get("axis", -1))


def _layer_normalization(inputs: List[Any], attributes: Attributes) -> Output:
    data, scale, *shift = inputs
    axis = attributes.get("axis", -1) % data.dim()
    return functional.layer_norm(
        data.float(),
        list(data.shape[axis:]),
        scale,
        shift[0] if shift else None,
        attributes.get("epsilon", 1e-5),
    )


def _batch_normalization(inputs: List[Any], attributes: Attributes) -> Output:
    data, scale, shift, mean, variance = inputs
    epsilon = attributes.get("epsilon", 1e-5)
    return functional.batch_norm(data, mean, variance, scale, shift, eps=epsilon)


def _gelu(approximate: str) -> Operator:
    """Gelu, exact or approximated."""
    return lambda inputs, _: functional.gelu(inputs[0], approximate=approximate)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, combined from left to right."""

    def fold(inputs: List[Any], _: Attributes) -> Output:
        first, *others = together(*inputs)
        for each in others:
            first = function(first, each)
        return first

    return fold


def _reduced(function: Callable[..., Tensor]) -> Operator:
    """A reduction along the given axes, or along all of them if none is given."""

    def reduce(inputs: List[Any], attributes: Attributes) -> Output:
        axes = axes_of(inputs, attributes) or list(range(inputs[0].dim()))
        return function(inputs[0], axes, bool(attributes.get("keepdims", 1)))

    return reduce


def _largest(inputs: List[Any], attributes: Attributes) -> Output:
    if attributes.get("select_last_index"):
        raise ValueError("ArgMax with select_last_index is not supported")
    axis, kept = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
    return torch.argmax(inputs[0], axis, kept)


def _running_sum(inputs: List[Any], attributes: Attributes) -> Output:
    if attributes.get("exclusive") or attributes.get("reverse"):
        raise ValueError("CumSum with exclusive or reverse is not supported")
    return inputs[0].cumsum(integers(inputs[1])[0], dtype=inputs[0].dtype)


def _clip(inputs: List[Any], _: Attributes) -> Output:
    data, low, high = (*inputs, None, None)[:3]
    low, high = (None if each is None else each.item() for each in (low, high))
    return data if low is high is None else data.clamp(low, high)


def _divide(left: Tensor, right: Tensor) -> Tensor:
    if left.is_floating_point() or right.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


def _where(inputs: List[Any], _: Attributes) -> Output:
    condition, left, right = together(*inputs)
    kind = torch.result_type(left, right)
    return torch.where(condition, left.to(kind), right.to(kind))


def _einsum(inputs: List[Any], attributes: Attributes) -> Output:
    return torch.einsum(attributes["equation"], *_alike(*inputs))


OPERATORS: Dict[str, Operator] = {
    **MOVES,
    "Abs": plain(torch.abs),
    "Acos": plain(torch.acos),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "ArgMax": _largest,
    "Attention": _attention,
    "BatchNormalization": _batch_normalization,
    "Ceil": plain(torch.ceil),
    "Clip": _clip,
    "Conv": _convolution,
    "Cos": plain(torch.cos),
    "CumSum": _running_sum,
    "Div": plain(_divide),
    "Einsum": _einsum,
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "FastGelu": _gelu("tanh"),
    "Floor": plain(torch.floor),
    "Gelu": _gelu("none"),
    "Gemm": _gemm,
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "LSTM": _lstm,
    "LayerNormalization": _layer_normalization,
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "MatMul": _multiply,
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Pow": plain(torch.pow),
    "ReduceL2": _reduced(lambda data, axes, kept: data.square().sum(axes, kept).sqrt()),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": plain(torch.relu),
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Softmax": _softmax,
    "Softplus": plain(functional.softplus),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Tanh": plain(torch.tanh),
    "Where": _where,
}
"""All operators, by the name in ONNX or ONNX Runtime."""

"""Quantization of an ONNX graph to int8: weights and activations, or weights alone.

``quantize`` multiplies in int8, in ONNX Runtime, with the same answers on every processor. Weights
get seven bits and a scale per column. Seven, because processors without VNNI add products in 16
bits, which eight-bit weights overflow. With seven bits the integer arithmetic is exact everywhere,
so a parity gate passed on this machine also holds on the instance that will serve. The scale per
column more than makes up for the lost bit (see docs/quantization.md). The graph is the one that
ONNX Runtime's own ``quantize_dynamic`` makes, number for number, so that ONNX Runtime selects the
same kernels. That function needs 3.8 times the graph's size in memory, this one 1.3 times.

``quantize_weights`` stores weights in eight bits with a scale per column, and a DequantizeLinear
before each product. OpenVINO recognizes the pair, and quantizes the activations in small groups,
which keeps far more of what a trained model has learnt than one scale for a whole tensor.

Both store embeddings in int8 with a scale per row, and dequantize them after the lookup.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.helper import get_attribute_value, make_node

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.learner.rebuild.onnx_file import Array, read_onnx, write_onnx
from fastai_deploy.runtime.hardware import trim_memory

_LARGE = 1 << 16  # elements; smaller embedding tables stay in float32
_MATRIX = 2
_WEIGHT_STEPS = 64  # of a column, on either side of zero
_TABLE_STEPS = 127  # of a row; rows are dequantized before any sum, so eight bits are safe
_CONTRIB = "com.microsoft"
_QATTENTION = ("num_heads", "unidirectional", "mask_filter_value", "scale")
_ATTENTION_INPUTS = 5  # QAttention has no counterpart for inputs after these


def quantize(source: Path, destination: Path) -> None:
    """Write the int8 form of a graph; the same graph gives the same bytes.

    Raises UnsupportedLearner if the graph has nothing to quantize, and FileError.
    """
    model, weights = read_onnx(source)
    _write(destination, model, _Integers(weights))


def quantize_weights(source: Path, destination: Path) -> None:
    """Write a graph with int8 weights; otherwise the same as :func:`quantize`."""
    model, weights = read_onnx(source)
    _write(destination, model, _Weights(weights))


def _write(destination: Path, model: onnx.ModelProto, rewriting: _Rewriting) -> None:
    nodes = [made for node in model.graph.node for made in rewriting.node(node)]
    if not rewriting.found:
        raise UnsupportedLearner(
            "the model cannot be quantized: its graph has no weight matrices",
            hint='set quantize to "none" in [model]',
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]  # of values that may be gone
    if all(each.domain != _CONTRIB for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_CONTRIB, 1))
    used = {name for node in nodes for name in _reads(node)}
    kept = {name: each for name, each in rewriting.weights.items() if name in used}
    write_onnx(destination, model, kept)
    trim_memory()


class _Rewriting(ABC):
    """Rewrites the nodes of a graph one by one.

    ``weights`` are the float weights, to which the quantized ones are added; ``found``: at least
    one matrix was quantized.
    """

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.found = False

    @abstractmethod
    def node(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes that replace a node, or the node itself if it cannot be quantized."""

    def _is_matrix(self, name: str) -> bool:
        weight = self.weights.get(name)
        return weight is not None and weight.dtype == np.float32 and weight.ndim == _MATRIX

    def _is_table(self, node: onnx.NodeProto) -> bool:
        name = node.input[0]
        large = self._is_matrix(name) and self.weights[name].size >= _LARGE
        return large and _attributes(node).get("axis", 0) == 0

    def _lookup(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Look up int8 rows and their scales, and dequantize them."""
        table, ids = node.input
        whole, scale = f"{table}_row_int8", f"{table}_row_scale"
        if whole not in self.weights:
            rows, scales = _whole(self.weights[table], axis=1, steps=_TABLE_STEPS)
            self.weights.update({whole: rows, scale: scales})
        picked, factor, wide = (f"{node.output[0]}_row_{n}" for n in ("int8", "scale", "wide"))
        yield make_node("Gather", [whole, ids], [picked])
        yield make_node("Gather", [scale, ids], [factor])
        yield make_node("Cast", [picked], [wide], to=onnx.TensorProto.FLOAT)
        yield make_node("Mul", [wide, factor], [node.output[0]])


class _Weights(_Rewriting):
    """Int8 weights, dequantized before each product."""

    def node(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.op_type == "Gather" and self._is_table(node):
            yield from self._lookup(node)
        elif node.op_type in ("MatMul", "Gemm", "Attention") and self._is_matrix(node.input[1]):
            yield from self._dequantized(node)
        else:
            yield node

    def _dequantized(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        self.found = True
        name = node.input[1]
        rows = 0 if _attributes(node).get("transB") else 1  # the axis of the outputs
        whole, scale, wide = (f"{name}_{kind}{rows}" for kind in ("int8_", "scale_", "wide_"))
        if whole not in self.weights:
            values, scales = _whole(self.weights[name], axis=1 - rows, steps=_TABLE_STEPS)
            self.weights.update({whole: values, scale: scales.reshape(-1)})
            yield make_node("DequantizeLinear", [whole, scale], [wide], axis=rows)
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[1] = wide
        yield made


class _Integers(_Rewriting):
    """Integer arithmetic if possible."""

    def __init__(self, weights: dict[str, Array]) -> None:
        super().__init__(weights)
        self._activations: set[str] = set()

    def node(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        kind = node.op_type
        if kind == "Gather" and self._is_table(node):
            yield from self._lookup(node)
        elif kind == "MatMul" and self._is_matrix(node.input[1]):
            yield from self._product(node.input[0], node.input[1], node.output[0])
        elif kind == "Gemm" and self._is_linear(node):
            yield from self._linear(node)
        elif kind == "Attention" and self._is_attention(node):
            yield from self._attention(node)
        else:
            yield node

    def _is_linear(self, node: onnx.NodeProto) -> bool:
        given = _attributes(node)
        plain = all(given.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        return plain and not given.get("transA") and self._is_matrix(node.input[1])

    def _is_attention(self, node: onnx.NodeProto) -> bool:
        return (
            "qkv_hidden_sizes" not in _attributes(node)
            and not any(node.input[_ATTENTION_INPUTS:])
            and self._is_matrix(node.input[1])
        )

    def _linear(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Split a Gemm into a product and a sum."""
        weight = node.input[1]
        if _attributes(node).get("transB"):
            weight = f"{node.input[1]}_turned"
            self.weights[weight] = self.weights[node.input[1]].T
        bias = node.input[2:]
        product = f"{node.output[0]}_product" if bias else node.output[0]
        yield from self._product(node.input[0], weight, product)
        if bias:
            yield make_node("Add", [product, *bias], [node.output[0]])

    def _product(self, left: str, right: str, output: str) -> Iterator[onnx.NodeProto]:
        yield from self._activation(left)
        self._matrix(right)
        whole, wide, scale = (f"{output}_{name}" for name in ("whole", "wide", "scale"))
        sides = [f"{left}_int8", f"{right}_int8", f"{left}_zero_point", f"{right}_zero_point"]
        yield make_node("MatMulInteger", sides, [whole])
        yield make_node("Cast", [whole], [wide], to=onnx.TensorProto.FLOAT)
        yield make_node("Mul", [f"{left}_scale", f"{right}_scale"], [scale])
        yield make_node("Mul", [wide, scale], [output])

    def _attention(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        left, right, bias, *more = node.input
        yield from self._activation(left)
        self._matrix(right)
        mask, past = (*more, "", "")[:2]
        zeros = [f"{left}_zero_point", f"{right}_zero_point"]
        made = make_node(
            "QAttention",
            [f"{left}_int8", f"{right}_int8", bias, f"{left}_scale", f"{right}_scale", mask,
             *zeros, past],
            node.output,
            domain=_CONTRIB,
        )  # fmt: skip
        made.attribute.extend(each for each in node.attribute if each.name in _QATTENTION)
        yield made

    def _activation(self, name: str) -> Iterator[onnx.NodeProto]:
        """Quantize an activation to 0..255, with a scale determined at run time."""
        if name not in self._activations:
            self._activations.add(name)
            made = [f"{name}_int8", f"{name}_scale", f"{name}_zero_point"]
            yield make_node("DynamicQuantizeLinear", [name], made)

    def _matrix(self, name: str) -> None:
        """Quantize a weight matrix to int8, with a scale per column."""
        self.found = True
        if f"{name}_int8" not in self.weights:
            columns, scales = _whole(self.weights[name], axis=0, steps=_WEIGHT_STEPS)
            self.weights[f"{name}_int8"] = columns
            self.weights[f"{name}_scale"] = scales.reshape(-1)
            self.weights[f"{name}_zero_point"] = np.zeros(scales.size, np.int8)


def _whole(values: Array, *, axis: int, steps: int) -> tuple[Array, Array]:
    """Integers of at most ``steps`` on either side of zero, and the scales along ``axis``."""
    scales = np.abs(values).max(axis=axis, keepdims=True) / np.float32(steps)
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    return np.rint(values / scales).astype(np.int8), scales


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: get_attribute_value(each) for each in node.attribute}


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node and its nested graphs read."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)

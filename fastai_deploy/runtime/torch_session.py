"""Runs an ONNX graph in torch, node by node, on GPUs; every GPU image has torch.

ONNX Runtime for GPUs would add 300 MB to every artifact, and each build supports one version of
CUDA. With torch, the same graph runs in every GPU image, from torch 1.12 on.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set

import numpy as np
import torch

from .onnx_graph import Node, OnnxGraph, read_graph
from .torch_operators import OPERATORS, PRODUCTS

_SMALL = 32  # numbers; shorter integer lists (shapes, axes) stay on the CPU


class UnknownOperator(Exception):
    """A graph has operators that fdeploy does not implement in torch; the message names them."""


class TorchSession:
    """A graph on a device, with the ``run`` of an ONNX Runtime session. Thread-safe.

    ``half``: multiply matrices in half precision. Raises UnknownOperator.
    """

    def __init__(self, graph: OnnxGraph, device: str, *, half: bool) -> None:
        unknown = sorted({node.operator for node in graph.nodes} - OPERATORS.keys() - {"Constant"})
        if unknown:
            raise UnknownOperator(f"the graph has unsupported operators: {', '.join(unknown)}")
        constants = {
            node.outputs[0]: _constant(node) for node in graph.nodes if node.operator == "Constant"
        }
        values = {**graph.weights, **constants}
        self._device = torch.device(device)
        self._nodes = [node for node in graph.nodes if node.operator != "Constant"]
        self._outputs = graph.outputs
        self._halves: Dict[str, torch.Tensor] = {}
        if half:
            names = {n for node in self._nodes if node.operator in PRODUCTS for n in node.inputs}
            self._halves = {
                name: self._placed(values[name]).half()
                for name in names & values.keys()
                if values[name].dtype == np.float32
            }
        used = {name for node in self._nodes for name in self._read(node)}
        self._weights = {name: self._placed(values[name]) for name in values if name in used}
        self._last_used = _last_uses(self._nodes, {*values, *self._outputs})

    def run(
        self, outputs: Optional[Sequence[str]], feed: Mapping[str, Any]
    ) -> List[np.ndarray[Any, Any]]:
        """The named outputs, or all for None, as float32; ``feed`` holds numpy arrays by name."""
        with torch.inference_mode():
            values: Dict[str, Any] = dict(self._weights)
            for name, array in feed.items():
                values[name] = torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
            for node, gone in zip(self._nodes, self._last_used):  # noqa: B905  # not in Python 3.8
                products = self._halves if node.operator in PRODUCTS else {}
                inputs = [
                    products[name] if name in products else values[name] if name else None
                    for name in node.inputs
                ]
                made = OPERATORS[node.operator](inputs, node.attributes)
                made = made if isinstance(made, (tuple, list)) else (made,)
                values.update(zip(node.outputs, made))  # noqa: B905
                for name in gone:
                    values.pop(name, None)
            return [values[name].float().cpu().numpy() for name in outputs or self._outputs]

    def _read(self, node: Node) -> Set[str]:
        """The inputs that a node reads in full precision."""
        return set(node.inputs) - (self._halves.keys() if node.operator in PRODUCTS else set())

    def _placed(self, array: Any) -> torch.Tensor:
        """A tensor on the device; scalars, shapes and axes stay on the CPU."""
        with warnings.catch_warnings():  # torch warns that the mapped file is read-only
            warnings.simplefilter("ignore")
            value = torch.from_numpy(array)
        few = array.ndim == 1 and array.size <= _SMALL and array.dtype.kind in "iub"
        return value if few or not array.ndim else value.to(self._device)


def open_torch(path: Path, device: str, *, half: bool) -> TorchSession:
    """Load the graph in a file. Raises UnknownOperator, OSError, and ValueError if it has none."""
    return TorchSession(read_graph(path), device, half=half)


def _constant(node: Node) -> Any:
    """The value of a Constant node, as a numpy array."""
    ((kind, value),) = node.attributes.items()
    if kind == "value":
        return value
    return np.array(value, dtype=np.int64 if "int" in kind else np.float32)


def _last_uses(nodes: Sequence[Node], kept: Set[str]) -> List[List[str]]:
    """For each node, the values that no later node reads."""
    seen = set(kept)
    found: List[List[str]] = []
    for node in reversed(nodes):
        last = [n for n in dict.fromkeys((*node.inputs, *node.outputs)) if n and n not in seen]
        seen.update(last)
        found.append(last)
    return found[::-1]

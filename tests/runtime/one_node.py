"""Graphs of a single node, to compare ONNX Runtime with torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from fastai_deploy.runtime.torch_session import open_torch

# Operators that ONNX Runtime adds.
CONTRIBUTED = ("Attention", "FastGelu", "Gelu")


@dataclass(frozen=True)
class Case:
    """An operator with inputs: a name ending in "!" is a weight; None is an omitted input."""

    operator: str
    inputs: tuple[tuple[str, np.ndarray[Any, Any]] | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1

    @property
    def feed(self) -> dict[str, np.ndarray[Any, Any]]:
        return {each[0]: each[1] for each in self.inputs if each and not each[0].endswith("!")}

    def write(self, path: Path) -> None:
        names = [each[0] if each else "" for each in self.inputs]
        domain = "com.microsoft" if self.operator in CONTRIBUTED else ""
        outputs = [f"out{number}" for number in range(self.outputs)]
        node = helper.make_node(self.operator, names, outputs, domain=domain, **self.attributes)
        graph = helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for name, value in self.feed.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(each[1], each[0]) for each in self.inputs
             if each and each[0].endswith("!")],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def by_onnx_runtime(path: Path, case: Case) -> list[Any]:
    """ONNX Runtime's outputs."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, case.feed))


def by_torch(path: Path, case: Case) -> list[Any]:
    """The torch backend's outputs."""
    return list(open_torch(path, "cpu", half=False).run(None, case.feed))

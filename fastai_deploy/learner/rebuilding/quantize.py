"""An ONNX graph in dynamic int8: the same answers on every processor.

Weights get seven bits and a scale for each column. Seven, because processors without VNNI add
products up in 16 bits, which eight bits overflow; with seven, the whole-number part is exact
everywhere, so that a parity gate passed on this machine holds for the instance that will serve.
A scale for each column, because it more than makes up for the bit (see docs/quantization.md).
Embeddings are looked up in int8 with a scale for each row, and multiplied out.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from fastai_deploy.errors import UnsupportedLearner
from fastai_deploy.files import file_errors
from fastai_deploy.learner.rebuilding.onnx_export import quiet

_LARGE = 1 << 16  # elements of a table that is worth it
_MATRIX = 2
_LEVELS = 127
_CONTRIB = "com.microsoft"


def quantize(source: Path, destination: Path) -> None:
    """Write the int8 form of a graph; the same graph gives the same bytes.

    Raises UnsupportedLearner when the graph cannot be quantized, and FileError.
    """
    with file_errors(source):
        model = onnx.load(source)
    if all(each.domain != _CONTRIB for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_CONTRIB, 1))
    _shrink_tables(model)
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        prepared = Path(scratch, "prepared.onnx")
        with file_errors(destination):
            onnx.save(model, prepared)
        try:
            with quiet():
                quantize_dynamic(
                    prepared,
                    destination,
                    op_types_to_quantize=["MatMul", "Attention", "Gemm"],
                    per_channel=True,
                    reduce_range=True,
                    weight_type=QuantType.QInt8,
                    # Shapes that cannot be told are no reason to give up: all of it is float32.
                    extra_options={
                        "DefaultTensorType": onnx.TensorProto.FLOAT,
                        "MatMulConstBOnly": True,
                    },
                )
        except Exception as error:  # the library's errors have no common base
            reason = (str(error) or repr(error)).splitlines()[0][:300]
            raise UnsupportedLearner(
                f"the model cannot be quantized: {reason}",
                hint='set quantize to "none" in [model]',
            ) from error


def _shrink_tables(model: onnx.ModelProto) -> None:
    """Turn lookups in large float tables into lookups in int8, each row with its scale."""
    tables = {each.name: each for each in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_large(table):
            nodes.append(node)
            continue
        if table in model.graph.initializer:
            model.graph.initializer.remove(table)
            _add_rows(model, table)
        # The quantizer makes names of its own from what it finds: output + "_scale" is one.
        looked_up, scale, wide = (f"{node.output[0]}_row_{n}" for n in ("int8", "scale", "wide"))
        nodes += [
            onnx.helper.make_node("Gather", [f"{table.name}_row_int8", node.input[1]], [looked_up]),
            onnx.helper.make_node("Gather", [f"{table.name}_row_scale", node.input[1]], [scale]),
            onnx.helper.make_node("Cast", [looked_up], [wide], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [wide, scale], [node.output[0]]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_large(table: onnx.TensorProto) -> bool:
    is_float = table.data_type == onnx.TensorProto.FLOAT
    return is_float and len(table.dims) == _MATRIX and math.prod(table.dims) >= _LARGE


def _add_rows(model: onnx.ModelProto, table: onnx.TensorProto) -> None:
    values = onnx.numpy_helper.to_array(table)
    scales = np.abs(values).max(axis=1, keepdims=True) / _LEVELS
    scales[scales == 0] = 1.0
    whole = np.rint(values / scales).astype(np.int8)
    model.graph.initializer.extend(
        (
            onnx.numpy_helper.from_array(whole, f"{table.name}_row_int8"),
            onnx.numpy_helper.from_array(scales.astype(np.float32), f"{table.name}_row_scale"),
        )
    )

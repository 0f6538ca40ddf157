"""Every operator gives the same result in torch as in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastai_deploy.runtime.torch_operators import OPERATORS
from tests.runtime.one_node import Case, by_onnx_runtime, by_torch

_RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return _RANDOM.standard_normal(shape, dtype=np.float32)


def ints(*values: Any) -> Any:
    return np.array(values, dtype=np.int64)


def number(value: Any) -> Any:
    return np.array(value, dtype=np.int64 if isinstance(value, int) else np.float32)


def one(operator: str, *arrays: Any, weights: tuple[Any, ...] = (), **attributes: Any) -> Case:
    """A case with ``arrays`` as inputs, followed by ``weights`` stored in the graph."""
    inputs = [each if each is None else (f"in{n}", each) for n, each in enumerate(arrays)]
    held = [each if each is None else (f"w{n}!", each) for n, each in enumerate(weights)]
    return Case(operator, (*inputs, *held), attributes)


X, Y = floats(2, 3, 4), floats(3, 4)
POSITIVE = np.abs(X) + 0.1
BOOLS = X > 0
SMALL = [
    one(name, X)
    for name in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Identity", "Neg", "Relu", "Sigmoid",
                 "Sign", "Sin", "Softplus", "Tanh")
]  # fmt: skip
PAIRS = [
    one(name, X, Y)
    for name in ("Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
                 "Min", "Mul", "Sub")
]  # fmt: skip
CASES = [
    *SMALL,
    *PAIRS,
    one("Acos", np.clip(X, -1, 1)),
    one("Add", X, weights=(number(1.5),)),
    one("Mul", ints(2, -3), weights=(number(4),)),
    one("And", BOOLS, BOOLS[::-1].copy()),
    one("ArgMax", X, axis=1, keepdims=0),
    one("ArgMax", ints([1, 5, 5], [9, 9, 1]), axis=-1),
    one("Attention", floats(2, 5, 8), weights=(floats(8, 24), floats(24)), num_heads=2),
    one(
        "Attention",
        floats(2, 5, 8),
        np.zeros((8, 24), np.float32) + floats(8, 24),
        floats(24),
        np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]], np.int32),
        num_heads=2,
        mask_filter_value=-3.4e38,
    ),
    one("Attention", floats(1, 3, 8), weights=(floats(8, 24), floats(24)), num_heads=4, scale=0.3),
    one("BatchNormalization", floats(5, 3),
        weights=(floats(3), floats(3), floats(3), np.abs(floats(3)))),
    one("Cast", X, to=7),
    one("Cast", ints(0, 2), to=1),
    one("Cast", X, to=9),
    one("Clip", X, weights=(number(-0.5), number(0.5))),
    one("Clip", X, None, number(0.5)),
    one("Concat", X, floats(2, 1, 4), axis=1),
    one("ConstantOfShape", weights=(ints(2, 3),)),
    one("Conv", floats(2, 4, 7), weights=(floats(6, 2, 3), floats(6)), group=2, pads=[1, 1],
        strides=[2]),
    one("Conv", floats(1, 2, 5, 6), weights=(floats(3, 2, 3, 3),), dilations=[1, 2]),
    one("CumSum", ints([1, 2, 3], [4, 5, 6]), weights=(number(1),)),
    one("CumSum", np.array([[1, 2, 3]], np.int32), weights=(number(-1),)),
    one("Div", ints(7, -7, 6), weights=(ints(2, 2, -4),)),
    one("Einsum", floats(2, 3, 4), floats(2, 5, 4), equation="bih,bjh->bij"),
    one("Expand", floats(3, 1), weights=(ints(2, 1, 4),)),
    one("Expand", floats(2, 3, 1), weights=(ints(5),)),
    one("EyeLike", floats(3, 5)),
    one("FastGelu", X),
    one("Flatten", X, axis=2),
    one("Flatten", X, axis=0),
    one("Gather", X, weights=(ints([0, -1], [2, 1]),), axis=1),
    one("Gather", X, weights=(number(-2),), axis=2),
    one("GatherElements", X, weights=(ints([[0, -1]] * 3, [[1, 2]] * 3),), axis=2),
    one("GatherND", X, weights=(ints([0, 1], [1, 2]),)),
    one("Gelu", X),
    one("Gemm", floats(2, 3), weights=(floats(4, 3), floats(4)), transB=1, alpha=0.5, beta=2.0),
    one("Gemm", floats(3, 2), weights=(floats(3, 4),), transA=1),
    one("LSTM", floats(5, 2, 3), weights=(floats(1, 16, 3), floats(1, 16, 4), floats(1, 32)),
        hidden_size=4),
    one("LSTM", floats(5, 2, 3), weights=(floats(1, 16, 3), floats(1, 16, 4), floats(1, 32), None,
                                          floats(1, 2, 4), floats(1, 2, 4)), hidden_size=4),
    one("LayerNormalization", X, weights=(floats(4), floats(4)), epsilon=1e-12),
    one("LayerNormalization", X, weights=(floats(3, 4),), axis=1),
    one("Log", POSITIVE),
    one("MatMul", X, weights=(floats(4, 5),)),
    one("Max", X, Y, floats(1)),
    one("NonZero", BOOLS),
    one("Not", BOOLS),
    one("OneHot", ints([0, 3], [-1, 9]), weights=(number(4), np.array([2.0, 5.0], np.float32))),
    one("Pad", X, weights=(ints(0, 1, 2, 1, 0, 0), number(7.0))),
    one("Pad", X, weights=(ints(0, 0, -1, 0, 0, 1),)),
    one("Pow", POSITIVE, weights=(number(2.5),)),
    one("Range", weights=(number(2), number(11), number(3))),
    one("Range", weights=(number(4.0), number(-1.0), number(-1.0))),
    one("ReduceL2", X, axes=[1, 2], keepdims=0),
    one("ReduceMax", X, axes=[1]),
    one("ReduceMean", X, axes=[-1]),
    one("ReduceMean", X, keepdims=0),
    one("ReduceSum", X, weights=(ints(0, 2),), keepdims=0),
    one("ReduceSum", ints([1, 2], [3, 4])),
    one("Reshape", X, weights=(ints(0, -1),)),
    one("Reshape", X, weights=(ints(2, 12),)),
    one("ScatterND", X, weights=(ints([0, 1], [1, 2]), floats(2, 4))),
    one("Shape", X),
    one("Shape", X, start=1, end=-1),
    one("Slice", X, weights=(ints(1), ints(2**63 - 1), ints(2))),
    one("Slice", X, weights=(ints(-3, 3), ints(-1, -(2**63)), ints(1, 2), ints(1, -2))),
    one("Slice", X, weights=(ints(0, 5), ints(2, 9))),
    one("Slice", X, weights=(ints(0), ints(4), ints(2), ints(2))),
    one("Softmax", X, axis=1),
    Case("Split", (("in0", X), ("w0!", ints(1, 3))), {"axis": 2}, outputs=2),
    one("Sqrt", POSITIVE),
    one("Squeeze", floats(1, 3, 1), weights=(ints(0),)),
    one("Squeeze", floats(1, 3, 1)),
    one("Sub", ints(5, 6), weights=(number(7),)),
    one("Tile", X, weights=(ints(1, 2, 3),)),
    one("Transpose", X, perm=[2, 0, 1]),
    one("Transpose", X),
    one("Unsqueeze", X, weights=(ints(0, -1),)),
    one("Where", BOOLS, X, weights=(number(-9.0),)),
    one("Where", BOOLS[:, :1], weights=(number(3), number(4))),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(each, id=f"{each.operator}-{n}") for n, each in enumerate(CASES)]
)
def test_torch_answers_as_onnx_runtime(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    case.write(path)
    expected = by_onnx_runtime(path, case)
    found = by_torch(path, case)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours == pytest.approx(theirs.astype(np.float32), rel=1e-5, abs=2e-6)


def test_every_operator_has_a_case() -> None:
    assert {case.operator for case in CASES} == OPERATORS.keys()


REFUSED = [
    one("ArgMax", X, axis=0, select_last_index=1),
    one("Attention", floats(1, 3, 8), weights=(floats(8, 24), floats(24)), num_heads=2,
        unidirectional=1),
    one("Attention", floats(2, 3, 8), floats(8, 24), floats(24), np.array([3, 2], np.int32),
        num_heads=2),
    one("Conv", floats(2, 4, 7), weights=(floats(6, 4, 3),), pads=[0, 2]),
    one("CumSum", X, weights=(number(1),), reverse=1),
    one("EyeLike", floats(3, 5), k=1),
    one("GatherND", X, weights=(ints([1], [2]),), batch_dims=1),
    one("LSTM", floats(5, 2, 3), weights=(floats(1, 16, 3), floats(1, 16, 4), floats(1, 32)),
        hidden_size=4, direction="reverse"),
    one("LSTM", floats(5, 2, 3), weights=(floats(1, 16, 3), floats(1, 16, 4), floats(1, 32), None,
                                          None, None, floats(1, 12)), hidden_size=4),
    one("OneHot", ints(0, 3), weights=(number(4), np.array([0.0, 1.0], np.float32)), axis=0),
    one("Pad", X, weights=(ints(0, 1, 2, 1, 0, 0),), mode="edge"),
    one("ScatterND", X, weights=(ints([0, 1], [1, 2]), floats(2, 4)), reduction="add"),
    Case("Split", (("in0", X),), {"axis": 2}, outputs=2),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(each, id=f"{each.operator}-{n}") for n, each in enumerate(REFUSED)]
)
def test_unsupported_operators_are_refused(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    case.write(path)
    with pytest.raises(ValueError, match="supported"):
        by_torch(path, case)

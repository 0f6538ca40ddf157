"""The limits: the bare ONNX session at its best batch, and the CPU's matrix products.

    python -m benchmarks.comparison.limits MODEL_DIR TEXTS_JSON [--seconds 1]

Prints JSON: texts per second by kind of text, for the session that the server opens (same graph,
threads and options) in a loop that does nothing else; and GOP/s of one large product in int8 and
float32, by the faster of ONNX Runtime and torch. It runs in its own process, so that nothing else
is in memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

from fastai_deploy.runtime.bundle import open_bundle
from fastai_deploy.runtime.hardware import detect, plan_threads
from fastai_deploy.runtime.session import open_session
from fastai_deploy.runtime.word_tokenizer import open_encoder

_BATCHES = (1, 4, 8, 16, 32)
_MOST_TOKENS = 1024  # per run; more gains nothing
_PRODUCT = (512, 3072, 768)  # rows, columns, depth: a feed-forward layer of RoBERTa-base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    texts = json.loads(options.texts.read_bytes())
    print(json.dumps(bare(options.model_dir, texts, options.seconds)))


def bare(folder: Path, texts: dict[str, list[str]], seconds: float) -> dict[str, Any]:
    """Texts per second and the best batch, by kind of text."""
    bundle = open_bundle(folder)
    hardware = detect()
    session = open_session(bundle, hardware, plan_threads(hardware).threads, alone=False)
    encoder = open_encoder(bundle)
    found: dict[str, Any] = {}
    for kind, each in texts.items():
        lengths = sorted(len(encoder.encode(text)) for text in each)
        rates = {
            batch: _rate(session, bundle.inputs, lengths, batch, seconds)
            for batch in _BATCHES
            if batch == 1 or batch * lengths[len(lengths) // 2] <= _MOST_TOKENS
        }
        best = max(rates, key=rates.__getitem__)
        found[kind] = {"alone": rates[1], "best": rates[best], "batch": best}
    torch.set_num_threads(plan_threads(hardware).threads)
    found["gops"] = {
        "int8": max(_onnx_int8(plan_threads(hardware).threads, seconds), _torch_int8(seconds)),
        "float32": max(
            _onnx_float32(plan_threads(hardware).threads, seconds), _torch_float32(seconds)
        ),
    }
    return found


def _rate(
    session: Any, inputs: Sequence[str], lengths: list[int], batch: int, seconds: float
) -> float:
    """Texts per second for sorted lengths, in runs padded to the longest text of each."""
    runs = [lengths[at : at + batch] for at in range(0, len(lengths), batch)]
    if len(lengths) < batch:
        runs = [lengths * (batch // len(lengths))]
    feeds = [_feed(inputs, len(run), max(run)) for run in runs]
    session.run(None, feeds[0])
    alike = lengths[0] == lengths[-1]  # if not, only whole passes have the right mixture
    done = 0
    started = time.perf_counter()
    for run, feed in itertools.cycle(zip(runs, feeds, strict=True)):
        session.run(None, feed)
        done += len(run)
        passed = time.perf_counter() - started
        if passed >= seconds and (alike or done % len(lengths) == 0):
            return done / passed
    raise AssertionError("nothing to run")


def _feed(inputs: Sequence[str], texts: int, tokens: int) -> dict[str, Any]:
    ones = np.ones((texts, tokens), dtype=np.int64)
    return {name: np.zeros_like(ones) if "type" in name else ones for name in inputs}


def _gops(product: Callable[[], object], seconds: float) -> float:
    rows, columns, depth = _PRODUCT
    product()
    done = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        product()
        done += 1
    return 2 * rows * columns * depth * done / (time.perf_counter() - started) / 1e9


def _onnx(operator: str, kinds: tuple[int, int, int], threads: int) -> Any:
    rows, columns, depth = _PRODUCT
    left, right, result = kinds
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", left, [rows, depth])],
        [helper.make_tensor_value_info("c", result, [rows, columns])],
        [helper.make_tensor("b", right, [depth, columns], bytes(_size(right)), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def _size(kind: int) -> int:
    _, columns, depth = _PRODUCT
    return columns * depth * (4 if kind == TensorProto.FLOAT else 1)


def _onnx_int8(threads: int, seconds: float) -> float:
    kinds = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32)
    session = _onnx("MatMulInteger", kinds, threads)
    left = np.ones((_PRODUCT[0], _PRODUCT[2]), dtype=np.uint8)
    return _gops(lambda: session.run(None, {"a": left}), seconds)


def _onnx_float32(threads: int, seconds: float) -> float:
    session = _onnx("MatMul", (TensorProto.FLOAT,) * 3, threads)
    left = np.ones((_PRODUCT[0], _PRODUCT[2]), dtype=np.float32)
    return _gops(lambda: session.run(None, {"a": left}), seconds)


def _torch_int8(seconds: float) -> float:
    rows, columns, depth = _PRODUCT
    left = torch.ones(rows, depth, dtype=torch.int8)
    right = torch.ones(depth, columns, dtype=torch.int8)
    return _gops(lambda: torch._int_mm(left, right), seconds)  # noqa: SLF001  # there is no public function


def _torch_float32(seconds: float) -> float:
    rows, columns, depth = _PRODUCT
    left, right = torch.ones(rows, depth), torch.ones(depth, columns)
    return _gops(lambda: left @ right, seconds)


if __name__ == "__main__":
    main()

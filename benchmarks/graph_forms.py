"""The speed of each form of the model, from torch to the served graph, in interleaved rounds.

    python -m benchmarks.graph_forms [--layers 12] [--rounds 7]

RoBERTa-base with random weights; every form runs with the same number of threads. The exporter
based on torch.export is measured if ``onnxscript`` is installed. "Sums" are those that ONNX
Runtime's optimizer fuses with the next operator, into SkipLayerNormalization and BiasGelu.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.transformers import optimizer

from benchmarks.shapes import checks, classifier
from fastai_deploy.learner.rebuild.onnx_export import export_onnx, quiet
from fastai_deploy.learner.rebuild.quantize import quantize
from fastai_deploy.learner.rebuild.transformer import OUTPUT
from fastai_deploy.runtime.hardware import detect, plan_threads
from fastai_deploy.runtime.session import SLOWER

SHAPES = ((1, 12), (8, 12), (1, 92), (4, 92))  # texts, tokens
OPSETS = (14, 17, 20)
SUMS_FUSED, SUMS_ALONE = "int8, sums fused", "int8, sums not fused"
PAIRS = 60
SECONDS = 0.5  # per form, round and shape

Answer = Callable[[torch.Tensor], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    threads = plan_threads(detect()).threads
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        forms = made(Path(folder), options.layers, threads)
        check(forms)
        print(f"{threads} threads, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}; texts/s")
        print("| | " + " | ".join(f"{texts} x {tokens} tokens" for texts, tokens in SHAPES) + " |")
        rates = measured(forms, options.rounds)
        ratios = {shape: in_pairs(forms[SUMS_FUSED], forms[SUMS_ALONE], shape) for shape in SHAPES}
    base = next(iter(forms))
    for name in forms:
        cells = []
        for shape in SHAPES:
            found, first = rates[name, shape], statistics.median(rates[base, shape])
            middle = statistics.median(found)
            cells.append(
                f"{middle / first:.2f} ({min(found) / first:.2f} to {max(found) / first:.2f})"
            )
        print(f"| {name} | " + " | ".join(cells) + " |")
    texts = [f"{statistics.median(rates[base, shape]):.1f}" for shape in SHAPES]
    print(f"1 is {' / '.join(texts)} texts per second")
    for shape, (low, middle, high) in ratios.items():
        print(f"{SUMS_ALONE} to {SUMS_FUSED}, run by run, {shape[0]} x {shape[1]} tokens: "
              f"{middle:.2f} (half of them {low:.2f} to {high:.2f})")  # fmt: skip


def made(folder: Path, layers: int, threads: int) -> dict[str, Answer]:
    """Every form as a function from ids to logits; the first is the reference."""
    eager, fast = classifier(layers=layers), classifier(layers=layers, attention="sdpa")
    fast.load_state_dict(eager.state_dict())
    forms: dict[str, Answer] = {"torch": eager, "torch, fused attention (SDPA)": fast}
    ids = torch.arange(5, 37).reshape(2, 16)
    for opset in OPSETS:
        path = folder / f"{opset}.onnx"
        axes = {"input_ids": {0: "batch", 1: "sequence"}, OUTPUT: {0: "batch"}}
        with quiet():
            torch.onnx.export(
                eager, (ids,), str(path), input_names=["input_ids"], output_names=[OUTPUT],
                dynamic_axes=axes, dynamo=False, opset_version=opset,
            )  # fmt: skip
        forms[f"traced, opset {opset}"] = _session(path, threads)
    if find_spec("onnxscript"):
        path = folder / "exported.onnx"
        batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
        with quiet():
            torch.onnx.export(
                eager, (ids,), str(path), input_names=["input_ids"], output_names=[OUTPUT],
                dynamic_shapes=({0: batch, 1: sequence},), dynamo=True,
            )  # fmt: skip
        forms["exported by torch.export"] = _session(path, threads)
    graph = export_onnx(eager, folder / "fused.onnx", checks(eager))
    forms["traced, attention fused"] = _session(graph.path, threads)
    forms["the same, sums not fused"] = _session(graph.path, threads, SLOWER)
    more = folder / "more.onnx"
    with quiet():
        fused = optimizer.optimize_model(str(graph.path), "bert", num_heads=12, hidden_size=768,
                                         opt_level=0)  # fmt: skip
        fused.save_model_to_file(str(more))
    quantize(more, folder / "more-int8.onnx")
    forms[SUMS_FUSED] = _session(folder / "more-int8.onnx", threads)
    quantize(graph.path, folder / "int8.onnx")
    forms[SUMS_ALONE] = _session(folder / "int8.onnx", threads, SLOWER)
    return forms


def check(forms: dict[str, Answer]) -> None:
    """Print how far each form's logits are from those of the first."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 1000, (4, 30)))
    first = np.asarray(next(iter(forms.values()))(ids))
    for name, answer in forms.items():
        print(f"{name}: max |delta logit| {np.abs(np.asarray(answer(ids)) - first).max():.1e}")


def measured(
    forms: dict[str, Answer], rounds: int
) -> dict[tuple[str, tuple[int, int]], list[float]]:
    """Texts per second in each round."""
    rates: dict[tuple[str, tuple[int, int]], list[float]] = {}
    for _ in range(rounds + 1):  # the first warms up
        for shape in SHAPES:
            ids = torch.full(shape, 7)
            for name, answer in forms.items():
                rates.setdefault((name, shape), []).append(_rate(answer, ids))
    return {key: found[1:] for key, found in rates.items()}


def in_pairs(before: Answer, after: Answer, shape: tuple[int, int]) -> list[float]:
    """Quartiles of the speedup of ``after``, from single runs of the two that alternate.

    A slow moment of the machine then affects both, which it need not do in turns of half a second.
    """
    ids = torch.full(shape, 7)
    found = []
    for number in range(PAIRS):
        seconds = {}
        for answer in (before, after) if number % 2 else (after, before):
            began = time.perf_counter()
            answer(ids)
            seconds[answer] = time.perf_counter() - began
        found.append(seconds[before] / seconds[after])
    return statistics.quantiles(found, n=4)


def _rate(answer: Answer, ids: torch.Tensor) -> float:
    done = 0
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < SECONDS:
        answer(ids)
        done += len(ids)
    return done / passed


def _session(path: Path, threads: int, without: Sequence[str] = ()) -> Answer:
    """A session on a graph; ``without`` are the optimizers to disable."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin between runs would take cores from the form being measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=without
    )
    return lambda ids: session.run(None, {"input_ids": ids.numpy()})[0]


if __name__ == "__main__":
    main()

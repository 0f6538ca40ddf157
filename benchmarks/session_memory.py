"""Memory and load time of a model's sessions, with and without ONNX's external data.

    python -m benchmarks.session_memory [--layers 12] [--rounds 5]

A model of the shape of RoBERTa-base with random weights, in float32 and int8, each as one file
(bundle format 1) and with its weights in a separate file (format 2), as one session and as the two
that share the cores. Each measurement is a new process: it loads the sessions, runs 4 x 12 tokens
in each, returns freed memory to the system, and reads its memory use from Linux. In PSS, a page
shared by n processes counts as 1/n.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from benchmarks.shapes import checks, classifier
from fastai_deploy.learner.rebuild.onnx_export import export_onnx
from fastai_deploy.learner.rebuild.quantize import quantize

FIGURES = ("load s", "RSS MB", "PSS MB", "private MB", "peak RSS MB")
CHILD = """
import json, sys, time
from pathlib import Path
import numpy as np
from fastai_deploy.runtime.bundle import Bundle, Form
from fastai_deploy.runtime.hardware import Hardware, trim_memory
from fastai_deploy.runtime.parity import REDUCED
from fastai_deploy.runtime.session import open_session

path, count = Path(sys.argv[1]), int(sys.argv[2])
beside = path.name + ".data"
form = Form("fp32", path.name, beside if path.with_name(beside).exists() else None)
bundle = Bundle(path.parent, "n", "1", ("a",), None, (), 512, False, 1, ("input_ids",), "logits",
                (form,), form, REDUCED, REDUCED)
began = time.perf_counter()
sessions = [open_session(bundle, Hardware(2, None), threads, alone=True)
            for threads in (2, 1)[:count]]
loaded = time.perf_counter() - began
for session in sessions:
    session.run(None, {"input_ids": np.full((4, 12), 7)})
trim_memory()
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
(highest,) = [int(line.split()[1]) / 1024 for line in Path("/proc/self/status").open()
              if line.startswith("VmHWM")]
print(json.dumps([loaded, found["Rss"], found["Pss"],
                  found["Private_Clean"] + found["Private_Dirty"], highest]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        forms = made(Path(name), options.layers)
        found: dict[tuple[str, str, int], list[list[float]]] = {}
        for _ in range(options.rounds):
            for count in (1, 2):
                for (form, layout), path in forms.items():
                    found.setdefault((form, layout, count), []).append(measured(path, count))
    print(f"{options.rounds} rounds, load {os.getloadavg()[0]:.1f}; medians (minimum to maximum)")
    print(f"| | sessions | weights | {' | '.join(FIGURES)} |")
    for (form, layout, count), rows in found.items():
        cells = [
            f"{statistics.median(row):.{digits}f} ({min(row):.{digits}f} to {max(row):.{digits}f})"
            for digits, row in zip((2, 0, 0, 0, 0), zip(*rows, strict=True), strict=True)
        ]
        print(f"| {form} | {count} | {layout} | {' | '.join(cells)} |")


def made(folder: Path, layers: int) -> dict[tuple[str, str], Path]:
    """The graphs by form and layout."""
    model = classifier(layers=layers)
    graph = export_onnx(model, folder / "float32.onnx", checks(model))
    quantize(graph.path, folder / "int8.onnx")
    forms = {}
    for form in ("float32", "int8"):
        whole = folder / "whole" / f"{form}.onnx"
        whole.parent.mkdir(exist_ok=True)
        onnx.save(onnx.load(folder / f"{form}.onnx"), whole)
        forms[form, "in the graph"] = whole
        forms[form, "beside it"] = folder / f"{form}.onnx"
    return forms


def measured(path: Path, count: int) -> list[float]:
    """The figures of a new process."""
    command = [sys.executable, "-c", CHILD, str(path), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: list[float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    main()

"""The local model server compared with the bare ONNX session that it wraps.

    python -m benchmarks.serving_local MODEL_DIR [--rounds 5] [--seconds 3]

MODEL_DIR is an unpacked artifact. ``--build`` first writes one there, in the shape of RoBERTa-base
with random weights, fused attention and dynamic int8. Each round measures the bare session and then
the server, so that other work on the machine affects both; the table shows medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import load
from benchmarks.roberta_base import write_roberta_base
from fastai_deploy.runtime.bundle import open_bundle
from fastai_deploy.runtime.hardware import detect, plan_threads
from fastai_deploy.runtime.session import open_session

LENGTHS = (12, 92)  # tokens, special ones included
CLIENTS = (1, 8)
OVERLOAD_CLIENTS = 80
BARE_BATCHES = (1, 8)
WORD = "the "


def main() -> None:
    options = parse_arguments()
    if options.build:
        write_roberta_base(options.model_dir)
    bundle = open_bundle(options.model_dir)
    hardware = detect()
    threads = options.threads or plan_threads(hardware).threads
    session = open_session(bundle, hardware, threads, alone=options.alone)
    server, port = start_server(options)
    try:
        rounds = [
            measure_round(session, bundle.inputs, port, options) for _ in range(options.rounds)
        ]
        memory = resident_megabytes(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    print_table(rounds, memory)


def measure_round(
    session: Any, inputs: tuple[str, ...], port: int, options: argparse.Namespace
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for length in LENGTHS:
        for batch in BARE_BATCHES:
            figures[f"bare {length} x{batch}"] = bare_rate(
                session, inputs, batch, length, options.seconds
            )
        for clients in CLIENTS:
            met = closed_loop(port, clients, length, options.seconds)
            figures[f"server {length} c{clients}"] = met.rate
            figures[f"p50 {length} c{clients}"] = met.percentile(50) or math.nan
            figures[f"p95 {length} c{clients}"] = met.percentile(95) or math.nan
    met = closed_loop(port, OVERLOAD_CLIENTS, LENGTHS[0], options.seconds)
    figures["overload"] = met.rate
    figures["overload refused"] = met.statuses[HTTPStatus.SERVICE_UNAVAILABLE] / met.seconds
    return figures


def bare_rate(
    session: Any, inputs: tuple[str, ...], batch: int, length: int, seconds: float
) -> float:
    """Texts per second in a loop of nothing but ``session.run``."""
    feed = {name: np.ones((batch, length), dtype=np.int64) for name in inputs}
    session.run(None, feed)
    runs = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        session.run(None, feed)
        runs += 1
    return runs * batch / (time.perf_counter() - started)


def closed_loop(port: int, clients: int, length: int, seconds: float) -> load.Load:
    """Load the server with clients that send a request when the last is answered or rejected."""
    requests = load.requests_of([(WORD * (length - 2)).strip()], "/invocations")
    return load.closed_loop(port, requests, clients, seconds, least=1, most=seconds)


def start_server(options: argparse.Namespace) -> tuple[subprocess.Popen[bytes], int]:
    with tempfile.TemporaryDirectory() as folder:
        announced = Path(folder) / "announced"
        command = [sys.executable, "-m", "fastai_deploy.runtime.server"]
        command += ["--model-dir", str(options.model_dir), "--announce", str(announced)]
        for name in ("threads", "workers"):
            if getattr(options, name):
                command += [f"--{name}", str(getattr(options, name))]
        if options.alone:
            command.append("--alone")
        started = time.perf_counter()
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not announced.exists():
            if server.poll() is not None:
                sys.exit(f"the server exited with {server.returncode}")
            time.sleep(0.01)
        print(f"start to ready: {time.perf_counter() - started:.2f} s")
        return server, int(json.loads(announced.read_text())["port"])


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process; Linux only, else 0."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def print_table(rounds: list[dict[str, float]], memory: float) -> None:
    middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    print(f"{os.cpu_count()} CPUs, {len(rounds)} rounds, medians; texts/s, ms")
    print(f"{'':<22} {'server':>8} {'bare':>8} {'ratio':>6} {'p50':>8} {'p95':>8}")
    for length in LENGTHS:
        for clients, batch in zip(CLIENTS, BARE_BATCHES, strict=True):
            server, bare = f"server {length} c{clients}", f"bare {length} x{batch}"
            ratio = statistics.median(each[server] / each[bare] for each in rounds)
            print(
                f"{length:3d} tokens, {clients} clients {middle[server]:10.1f} {middle[bare]:8.1f} "
                f"{ratio:6.2f} {middle[f'p50 {length} c{clients}']:8.1f} "
                f"{middle[f'p95 {length} c{clients}']:8.1f}"
            )
        overhead = middle[f"p50 {length} c1"] - 1000 / middle[f"bare {length} x1"]
        print(
            f"{length:3d} tokens, overhead of a single request beyond the model: {overhead:.2f} ms"
        )
    peak = statistics.median(each["overload"] / each[f"server {LENGTHS[0]} c8"] for each in rounds)
    print(
        f"{OVERLOAD_CLIENTS} clients without a pause: {middle['overload']:.1f} answered, "
        f"{middle['overload refused']:.1f} rejected per second; {peak:.2f} of 8 clients' throughput"
    )
    print(f"resident memory of the server: {memory:.0f} MB")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--alone", action="store_true", help="the server has the machine to itself")
    return parser.parse_args()


if __name__ == "__main__":
    main()

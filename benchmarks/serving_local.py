"""The local model server compared with the bare ONNX sessions that it wraps.

    python -m benchmarks.serving_local MODEL_DIR [--build minilm] [--rounds 5] [--seconds 3]

MODEL_DIR is an unpacked artifact. ``--build`` first writes one there with random weights, fused
attention and dynamic int8. The texts are words of reviews, and tokenizing them is part of the work.

"Bare" is the best loop over the same sessions that does nothing but ``run``, in batches as the
server can form them: with 8 clients, runs of 8 texts on all cores, or two concurrent runs of 4 with
a core each, whichever is faster. The client runs on the same cores. Its share is shown, because no
server can have it. Each round measures the bare sessions and then the server, so that other work on
the machine affects both; the table shows medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks import load
from benchmarks.shapes import SHAPES, reviews, write_bundle
from fastai_deploy.runtime.bundle import open_bundle
from fastai_deploy.runtime.hardware import detect, plan_threads
from fastai_deploy.runtime.session import open_session


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    process: subprocess.Popen[bytes]
    port: int


LENGTHS = (12, 92)  # tokens, special ones included
CLIENTS = (1, 8)
OVERLOAD_CLIENTS = 80
TEXTS = 16


def main() -> None:
    options = parse_arguments()
    if options.build:
        write_bundle(options.model_dir, SHAPES[options.build])
    bundle = open_bundle(options.model_dir)
    hardware = detect()
    threads = options.threads or plan_threads(hardware).threads
    sessions = [
        open_session(bundle, hardware, each, alone=options.alone)
        for each in (threads, *[max(1, threads // 2)] * 2)
    ]
    tokenizer = Tokenizer.from_file(str(options.model_dir / "tokenizer.json"))
    texts = {length: texts_of(length, tokenizer) for length in LENGTHS}
    server = start_server(options)
    try:
        rounds = [
            measure_round(sessions, bundle.inputs, server, texts, options.seconds)
            for _ in range(options.rounds)
        ]
        memory = resident_megabytes(server.process.pid)
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
    print_table(rounds, memory)


def texts_of(length: int, tokenizer: Tokenizer) -> list[str]:
    """Texts of exactly so many tokens."""
    words = sorted({word for review in reviews() for word in review.lower().split()})
    chance = random.Random(length)  # noqa: S311  # the texts are not secret
    found: list[str] = []
    while len(found) < TEXTS:
        chosen: list[str] = []
        while (tokens := len(tokenizer.encode(" ".join(chosen)).ids)) != length:
            if tokens > length:
                del chosen[-3:]  # try other words
            chosen.append(chance.choice(words))
        found.append(" ".join(chosen))
    return found


def measure_round(
    sessions: Sequence[Any],
    inputs: tuple[str, ...],
    server: Server,
    texts: dict[int, list[str]],
    seconds: float,
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for length in LENGTHS:
        for clients in CLIENTS:
            figures[f"bare {length} c{clients}"] = bare_rate(
                sessions, inputs, clients, length, seconds
            )
            used = cpu_seconds(server.process.pid)
            met = closed_loop(server.port, clients, texts[length], seconds)
            figures[f"server {length} c{clients}"] = met.rate
            figures[f"cpu {length} c{clients}"] = (cpu_seconds(server.process.pid) - used) / (
                met.rate * seconds * (1 + load.WARM_UP)
            )
            figures[f"client {length} c{clients}"] = met.client
            figures[f"p50 {length} c{clients}"] = met.percentile(50) or math.nan
            figures[f"p95 {length} c{clients}"] = met.percentile(95) or math.nan
    met = closed_loop(server.port, OVERLOAD_CLIENTS, texts[LENGTHS[0]], seconds)
    figures["overload"] = met.rate
    figures["overload refused"] = met.statuses[HTTPStatus.SERVICE_UNAVAILABLE] / met.seconds
    return figures


def bare_rate(
    sessions: Sequence[Any], inputs: tuple[str, ...], texts: int, length: int, seconds: float
) -> float:
    """The most texts per second in loops of nothing but ``run``, for so many texts at a time."""
    whole, *parts = sessions
    ways = [[whole], [parts[0]]] if texts == 1 else [[whole], parts]
    return max(
        sum_of_rates(way, inputs, texts // len(way), length, seconds / len(ways)) for way in ways
    )


def sum_of_rates(
    sessions: Sequence[Any], inputs: tuple[str, ...], batch: int, length: int, seconds: float
) -> float:
    """Texts per second of concurrent loops, one for each session."""
    feed = {name: np.ones((batch, length), dtype=np.int64) for name in inputs}

    def rate(session: Any) -> float:
        session.run(None, feed)
        runs = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            session.run(None, feed)
            runs += 1
        return runs * batch / (time.perf_counter() - started)

    with ThreadPoolExecutor(len(sessions)) as threads:
        return sum(threads.map(rate, sessions))


def closed_loop(port: int, clients: int, texts: list[str], seconds: float) -> load.Load:
    """Load the server with clients that send a request when the last is answered or rejected."""
    requests = load.requests_of(texts, "/invocations")
    return load.closed_loop(port, requests, clients, seconds, least=1, most=seconds)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far; Linux only, else 0."""
    status = Path(f"/proc/{pid}/stat")
    if not status.exists():
        return 0.0
    user, system = status.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def start_server(options: argparse.Namespace) -> Server:
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
        return Server(server, int(json.loads(announced.read_text())["port"]))


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
    heads = ("server", "bare", "ratio (min to max)", "CPU ms", "client", "p50", "p95")
    print("{:22} {:>8} {:>8} {:>20} {:>7} {:>7} {:>8} {:>8}".format("", *heads))
    for length in LENGTHS:
        for clients in CLIENTS:
            load_of = f"{length} c{clients}"
            ratios = sorted(each[f"server {load_of}"] / each[f"bare {load_of}"] for each in rounds)
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(
                f"{length:3d} tokens, {clients} clients {middle[f'server {load_of}']:9.1f} "
                f"{middle[f'bare {load_of}']:8.1f} {spread:>20} "
                f"{1000 * middle[f'cpu {load_of}']:7.2f} {middle[f'client {load_of}']:7.2f} "
                f"{middle[f'p50 {load_of}']:8.1f} {middle[f'p95 {load_of}']:8.1f}"
            )
        overhead = middle[f"p50 {length} c1"] - 1000 / middle[f"bare {length} c1"]
        print(
            f"{length:3d} tokens, overhead of a single request beyond the model: {overhead:.2f} ms"
        )
    peak = statistics.median(each["overload"] / each[f"server {LENGTHS[0]} c8"] for each in rounds)
    print(
        f"{OVERLOAD_CLIENTS} clients without a pause: {middle['overload']:.1f} answered, "
        f"{middle['overload refused']:.1f} rejected per second; {peak:.2f} of 8 clients' throughput"
    )
    print("CPU ms: of the server, for a text. client: the cores that the load generator used.")
    print(f"resident memory of the server: {memory:.0f} MB")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--build", choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--alone", action="store_true", help="the server has the machine to itself")
    return parser.parse_args()


if __name__ == "__main__":
    main()

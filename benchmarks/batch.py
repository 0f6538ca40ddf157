"""``fdeploy batch`` beside a plain loop and ``fdeploy invoke FILE``, and on a million rows.

    python -m benchmarks.batch rates PROJECT [--rows 2000] [--rounds 5]
    python -m benchmarks.batch million PROJECT [--rows 1000000]

PROJECT is a folder in which ``fdeploy export`` has run; for ``rates`` also ``fdeploy deploy`` to
the local target. ``rates`` answers the same rows in three ways, in turns, with every model loaded:

    plain loop   one text after the other in one process, with all cores
    invoke       the endpoint's model server through HTTP, four requests at a time
    batch        the worker processes

``million`` runs the command as a user does, and looks at the memory of all its processes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil

from fastai_deploy.batch_invoke.job import Answering, BatchJob, Model, as_list, by_model, run_batch
from fastai_deploy.batch_invoke.local_model import open_model
from fastai_deploy.batch_invoke.places import LocalInput, LocalOutput
from fastai_deploy.batch_invoke.run import AskOptions, Remote
from fastai_deploy.bundle import read_manifest
from fastai_deploy.progress import silent
from fastai_deploy.project import Project, open_project
from fastai_deploy.records import Endpoint
from fastai_deploy.runtime.batch_worker import answered
from fastai_deploy.runtime.hardware import detect
from fastai_deploy.runtime.loading import load
from fastai_deploy.settings import load_settings

_SENTENCES = Path(__file__).parents[1] / "examples" / "quickstart" / "sentences.csv"
_MB = 1 << 20


class PlainLoop:
    """One text after the other."""

    rows = 256
    at_once = 1
    way = "plain loop"

    def __init__(self, bundle: Path, way: str) -> None:
        found = detect()
        self._predictor = load(bundle, found, found.cores, alone=True, only=way).predictor

    def ask(self, texts: Sequence[Any], top_k: int | None) -> bytes:
        """The answers to texts, each asked alone."""
        del top_k
        bodies = (json.dumps({"texts": [text]}).encode() for text in texts)
        return as_list([answered(self._predictor, body)[0] for body in bodies])

    def stop(self) -> None:
        """Nothing is in flight."""


def write_rows(path: Path, count: int) -> None:
    """Write a table of reviews of one to three sentences."""
    with _SENTENCES.open(encoding="utf-8", newline="") as file:
        sentences = [row["text"] for row in csv.DictReader(file)]
    chosen = random.Random(1)  # noqa: S311
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        for number in range(count):
            length = chosen.choice((1, 1, 1, 2, 3))
            writer.writerow([number, " ".join(chosen.choices(sentences, k=length))])


def project_in(folder: Path) -> Project:
    flags = {("project", "target"): ("--target", "local")}
    settings = load_settings(
        folder=folder, config=None, stage=None, environ=os.environ, flags=flags
    )
    return open_project(settings, silent)


def seconds(model: Model, bundle: Path, source: Path, folder: Path) -> float:
    """How long a batch takes with a model that is loaded."""
    manifest, version = read_manifest(bundle)
    answering = Answering(
        by_model(lambda _way: nullcontext(model)),
        manifest.labels,
        several=manifest.threshold is not None,
        version=str(version)[:12],
        by=model.way,
    )
    output = LocalOutput("out.csv", folder / "out.csv")
    job = BatchJob(LocalInput.open(str(source)), output, overwrite=True)
    return run_batch(job, answering, silent, time.perf_counter).seconds


def rates(folder: Path, count: int, rounds: int) -> None:
    project = project_in(folder)
    bundle = project.workspace.bundle
    endpoint = project.workspace.need(Endpoint)
    remote = Remote(
        AskOptions(
            lambda request: project.target.invoke(endpoint, request), time.sleep, limit=100_000
        )
    )
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "in.csv")
        write_rows(source, count)
        with open_model(bundle, project.workspace.environments, silent) as workers:
            ways: Mapping[str, Model] = {
                "plain loop": PlainLoop(bundle, workers.way),
                "invoke": remote,
                "batch": workers,
            }
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(rounds + 1):
                for name, model in ways.items():
                    found = seconds(model, bundle, source, Path(place))
                    if turn:  # the first round warms up
                        taken[name].append(found)
            print(f"{count:,} rows, {rounds} rounds, {workers.at_once} workers, {workers.way}")
    for name, times in taken.items():
        ratios = [plain / own for plain, own in zip(taken["plain loop"], times, strict=True)]
        speed = count / statistics.median(times)
        print(
            f"{name:<12} {speed:9,.0f} rows/s   {statistics.median(ratios):5.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f}) the plain loop"
        )


def million(folder: Path, count: int) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source, output = Path(place, "in.csv"), Path(place, "out.csv")
        write_rows(source, count)
        print(f"{count:,} rows, {source.stat().st_size / _MB:,.0f} MB", flush=True)
        command = [sys.executable, "-m", "fastai_deploy", "batch", str(source), str(output)]
        began = time.perf_counter()
        with subprocess.Popen(
            [*command, "--json", "--target", "local"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None  # noqa: S101
            assert process.stdout is not None  # noqa: S101
            for line in process.stderr:
                event = json.loads(line)
                if event["event"] == "advanced":
                    at = f"{event['done']:,} of {event['total']:,}"
                elif event["event"] == "step":
                    at = event["message"].replace(place, "")
                else:
                    continue
                spent = time.perf_counter() - began
                print(f"{spent:7.1f} s  {memory(process.pid)}  {at}", flush=True)
            found = json.loads(process.stdout.read())["result"]
        with output.open(encoding="utf-8", newline="") as file:
            ids = sum(int(row["id"]) == number for number, row in enumerate(csv.DictReader(file)))
        print(f"{found['rows'] / found['seconds']:,.0f} rows/s; {ids:,} rows in order")


def memory(pid: int) -> str:
    """The resident memory of a process and of its children, in MB."""
    try:
        parent = psutil.Process(pid)
        children = [child.memory_info().rss // _MB for child in parent.children()]
        return f"{parent.memory_info().rss // _MB:5} MB, workers {children} MB"
    except psutil.Error:
        return "(ended)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("rates", "million"))
    parser.add_argument("project", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = options.project.absolute()
    if options.what == "rates":
        rates(folder, options.rows or 2_000, options.rounds)
    else:
        million(folder, options.rows or 1_000_000)


if __name__ == "__main__":
    main()

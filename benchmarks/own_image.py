"""The model server in a container of fdeploy's own image, against the same server without one.

    python -m benchmarks.own_image [--learner finetuned-2] [--form default] [--rounds 7]
    python -m benchmarks.own_image --learner roberta-base --form int8-ungated

Run it as root on Debian with debootstrap, runc, skopeo and umoci. It builds and pushes the image to
a registry of this process, has ``umoci`` unpack it, and runs it with ``runc`` on a read-only root
file system. Both servers run at the same time, and only one is asked: each round loads them
alternately, and the ratio is taken within each round. Starts alternate too. Both serve the same
form, so that int8 may be asked for where its answers do not pass fdeploy's gate.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.comparison.competitors import fdeploy_image, fdeploy_local
from benchmarks.comparison.competitors.base import MARK, Competitor
from benchmarks.comparison.environments import TOOLKIT, WORK
from benchmarks.comparison.figures import Figure
from benchmarks.comparison.ladder import alternating
from benchmarks.comparison.matrix import CLOSED, LEARNERS
from benchmarks.comparison.models import DEFAULT, FLOAT32, UNGATED_INT8, Model, prepare
from benchmarks.comparison.running import Server, serving
from fastai_deploy.bundle import read_manifest
from fastai_deploy.image.blobs import BlobStore
from fastai_deploy.image.build import Wanted, container_of, serving_image
from fastai_deploy.image.names import Destination
from fastai_deploy.packaging.artifact import needs_openvino
from tests.containers.own_image import debootstrap, put_base
from tests.registry import Registry, running_registry

_STARTS = 5


def main() -> None:
    options = _options()
    work = options.work.expanduser().resolve()
    fastai, form = TOOLKIT.make(work / "environments"), options.form
    model = prepare(options.learner, work / "models", fastai, form)
    manifest, _ = read_manifest(model.artifact(form, "local"))
    openvino = needs_openvino(manifest, container_of(fdeploy_image.MACHINE))
    with tempfile.TemporaryDirectory() as scratch, running_registry() as registry:
        put_base(registry, debootstrap(None))
        _times(registry, Path(scratch), openvino=openvino)
    fdeploy_image.prepare(model, Path(sys.executable))
    local = fdeploy_local.competitor("fdeploy-local", "fdeploy (local)", "", form)
    pair = (local, fdeploy_image.competitor(form))
    _starts(pair, model)
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(each, model, Path(sys.executable))) for each in pair]
        rates = {
            cell: alternating(servers, model, cell, options.rounds, options.seconds)
            for cell in CLOSED
        }
        sizes = [_memory(server) for server in servers]
    print(f"\n{'':<14} {'container':>24} {'without':>24} {'ratio, by round':>22}")
    for cell, (without, inside) in rates.items():
        pairs = zip(inside, without, strict=True)
        ratios = Figure(tuple(a / b if b else math.nan for a, b in pairs))
        print(f"{cell.name:<14} {Figure(inside)!s:>24} {Figure(without)!s:>24} {ratios!s:>22}")
    print(f"memory after that (PSS): container {sizes[1]:.0f} MB, without {sizes[0]:.0f} MB")


def _times(registry: Registry, folder: Path, *, openvino: bool) -> None:
    """Seconds to build and push with an empty cache and a full one, and the bytes beside the base.

    The wheels are downloaded before.
    """
    name = f"{registry.address}/library/python:3.13-slim"
    to = Destination(registry.address, "fdeploy/demo", "AWS", "secret", insecure=True)
    store = BlobStore(folder / "cache")
    for what in ("cold", "warm"):
        began = time.perf_counter()
        image = serving_image(
            name,
            Wanted(fdeploy_image.MACHINE, openvino),
            lambda _: None,
            store=store,
            record=folder / "base-image.json",
        )
        image.push(to)
        print(f"build and push, {what} cache: {time.perf_counter() - began:.1f} s")
    built = image.build()
    own = sum(layer.size for layer in built.layers[1:])
    print(f"bytes beside the base: {own:,}; of the base: {built.layers[0].size:,}")


def _starts(pair: tuple[Competitor, ...], model: Model) -> None:
    seconds: dict[str, list[float]] = {each.name: [] for each in pair}
    for _ in range(_STARTS):
        for each in pair:
            with serving(each, model, Path(sys.executable)) as server:
                seconds[each.name].append(server.seconds)
    for name, found in seconds.items():
        shown = ", ".join(f"{each:.2f}" for each in sorted(found))
        print(f"start to first answer, {name}: {statistics.median(found):.2f} s ({shown})")


def _memory(server: Server) -> float:
    """The proportional set size of a server, in MB."""
    sizes = [int(each.memory_full_info().pss) for each in _processes(server)]
    return sum(sizes) / 1e6


def _processes(server: Server) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(MARK) == str(server.folder):
            yield process


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_image")
    parser.add_argument("--learner", default=LEARNERS[0], choices=LEARNERS)
    parser.add_argument("--form", default=DEFAULT, choices=(DEFAULT, FLOAT32, UNGATED_INT8))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--work", type=Path, default=WORK, help="as of benchmarks.comparison")
    return parser.parse_args()


if __name__ == "__main__":
    main()

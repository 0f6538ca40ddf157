"""The model in a Lambda function: package, cold start and warm answers, by share of a processor.

    python -m benchmarks.lambda_start NAME=BUNDLE ... [--rounds 7] [--memory 1769] [--write FILE]

Each bundle is packed as ``fdeploy deploy --lambda`` packs it, and its zip is unpacked. A process of
Python 3.13 then runs the function's handler with the events of API Gateway, in a cgroup that gives
it the share of a processor that a function of that memory has: 0.29, 0.5, 1 and 2 cores for 512,
885, 1769 and 3538 MB. A share that this machine does not have is left out. All cases take turns, so
that a busy moment affects them alike. Needs Linux, root, cgroups and Python 3.13.

``--write`` writes the table from which ``plan``, ``doctor`` and ``cost`` estimate the time of a
model: ``fastai_deploy/aws/function_speed.toml``. A name may be given twice, for two forms.

Not measured: what AWS does before the process starts (the download of the package), its runtime
client, and the network. A model that does not fit into the package is read from a local S3.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastai_deploy.bundle import read_manifest
from fastai_deploy.interpreters import find_python
from fastai_deploy.packaging.artifact import packed_forms, serving_versions, write_artifact
from fastai_deploy.packaging.function_zip import FunctionPackage, build_function_package
from fastai_deploy.packaging.served_model import served_model
from fastai_deploy.packaging.wheels import FUNCTION, default_cache, fetch
from fastai_deploy.runtime.hosts.lambda_function import CORE_MB, STORED_VARIABLE

MEMORY = (512, 885, 1_769, 3_538)  # MB
PERIOD = 20_000  # microseconds
WARM = 20  # requests
TEXT = "a great film with a very good story, and i would watch it again with all of you tonight"
# Run by the function's Python: the times since the process was started, which it is given.
DRIVER = """
import json, os, sys, time
began = float(sys.argv[1])
import fdeploy_runtime.hosts.lambda_function as function
init = time.time() - began
event = {"httpMethod": "POST", "resource": "/classify", "path": "/classify",
         "headers": {"content-type": "application/json"}, "body": json.dumps({"text": sys.argv[2]}),
         "requestContext": {"requestId": "bench"}, "isBase64Encoded": False}
sys.stdout = open(os.devnull, "w")
first = function.handler(event, None)
answered = time.time() - began
predictor = function._model().load()
handled, alone = [], []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    function.handler(event, None)
    middle = time.perf_counter()
    predictor.predict([sys.argv[2]])
    handled.append(middle - start)
    alone.append(time.perf_counter() - middle)
import resource
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(json.dumps({"status": first["statusCode"], "init": init, "first": answered, "memory": memory,
                  "warm": handled, "model": alone}), file=sys.stderr)
"""


@dataclass(frozen=True)
class Case:
    """A model in a share of a processor."""

    name: str
    form: str
    parameters: int
    package: FunctionPackage
    artifact: Path
    task: Path
    memory: int

    @property
    def share(self) -> float:
        """The cores that a function of the memory has."""
        return self.memory / CORE_MB


@dataclass
class Measured:
    """The rounds of a case; times in seconds."""

    first: list[float]
    init: list[float]
    warm: list[float]
    overhead: list[float]
    memory: int = 0


def packed(
    name: str, bundle: Path, folder: Path, python: Path, sizes: Sequence[int]
) -> Iterator[Case]:
    """The cases of a bundle, whose package is built and unpacked."""
    versions = serving_versions(bundle, FUNCTION)
    wheels = fetch(FUNCTION, versions, cache=default_cache(), notify=print)
    place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    artifact, task = place / "model.tar.gz", place / "task"
    write_artifact(
        bundle,
        artifact,
        name=name,
        notify=lambda _done, _total: None,
        container=FUNCTION,
        wheels=wheels,
    )
    package = build_function_package(artifact, place / "function.zip", {}, python=python)
    with zipfile.ZipFile(package.path) as archive:
        archive.extractall(task)
    (form,) = packed_forms(read_manifest(bundle)[0], FUNCTION)
    served = served_model(bundle)
    if served is None:
        raise SystemExit(f"{bundle} is no bundle")
    print(
        f"{name:<14} {form.precision:<6} zip {package.bytes / 1e6:6.1f} MB, unpacked "
        f"{package.unpacked / 1e6:6.1f} MB{', reads the model from S3' * package.reads}"
    )
    for memory in sizes:
        yield Case(name, form.precision, served.parameters, package, artifact, task, memory)


@contextlib.contextmanager
def cores(share: float) -> Iterator[Any]:
    """A function for a new process, which moves it into a group with so much of a processor."""
    group = Path("/sys/fs/cgroup/cpu") / f"fdeploy-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD)))
        yield lambda: (group / "tasks").write_text(str(os.getpid()))
    finally:
        group.rmdir()


class _Bucket(http.server.BaseHTTPRequestHandler):
    """GetObject of one object by ranges, as the function asks S3 for them."""

    def __init__(self, artifact: Path, *arguments: Any) -> None:
        self.artifact = artifact
        super().__init__(*arguments)

    def do_GET(self) -> None:
        first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
        with self.artifact.open("rb") as file:
            file.seek(int(first))
            data = file.read(int(last) + 1 - int(first))
        self.send_response(206)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Nothing."""


@contextlib.contextmanager
def bucket(case: Case) -> Iterator[dict[str, str]]:
    """The variables with which the function reads its model; none if that is packed."""
    if not case.package.reads:
        yield {}
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Bucket, case.artifact))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield {
            STORED_VARIABLE: "s3://bucket/model.tar.gz",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class DoesNotFit(Exception):
    """The function refuses to load the model into its memory."""


def run(case: Case, python: Path, beside: str) -> dict[str, Any]:
    """One start of a function, its first answer and warm ones; ``beside`` has botocore.

    Raises DoesNotFit.
    """
    with tempfile.TemporaryDirectory() as scratch, bucket(case) as variables:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, (str(case.task), beside))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": scratch,
            "AWS_LAMBDA_FUNCTION_NAME": "bench",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(case.memory),
            "FDEPLOY_ENDPOINT": "bench",
            **variables,
        }
        with cores(case.share) as confined:
            done = subprocess.run(
                [str(python), "-S", "-c", DRIVER, str(time.time()), TEXT, str(WARM)],
                env=environ,
                cwd=case.task,
                capture_output=True,
                text=True,
                check=False,
                preexec_fn=confined,
            )
    if done.returncode:
        if "MB are available" in done.stderr:
            raise DoesNotFit(f"{case.name} {case.form} does not fit into {case.memory} MB")
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    if found["status"] != HTTPStatus.OK:
        raise SystemExit(done.stdout)
    return found


def fits(case: Case, python: Path, beside: str) -> bool:
    """Whether a model can be loaded; the first run also reads its files from the disk."""
    try:
        run(case, python, beside)
    except DoesNotFit as error:
        print(error)
        return False
    return True


def table(cases: Sequence[Case], found: Mapping[int, Measured]) -> str:
    """The measured models as function_speed.toml has them."""
    rows: dict[tuple[str, str, int], dict[int, Measured]] = {}
    for at, case in enumerate(cases):
        rows.setdefault((case.name, case.form, case.parameters), {})[case.memory] = found[at]
    lines = [
        "# How fast models answer in a function, by its memory in MB; 1,769 MB are one core. Times",
        "# are of the warm handler for one text of 20 words in ms, and of the first answer after a",
        "# cold start in s. Written by: python -m benchmarks.lambda_start ... --write THIS_FILE",
        "",
        f'measured = "{datetime.now(timezone.utc):%Y-%m-%d}"',
        f'machine = "{processor()}, {os.cpu_count()} cores"',
    ]
    for (name, form, parameters), by_memory in sorted(rows.items(), key=lambda row: row[0][1:]):
        warm = {size: statistics.median(of.warm) * 1e3 for size, of in by_memory.items()}
        first = {size: statistics.median(of.first) for size, of in by_memory.items()}
        lines += [
            *("", "[[models]]", f'name = "{name}"', f'precision = "{form}"'),
            f"parameters = {parameters}",
            f"warm_ms = {_inline(warm, 1)}",
            f"first_s = {_inline(first, 2)}",
        ]
    return "\n".join(lines) + "\n"


def _inline(values: Mapping[int, float], digits: int) -> str:
    pairs = ", ".join(f"{size} = {value:.{digits}f}" for size, value in sorted(values.items()))
    return f"{{ {pairs} }}"


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    return "unknown processor"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundles", nargs="+", metavar="NAME=BUNDLE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=int, nargs="+", default=MEMORY)
    parser.add_argument("--write", type=Path, help="the file to write the table to")
    options = parser.parse_args()
    sizes = [each for each in options.memory if each <= CORE_MB * (os.cpu_count() or 1)]
    for size in set(options.memory) - set(sizes):
        print(f"{size} MB: this machine has only {os.cpu_count()} cores")
    python = find_python(FUNCTION.python)
    if python is None:
        raise SystemExit(f"this needs Python {FUNCTION.python}")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as libraries:
        cases = [
            case
            for each in options.bundles
            for name, _, bundle in [each.partition("=")]
            for case in packed(name, Path(bundle).expanduser(), Path(folder), python, sizes)
        ]
        beside = ""
        if any(case.package.reads for case in cases):  # Lambda's Python has botocore
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
            subprocess.run([*pip, "--target", libraries, "botocore"], check=True)
            subprocess.run([python, "-m", "compileall", "-q", libraries], check=False)
            beside = libraries
        cases = [case for case in cases if fits(case, python, beside)]
        found: dict[int, Measured] = {at: Measured([], [], [], []) for at in range(len(cases))}
        for _ in range(options.rounds):
            for at, case in enumerate(cases):
                once = run(case, python, beside)
                measured = found[at]
                measured.init.append(once["init"])
                measured.first.append(once["first"])
                measured.warm += once["warm"]
                measured.overhead.append(
                    statistics.median(once["warm"]) - statistics.median(once["model"])
                )
                measured.memory = max(measured.memory, once["memory"])
    if options.write:
        options.write.write_text(table(cases, found))
    print(
        f"\n{'':<14} {'form':<6} {'MB':>5} {'init s':>7} {'first answer s (min, max)':>26} "
        f"{'warm p50':>9} {'p95 ms':>7} {'overhead':>9} {'MB':>5}"
    )
    for at, case in enumerate(cases):
        of = found[at]
        first = statistics.median(of.first)
        spread = f"{first:.2f} ({min(of.first):.2f}, {max(of.first):.2f})"
        quantiles = statistics.quantiles(of.warm, n=20)
        print(
            f"{case.name:<14} {case.form:<6} {case.memory:>5} {statistics.median(of.init):>7.2f} "
            f"{spread:>26} {statistics.median(of.warm) * 1e3:>9.1f} {quantiles[-1] * 1e3:>7.1f} "
            f"{statistics.median(of.overhead) * 1e3:>9.2f} {of.memory:>5}"
        )


if __name__ == "__main__":
    main()

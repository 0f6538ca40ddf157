"""The overhead of the public API: the handler, the local gateway, the Lambda package.

    python -m benchmarks.gateway_local [--requests 300]

The model server does no work, so only the overhead is measured. Times are wall clock; each line
gives the median and the 95th percentile in ms.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from fastai_deploy.packaging.lambda_zip import build_lambda_package
from fastai_deploy.runtime.gateway.endpoint import Endpoint, GatewaySettings
from fastai_deploy.runtime.gateway.gateway import Gateway
from fastai_deploy.targets.local.gateway.config import GatewayConfig, new_key
from fastai_deploy.targets.local.gateway.requests import HttpRequest, rest_event
from fastai_deploy.targets.local.gateway.sagemaker_runtime import (
    SageMakerRuntimeConfig,
    serve_sagemaker_runtime,
)
from fastai_deploy.targets.local.processes import Server
from tests.gateway.aws_events import rest
from tests.gateway.lambda_runtime import function

GATEWAY = "fastai_deploy.targets.local.gateway"
BODY = b'{"text": "the plot is thin but I loved it"}'
ANSWER = b'{"label":"positive","score":0.98,"probabilities":{"positive":0.98,"negative":0.02}}'
WARM_UP = 20
LOAD = """
import sys, time
sys.path.insert(0, sys.argv[1])
begun, worked = time.perf_counter(), time.process_time()
{}
print(time.perf_counter() - begun, time.process_time() - worked)
"""


class Model(BaseHTTPRequestHandler):
    """A model server that returns a fixed answer at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        """Return the fixed answer."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
        """Say nothing."""


class NoRuntime:
    """The endpoint's client without the network."""

    def invoke_endpoint(self, **_request: Any) -> dict[str, Any]:
        """Answer at once."""
        return {"Body": io.BytesIO(ANSWER)}


def serve_model(announce: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    partial = announce.with_suffix(".partial")
    partial.write_bytes(Server.of("model server", os.getpid(), server.server_port).encode())
    partial.replace(announce)
    server.serve_forever()


@contextmanager
def process(*arguments: str, announce: Path) -> Iterator[int]:
    """Run a server in its own process; yields its port."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL) as server:
        try:
            while not announce.exists():
                if server.poll() is not None:
                    raise SystemExit("a server exited while starting")
                time.sleep(0.02)
            yield int(json.loads(announce.read_bytes())["port"])
        finally:
            server.terminate()


def timed(action: Callable[[], object], count: int) -> list[float]:
    """The time of each call, in ms."""
    times = []
    for number in range(count + WARM_UP):
        begun = time.perf_counter()
        action()
        if number >= WARM_UP:
            times.append((time.perf_counter() - begun) * 1_000)
    return times


def requests(port: int, path: str, headers: dict[str, str], count: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> None:
        connection.request("POST", path, BODY, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        if (response.status, response.read()) != (200, ANSWER):
            raise SystemExit(f"answered {response.status}")

    try:
        return timed(ask, count)
    finally:
        connection.close()


def report(what: str, times: list[float]) -> None:
    ordered = sorted(times)
    middle, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    print(f"{what:<48} {middle:8.2f} {high:8.2f}")


def measure_requests(folder: Path, count: int) -> None:
    state, key_file, config = folder / "endpoint.json", folder / "key", folder / "gateway.json"
    key_file.write_text(new_key())
    gateway_config = GatewayConfig(
        "bench-dev", str(state), (str(key_file),), rate=10_000, burst=5_000
    )
    config.write_bytes(gateway_config.encode())
    announce = folder / "announce.json"
    arguments = ("-m", GATEWAY, "--config", str(config), "--announce", str(announce))
    with ExitStack() as stack:
        model = stack.enter_context(
            process("-m", "benchmarks.gateway_local", "--model", str(state), announce=state)
        )
        gateway = stack.enter_context(process(*arguments, announce=announce))
        key = {"x-api-key": key_file.read_text()}
        report("model server, 1 client", requests(model, "/invocations", {}, count))
        report("local gateway, 1 client", requests(gateway, "/classify", key, count))
        for port, path, headers, what in (
            (model, "/invocations", {}, "model server"),
            (gateway, "/classify", key, "local gateway"),
        ):
            begun = time.perf_counter()
            with ThreadPoolExecutor(8) as clients:
                runs = [clients.submit(requests, port, path, headers, count // 8) for _ in range(8)]
                times = [each for run in runs for each in run.result()]
            seconds = time.perf_counter() - begun
            per_second = 8 * (count // 8 + WARM_UP) / seconds
            report(f"{what}, 8 clients ({per_second:.0f} requests/s)", times)


def measure_handler(count: int) -> None:
    event = rest_event(
        HttpRequest(
            method="POST",
            path="/classify",
            query="",
            headers=(("content-type", "application/json"), ("host", "x")),
            body=BODY,
            source_ip="127.0.0.1",
            http_version="1.1",
            request_id="bench",
            key_id="bench",
            stage="dev",
            arrived=datetime.now(timezone.utc),
        )
    )
    settings = GatewaySettings("bench-dev")
    gateway = Gateway(Endpoint(NoRuntime(), settings.endpoint), settings, log=io.StringIO())
    report("handler alone", timed(lambda: gateway.handle(event), count))


def measure_start(folder: Path, runs: int = 5) -> None:
    archive = folder / "lambda.zip"
    archive.write_bytes(build_lambda_package())
    with zipfile.ZipFile(archive) as package:
        package.extractall(folder / "task")
    print(f"package: {archive.stat().st_size} bytes")
    environ = {"PATH": os.defpath, "AWS_DEFAULT_REGION": "us-east-1", "FDEPLOY_ENDPOINT": "e"}
    for what, code, more in (
        ("import of botocore.exceptions alone", "import botocore.exceptions", {}),
        ("import of the handler, without the client", "import fdeploy_runtime.gateway", {}),
        (
            "import of the handler as in Lambda, with the client",
            "import fdeploy_runtime.gateway",
            {"AWS_LAMBDA_FUNCTION_NAME": "bench"},
        ),
        ("import of boto3, for comparison", "import boto3", {}),
    ):
        times = [
            subprocess.run(
                [sys.executable, "-c", LOAD.format(code), str(folder / "task")],
                env={**environ, **more},
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            for _ in range(runs)
        ]
        report(what, [float(wall) * 1_000 for wall, _ in times])
        report("  CPU time", [float(work) * 1_000 for _, work in times])


def measure_lambda(folder: Path, count: int, runs: int = 5) -> None:
    """The Lambda package under AWS's own runtime client: cold start, then warm."""
    state = folder / "lambda-endpoint.json"
    environ = {"FDEPLOY_ENDPOINT": "bench-dev"}
    event = rest('{"text": "the plot is thin but I loved it"}')
    began, first, cold = [], [], []
    with (
        process("-m", "benchmarks.gateway_local", "--model", str(state), announce=state),
        serve_sagemaker_runtime(SageMakerRuntimeConfig("bench-dev", state, "LAMBDAROLE")) as url,
    ):
        environ["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = url
        for run in range(runs):
            home = folder / f"lambda-{run}"
            home.mkdir()
            begun = time.perf_counter()
            with function(build_lambda_package(), home, environ, home / "log") as runtime:
                began.append((time.perf_counter() - begun) * 1_000)
                asked = time.perf_counter()
                kind, answer = runtime.invoke(event)
                first.append((time.perf_counter() - asked) * 1_000)
                if (kind, answer["statusCode"]) != ("response", 200):
                    raise SystemExit(f"answered {kind} {answer}")
                cold.append(worked(runtime.pid))
                if run == runs - 1:
                    warm = timed(lambda: runtime.invoke(event), count)
                    each = (worked(runtime.pid) - cold[-1]) / (count + WARM_UP)
                    memory = psutil.Process(runtime.pid).memory_info().rss
    report("awslambdaric: process start until it polls for events", began)
    report("awslambdaric: first event (cold)", first)
    report("  CPU time of both", cold)
    report("awslambdaric: next events (warm)", warm)
    print(f"{'  CPU time of each':<48} {each:8.2f}")
    print(f"awslambdaric: {memory / 1e6:.0f} MB of memory after {count} events")


def worked(pid: int) -> float:
    """CPU time that a process has used, in ms."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system) * 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        serve_model(options.model)
        return
    with tempfile.TemporaryDirectory() as name:
        print(f"{'':<48} {'median':>8} {'p95':>8}  ms")
        measure_start(Path(name))
        measure_handler(options.requests)
        measure_lambda(Path(name), options.requests)
        measure_requests(Path(name), options.requests)


if __name__ == "__main__":
    main()

"""Start the image's own server on an unpacked artifact, as the image does."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psutil

from fastai_deploy.packaging.container_files import BACKEND_URL
from fastai_deploy.runtime.telemetry import SWITCHES
from tests.containers.families import Family

PORT = 8080
_TORCHSERVE = "from sagemaker_pytorch_serving_container import serving; serving.main()"
_FUNCTIONS = """\
import json, sys
sys.path.insert(0, sys.argv[1] + "/code")
import inference
model = inference.model_fn(sys.argv[1])
answer = lambda text: inference.output_fn(inference.predict_fn(inference.input_fn(
    json.dumps({"text": text}), "application/json"), model), "*/*", None)[0]
print(json.dumps([json.loads(answer(text)) for text in json.load(sys.stdin)]))
"""
# A GPU's operators, on the processor: no GPU is at hand.
_ON_GPU = """\
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder / "code"))
from fdeploy_runtime.vendored import add_to_path
add_to_path(folder / "code")
from fdeploy_runtime.hardware import detect
from fdeploy_runtime.loading import load
from fdeploy_runtime.backends import Gpu
import torch
loaded = load(folder, detect(), 2, find=lambda: Gpu("torch " + torch.__version__, "cpu", False))
print(json.dumps([loaded.way, loaded.skipped, loaded.goldens, loaded.deviation]))
"""
_CONTAINER = Path(__file__).with_name("ray_container.sh")
MODEL_SERVER, REPLICA = "model_server.py", "ServeReplica"
_WORKERS = {
    "torchserve": "model_service_worker",
    "ray-serve": MODEL_SERVER,
    "fdeploy": "fdeploy_runtime.hosts.container",
}


class Server:
    """A server and everything that it started."""

    def __init__(self, family: Family, process: subprocess.Popen[bytes], base: Path) -> None:
        self._family = family
        self._process = process
        self._base = base
        self._logs = (base / "server.log", base / "logs")
        self._began = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    @property
    def alive(self) -> bool:
        """Whether its first process is still there."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything that it and its workers wrote."""
        files = [
            file for path in self._logs for file in (path.rglob("*") if path.is_dir() else [path])
        ]
        return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())

    @property
    def tail(self) -> str:
        """The last of it."""
        return self.log[-2_000:]

    def worker(self) -> psutil.Process:
        """The process that holds the model."""
        return self.process(_WORKERS[self._family.server])

    def process(self, named: str) -> psutil.Process:
        """A process of this server, whose HOME is its folder, by a part of its command line."""
        found = self.find(named)
        assert found is not None, f"there is no {named}"
        return found

    def find(self, named: str) -> psutil.Process | None:
        """The process, if there is one."""
        for process in psutil.process_iter():
            if not _is_of(process, self._base):
                continue
            with suppress(psutil.Error):
                if named in " ".join(process.cmdline()):
                    return process
        return None


@contextmanager
def start(
    family: Family, python: Path, base: Path, variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The server of a family; every process of it is ended with the block.

    ``variables`` replace those of the model's environment.
    """
    log = base / "server.log"
    commands: Mapping[str, list[str]] = {
        "torchserve": [str(python), "-c", _TORCHSERVE],
        "ray-serve": [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", str(_CONTAINER))
        ],
        "fdeploy": ["runc", "run", "--bundle", str(base / "container"), f"fdeploy-{os.getpid()}"],
    }
    environment: Mapping[str, str] = {
        "torchserve": _torchserve(base),
        "ray-serve": _ray(python, base),
        "fdeploy": {},
    }[family.server]
    with log.open("wb") as output:
        process = subprocess.Popen(
            commands[family.server],
            cwd=base / "model",
            env={
                "PATH": f"{python.parent}:{os.environ['PATH']}",
                "HOME": str(base),
                "FDEPLOY_VERSION": "container",
                **SWITCHES,
                **environment,
                **(variables or {}),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Server(family, process, base)
        finally:
            _end(process, base)


def _torchserve(base: Path) -> dict[str, str]:
    return {
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_BIND_TO_PORT": str(PORT),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "LOG_LOCATION": str(base / "logs"),
        "METRICS_LOCATION": str(base / "metrics"),
        "PYTHONPATH": f"{base / 'model'}:{base / 'model' / 'code'}",
    }


def _ray(python: Path, base: Path) -> dict[str, str]:
    return {
        "BASE": str(base),
        "APP": str(base / "app"),
        "VENV": str(python.parents[1]),
        "RAYSERVE_BACKEND_URL": BACKEND_URL,
        "RAYSERVE_BACKEND_TIMEOUT": "60",
        "RAY_worker_niceness": "0",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
        "RAY_raylet_start_wait_time_s": "300",
    }


def functions_answer(python: Path, base: Path, texts: list[str]) -> list[Any]:
    """What the toolkit's four functions answer, in a Python of the image's version."""
    return _said(python, _FUNCTIONS, base, json.dumps(texts))


def way_on_gpu(python: Path, base: Path) -> list[Any]:
    """How the image's torch computes the model, and how far it is off: way, passed over, ..."""
    return _said(python, _ON_GPU, base, "")


def _said(python: Path, program: str, base: Path, given: str) -> list[Any]:
    done = subprocess.run(
        [python, "-c", program, str(base / "model")],
        input=given,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return cast("list[Any]", json.loads(done.stdout))


def _is_of(process: psutil.Process, base: Path) -> bool:
    """Whether a process was started, by whatever way, by the server of this folder."""
    try:
        return bool(process.environ().get("HOME") == str(base))
    except psutil.Error:
        return False


def _end(process: subprocess.Popen[bytes], base: Path) -> None:
    """End the server and what it left behind."""
    process.kill()
    process.wait()
    left = [other for other in psutil.process_iter() if _is_of(other, base)]
    for other in left:
        with suppress(psutil.Error):
            other.kill()
    psutil.wait_procs(left, timeout=20)

"""The model on this machine: worker processes that answer requests through pipes.

    texts -> an idle worker (python -m fdeploy_runtime.batch_worker) -> answers

There is a worker for each core, because several small runs that do not wait for each other answer
more texts a second than one run on all cores; fewer, with more threads each, if their models would
not fit into memory. The first worker measures which backend is the fastest, and the others take the
same one, so that every row is answered by the same.
"""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import runtime
from fastai_deploy.bundle import read_manifest
from fastai_deploy.environments import clean_environment
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import InvocationError, ServerDied, need_extra
from fastai_deploy.progress import Reporter, Step, Warned
from fastai_deploy.runtime.hardware import detect
from fastai_deploy.targets.local.endpoint import interpreter

_MODULE = "fdeploy_runtime.batch_worker"
_ROWS = 256  # of a request; texts of similar length share a run of the model
# Memory of a worker: Python with its libraries, and the model twice (see runtime.backends).
_WORKER = 200 << 20
_LEARNER_WORKER = 1_500 << 20  # torch and fastai
_LOADED = 2
_SHARE = 0.7  # of the memory
_ENDING = 10.0  # seconds
_SHOWN = 500  # characters


@dataclass(frozen=True)
class Plan:
    """How many processes, with how many threads each."""

    workers: int
    threads: int


def plan(cores: int, memory: int | None, per_worker: int) -> Plan:
    """A process for each core, as far as they fit into memory; the cores are shared evenly."""
    fitting = cores if memory is None else int(memory * _SHARE) // per_worker
    workers = max(1, min(cores, fitting))
    return Plan(workers, max(1, cores // workers))


class LocalModel:
    """The model of a bundle. ``way`` is the backend, the fastest one if it is None.

    ``python`` runs the workers. Use it as a context: leaving it ends the workers.
    """

    rows = _ROWS

    def __init__(
        self, bundle: Path, python: Path, planned: Plan, report: Reporter, *, way: str | None = None
    ) -> None:
        self.at_once = planned.workers
        self.way = way or ""
        self._bundle = bundle
        self._python = python
        self._plan = planned
        self._report = report
        self._folder = tempfile.TemporaryDirectory(prefix="fdeploy-")
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def __enter__(self) -> LocalModel:  # noqa: PYI034 - Self is not in Python 3.10
        # The artifact and the learner's own Python know the runtime by this name.
        link = Path(self._folder.name) / "fdeploy_runtime"
        link.symlink_to(Path(str(runtime.__file__)).parent)
        processes = "1 process" if self.at_once == 1 else f"{self.at_once} processes"
        self._report(Step(f"loading the model in {processes}, which check its goldens first"))
        try:
            first = self._start(self.way or None)
            ready = first.ready()
            if self.way and ready["way"] != self.way:
                self._report(Warned(f"the earlier rows were answered with {self.way}"))
            self.way = str(ready["way"])
            self._report(Step(f"answering with {self.way}"))
            self._idle.put(first)
            for _ in range(1, self.at_once):
                self._idle.put(self._start(self.way))
        except BaseException:
            self.stop()
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        for worker in self._workers:
            worker.end()
        self._folder.cleanup()

    def ask(self, texts: Sequence[Any], top_k: int | None) -> bytes:
        """Answer texts, as a JSON list. Raises ServerDied or InvocationError."""
        request: dict[str, Any] = {"texts": list(texts)}
        if top_k is not None:
            request["top_k"] = top_k
        body = json.dumps(request).encode()
        worker = self._idle.get()
        try:
            worker.ready()
            answers = worker.ask(body)
        finally:
            self._idle.put(worker)
        if not answers.startswith(b"["):
            raise InvocationError(
                f"the model refused a request: {answers[:_SHOWN].decode(errors='replace')}",
                hint="this is a bug in fdeploy: report it",
            )
        return answers.rstrip(b"\n")

    def stop(self) -> None:
        """End the workers at once; requests in flight fail."""
        for worker in self._workers:
            worker.kill()

    def _start(self, way: str | None) -> _Worker:
        number = len(self._workers) + 1
        command = [str(self._python), "-m", _MODULE, "--model-dir", str(self._bundle)]
        command += ["--threads", str(self._plan.threads)]
        if way is not None:
            command += ["--way", way]
        worker = _Worker(command, Path(self._folder.name), f"worker-{number}.log")
        self._workers.append(worker)
        return worker


class _Worker:
    """One process."""

    def __init__(self, command: Sequence[str], folder: Path, log: str) -> None:
        self._log = folder / log
        self._ready: dict[str, Any] | None = None
        environment = {
            **clean_environment(),
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        with self._log.open("wb") as log_file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                cwd=folder,
                env=environment,
            )

    def ready(self) -> dict[str, Any]:
        """Wait until the model is loaded. Raises ServerDied."""
        if self._ready is None:
            self._ready = json.loads(self._line())
        return self._ready

    def ask(self, body: bytes) -> bytes:
        """Send a request and return its answer. Raises ServerDied."""
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(body + b"\n")
                pipe.flush()
        except OSError:
            raise self._died() from None
        return self._line()

    def end(self) -> None:
        """Close its input, which ends it, and wait for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not sent yet, to a process that is gone
                    continue
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()

    def _line(self) -> bytes:
        pipe = self._process.stdout
        line = pipe.readline() if pipe is not None else b""
        if not line.endswith(b"\n"):
            raise self._died()
        return line

    def _died(self) -> ServerDied:
        code = self._process.wait()
        lines = self._log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1][:_SHOWN] if lines else f"status {code}"
        if code < 0:
            return ServerDied(
                f"a model process was ended by signal {-code}; the system may be out of memory",
                hint="free some memory, then run the same command again to continue",
            )
        return ServerDied(f"the model cannot be used: {reason}", hint="run fdeploy export")


def open_model(
    bundle: Path, environments: Path, report: Reporter, *, way: str | None = None
) -> LocalModel:
    """The model of a bundle, in as many processes as this machine can run.

    Raises FileError, ExtraMissing, or RuntimeUnproven without a learner's own environment.
    """
    manifest, _ = read_manifest(bundle)
    if manifest.runtime is None:
        need_extra("local", "numpy", "onnxruntime", "tokenizers")
    python = interpreter(bundle, Environments(environments, report))
    largest = max((path.stat().st_size for path in bundle.iterdir() if path.is_file()), default=0)
    own = _WORKER if manifest.runtime is None else _LEARNER_WORKER
    found = detect()
    planned = plan(found.cores, found.memory, own + _LOADED * largest)
    return LocalModel(bundle, python, planned, report, way=way)

"""The local endpoint: an unpacked artifact in a model server process.

Artifacts are stored by content: ``store/<sha256>/model.tar.gz``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.bundle.manifest import LOCK, REQUIREMENTS
from fastai_deploy.environments import clean_environment
from fastai_deploy.environments.requirements import read_requirements
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import FileError, FileMissing, InvocationError, need_extra
from fastai_deploy.json_reader import Reader, read_object
from fastai_deploy.packaging.artifact import unpack
from fastai_deploy.parity import Json, Verify
from fastai_deploy.progress import Advanced, Reporter, Step
from fastai_deploy.records import Endpoint, StoredArtifact
from fastai_deploy.runtime.host_check import CLIENTS_VARIABLE
from fastai_deploy.runtime.log import LOG_VARIABLE
from fastai_deploy.settings import ApiSettings
from fastai_deploy.targets.base import Route
from fastai_deploy.targets.local.client import LOOPBACK, post
from fastai_deploy.targets.local.gateway.config import PROBE_ID
from fastai_deploy.targets.local.processes import (
    Processes,
    Server,
    ServerSpec,
    read_server,
)

_HASH = re.compile("[0-9a-f]{64}")
_INVOCATIONS = "/invocations"


class Store:
    """The artifact store in ``folder``."""

    def __init__(self, folder: Path, report: Reporter) -> None:
        self._folder = folder
        self._report = report

    def path(self, sha256: str) -> Path:
        """The path of the artifact with this hash. Raises FileError for an invalid hash."""
        if not _HASH.fullmatch(sha256):
            raise FileError(
                f"{sha256[:80]!r} is not the SHA-256 of an artifact", hint="run fdeploy upload"
            )
        return self._folder / sha256 / "model.tar.gz"

    def has(self, sha256: str, size: int) -> bool:
        """Whether the artifact exists with this size; :meth:`checked` verifies its content."""
        return files.size_of(self.path(sha256)) == size

    def put(self, source: Path, sha256: str, size: int) -> Path:
        """Copy an artifact into the store, verifying its hash. Raises FileError if it differs."""
        path = self.path(sha256)
        digest = hashlib.sha256()
        done = 0
        with files.reading(source) as reader, files.replacing(path) as copy:
            while chunk := reader.read(files.CHUNK):
                digest.update(chunk)
                copy.write(chunk)
                done += len(chunk)
                self._report(Advanced("upload", done, size))
            if digest.hexdigest() != sha256:
                raise FileError(
                    f"{source} is not the artifact that fdeploy package wrote: its hash differs",
                    hint="run fdeploy package",
                )
        return path

    def checked(self, sha256: str) -> Path:
        """The path of the artifact, after verifying its hash. Raises FileError."""
        path = self.path(sha256)
        try:
            found = files.sha256(path)
        except FileMissing:
            raise FileMissing(
                f"the stored artifact {sha256[:12]} is gone", hint="run fdeploy upload"
            ) from None
        if found != sha256:
            raise FileError(
                f"the stored artifact {sha256[:12]} is damaged: its hash differs",
                hint=f"remove {path.parent} and run fdeploy upload",
            )
        return path


def interpreter(model: Path, environments: Environments) -> Path:
    """The running Python, or for a learner's original pickle one with its pinned packages.

    Raises RuntimeUnproven if that environment cannot be created, and FileError.
    """
    manifest = read_object(model / "manifest.json", "run fdeploy package")
    if not manifest.has("runtime"):
        return Path(sys.executable)
    requirements = read_requirements(model / REQUIREMENTS)
    python = manifest.section("runtime").text("python")
    return environments.interpreter(python, requirements, model / LOCK)


KIND = "model server"
MODULE = "fdeploy_runtime.server"
_DEPLOY = "run fdeploy deploy"
_INVOKE_SECONDS = 60.0  # as long as InvokeEndpoint waits


class LocalEndpoint:
    """The model server of one stage, below ``home``.

    ``interpreter`` returns the Python for an unpacked artifact; ``api`` has the allowed hosts and
    origins. ``state`` is the file that names the live server: its process, port and version. The
    gateway reads it on every request, so that it follows a deploy.
    """

    def __init__(
        self,
        name: str,
        home: Path,
        processes: Processes,
        report: Reporter,
        interpreter: Callable[[Path], Path],
        *,
        api: ApiSettings,
    ) -> None:
        self._name = name
        self._home = home
        self._processes = processes
        self._report = report
        self._interpreter = interpreter
        self._clients = {"hosts": list(api.allowed_hosts), "origins": list(api.cors_origins)}
        self._models = home / "models"
        self.state = home / "endpoint.json"
        self.log = home / "endpoint.log"
        self._starting_log = home / "endpoint.starting.log"

    def deploy(
        self, stored: StoredArtifact, store: Store, *, timeout: float, verify: Verify
    ) -> Endpoint:
        """Serve the artifact; ``timeout`` is in seconds. Raises DeployError or ParityError."""
        need_extra("local", "httptools", "numpy", "onnxruntime", "tokenizers", "uvicorn")
        version = stored.version
        live = self._serving(version)
        if live is not None:
            self._report(Step(f"version {version} is already live; verifying it again"))
            verify(lambda request: self._ask(live, request, probe=True))
            return self._endpoint(live.port, stored)

        before = self._processes.running(KIND)
        artifact = store.checked(stored.sha256)
        folder = files.new_folder(self._models, f"{version}-")
        try:
            endpoint = self._start(stored, artifact, folder, timeout, verify)
        except BaseException:
            self._processes.stop(
                [each for each in self._processes.running(KIND) if each not in before], grace=0
            )
            with contextlib.suppress(FileError):
                files.remove_tree(folder)
                if not before:  # otherwise fdeploy logs keeps showing the live server's log
                    files.rename(self._starting_log, self.log)
            raise
        self._processes.stop(before)
        for other in files.names_in(self._models):
            if other != folder.name:
                files.remove_tree(self._models / other)
        return endpoint

    def invoke(self, request: Json) -> Json:
        """Send a request to the live model server. Raises InvocationError, also if none runs."""
        return self._ask(self._live(), request)

    def route(self) -> Route:
        """The route to the live model server. Raises InvocationError if none runs."""
        server = self._live()
        self._check(server)
        url = f"http://{LOOPBACK}:{server.port}{_INVOCATIONS}"
        return Route(url, lambda _body: {}, lambda: self._check(server))

    def live_version(self) -> str:
        """The version of the live server; empty if none runs. Raises FileError."""
        try:
            server, state = self._state()
        except FileMissing:
            return ""
        return state.text("version") if self._processes.holds(server) else ""

    def recorded_version(self) -> str:
        """The version of the last server, which may have ended, as by a reboot; empty without one.

        Raises FileError.
        """
        try:
            _, state = self._state()
        except FileMissing:
            return ""
        return state.text("version")

    @property
    def clients_changed(self) -> bool:
        """Whether the live server's allowed hosts or origins differ from the settings."""
        try:
            _, state = self._state()
        except FileMissing:
            return True
        return bool(state.value.get("clients") != self._clients)

    def live_unproven(self) -> bool:
        """Whether some answers of the live version are unproven. Raises FileError."""
        try:
            _, state = self._state()
        except FileMissing:
            return False
        return state.value.get("unproven") is True

    def _start(
        self,
        stored: StoredArtifact,
        artifact: Path,
        folder: Path,
        timeout: float,
        verify: Verify,
    ) -> Endpoint:
        version = stored.version
        self._report(Step(f"unpacking version {version}"))
        unpack(artifact, folder)
        self._report(Step("starting the model server, which checks its goldens first"))
        announce = folder / "announce.json"
        server = self._processes.start(
            ServerSpec(
                kind=KIND,
                command=(
                    *(str(self._interpreter(folder)), "-m", MODULE),
                    *("--model-dir", str(folder), "--announce", str(announce)),
                ),
                environment={
                    **clean_environment(),
                    "PYTHONPATH": str(folder / "code"),
                    "FDEPLOY_VERSION": version,
                    CLIENTS_VARIABLE: json.dumps(self._clients),
                    LOG_VARIABLE: str(self.log),
                },
                log=self._starting_log,
                announce=announce,
                timeout=timeout,
            )
        )
        endpoint = self._endpoint(server.port, stored)
        self._report(Step(f"the model server is running at {endpoint.url}"))
        verify(lambda request: self._ask(server, request, probe=True))
        files.rename(self._starting_log, self.log)
        state = {
            "name": self._name,
            "version": version,
            "unproven": stored.unproven,
            "clients": self._clients,
            **asdict(server),
        }
        files.write(self.state, json.dumps(state).encode())
        return endpoint

    def _ask(self, server: Server, request: Json, *, probe: bool = False) -> Json:
        """Send a request to a server after checking that it holds the connection.

        ``probe``: it is one of fdeploy's own checks, and has an ID that says so in the log.
        """
        return post(
            f"http://{LOOPBACK}:{server.port}{_INVOCATIONS}",
            request,
            headers={"x-request-id": f"{PROBE_ID}{secrets.token_hex(8)}"} if probe else {},
            timeout=_INVOKE_SECONDS,
            peer=lambda: self._check(server),
        )

    def _check(self, server: Server) -> None:
        """Raise InvocationError unless the server holds its port, so no other gets the text."""
        if not self._processes.holds(server):
            raise InvocationError(
                f"the model server (process {server.pid}, port {server.port}) is not running; "
                "nothing was sent",
                hint=_DEPLOY,
            )

    def _state(self) -> tuple[Server, Reader]:
        """The last live server. Raises FileMissing, or FileError if the file is damaged."""
        return read_server(self.state, f"{_DEPLOY}, which rewrites it")

    def _live(self) -> Server:
        """The live server. Raises InvocationError if none was started."""
        try:
            server, _ = self._state()
        except FileMissing:
            raise InvocationError("there is no model server", hint=_DEPLOY) from None
        return server

    def _serving(self, version: str) -> Server | None:
        """The live server if it responds and serves this version, else None."""
        try:
            server, _ = self._state()
            if self.clients_changed:
                return None
            answer = self._ask(server, {"text": "ready?"}, probe=True)
        except (FileError, InvocationError):
            return None
        return server if answer["model"]["version"] == version else None

    def _endpoint(self, port: int, stored: StoredArtifact) -> Endpoint:
        return Endpoint(
            target="local",
            name=self._name,
            url=f"http://{LOOPBACK}:{port}",
            version=stored.version,
            made_from=stored.sha256,
        )

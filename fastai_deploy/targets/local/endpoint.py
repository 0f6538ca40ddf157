"""The endpoint on this machine: an unpacked artifact in a model server process.

A deploy starts the new server beside the old one, asks it the goldens, and only then lets it take
the old one's place; a failed deploy leaves the old one serving.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.artifact import unpack
from fastai_deploy.errors import InvocationError
from fastai_deploy.extras import need_extra
from fastai_deploy.progress import Reporter, Step
from fastai_deploy.records import Endpoint, StoredArtifact
from fastai_deploy.settings import ApiSettings
from fastai_deploy.targets.base import Json, Verify
from fastai_deploy.targets.local.client import post
from fastai_deploy.targets.local.processes import (
    Processes,
    ServerSpec,
    clean_environment,
    read_announcement,
)
from fastai_deploy.targets.local.store import Store

MODULE = "fdeploy_runtime.server"
_INVOKE_SECONDS = 60.0  # as long as InvokeEndpoint waits


class LocalEndpoint:
    """The model server of one stage, below ``home``.

    ``interpreter`` gives the Python that an unpacked artifact is served with; ``api`` says which
    names the server has and whose pages may call it.
    ``state`` names the live server: its process, port and version. The gateway reads it on every
    request, so that it follows a deploy.
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

    def deploy(
        self, stored: StoredArtifact, store: Store, *, timeout: float, verify: Verify
    ) -> Endpoint:
        """Serve the artifact; ``timeout`` is in seconds. Raises DeployError or ParityError."""
        need_extra("local", "httptools", "numpy", "onnxruntime", "tokenizers", "uvicorn")
        version = stored.version
        live = self._live(version)
        if live is not None:
            self._report(Step(f"version {version} is live already; asking it again"))
            endpoint = self._endpoint(live, stored)
            verify(lambda request: self.invoke(endpoint, request))
            return endpoint

        before = self._processes.running(MODULE)
        artifact = store.checked(stored.sha256)
        with files.file_errors(self._models):
            self._models.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{version}-", dir=self._models))
        try:
            endpoint = self._start(stored, artifact, folder, timeout, verify)
        except BaseException:
            self._processes.stop(
                [p for p in self._processes.running(MODULE) if p not in before], grace=0
            )
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._processes.stop(before)
        for other in self._models.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return endpoint

    def invoke(self, endpoint: Endpoint, request: Json) -> Json:
        """Send a request to the model server. Raises InvocationError."""
        return post(f"{endpoint.url}/invocations", request, headers={}, timeout=_INVOKE_SECONDS)

    def live_version(self) -> str:
        """The version that the live server announced; empty where none runs."""
        if self._processes.alive(read_announcement(self.state)) is None:
            return ""
        return str(self._stated().get("version", ""))

    @property
    def clients_changed(self) -> bool:
        """Whether the live server answers other hosts or origins than the settings say."""
        return bool(self._stated().get("clients") != self._clients)

    def live_unproven(self) -> bool:
        """Whether not all answers of the live server's version are proven."""
        return self._stated().get("unproven") is True

    def _stated(self) -> dict[str, Any]:
        try:
            stated = json.loads(self.state.read_bytes())
        except (OSError, ValueError):
            return {}
        return stated if isinstance(stated, dict) else {}

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
        self._report(Step("starting the model server, which asks itself the goldens first"))
        announce = folder / "announce.json"
        server = self._processes.start(
            ServerSpec(
                name="model server",
                command=(
                    *(str(self._interpreter(folder)), "-m", MODULE),
                    *("--model-dir", str(folder), "--announce", str(announce)),
                    *("--log-file", str(self.log), "--check-host"),
                    *(f"--allow-host={host}" for host in self._clients["hosts"]),
                    *(f"--allow-origin={origin}" for origin in self._clients["origins"]),
                ),
                environment={
                    **clean_environment(),
                    "PYTHONPATH": str(folder / "code"),
                    "FDEPLOY_VERSION": version,
                },
                log=self.log,
                announce=announce,
                timeout=timeout,
            )
        )
        endpoint = self._endpoint(server.port, stored)
        self._report(Step(f"the model server is up at {endpoint.url}"))
        verify(lambda request: self.invoke(endpoint, request))
        state: dict[str, Any] = {
            "name": self._name,
            "pid": server.pid,
            "port": server.port,
            "version": version,
            "unproven": stored.unproven,
            "clients": self._clients,
        }
        files.write(self.state, json.dumps(state).encode())
        return endpoint

    def _live(self, version: str) -> int | None:
        """The port of the live server, if it runs, answers, and serves this version."""
        announcement = read_announcement(self.state)
        if announcement is None or self._processes.alive(announcement) is None:
            return None
        if self.clients_changed:
            return None
        try:
            answer = post(
                f"http://127.0.0.1:{announcement.port}/invocations",
                {"text": "ready?"},
                headers={},
                timeout=_INVOKE_SECONDS,
            )
        except InvocationError:
            return None
        return announcement.port if answer["model"]["version"] == version else None

    def _endpoint(self, port: int, stored: StoredArtifact) -> Endpoint:
        return Endpoint(
            target="local",
            name=self._name,
            url=f"http://127.0.0.1:{port}",
            version=stored.version,
            made_from=stored.sha256,
        )

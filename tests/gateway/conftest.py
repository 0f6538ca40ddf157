from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from fastai_deploy.targets.local.gateway.config import GatewayConfig, new_key
from tests.gateway.client import Client
from tests.gateway.servers import Server, echo

_START_SECONDS = 60
MODULE = "fastai_deploy.targets.local.gateway"


class GatewayProcess:
    """A gateway process, started as the local target starts it."""

    def __init__(
        self, folder: Path, config: GatewayConfig, key: str, environ: Mapping[str, str]
    ) -> None:
        self.key = key
        self.config = config
        self.announce = folder / "announce.json"
        self._log = folder / "gateway.log"
        config_file = folder / "gateway.json"
        config_file.write_bytes(config.encode())
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "error", "-m", MODULE),
                    *("--config", str(config_file), "--announce", str(self.announce)),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **environ},
                cwd=folder,
            )

    def await_ready(self) -> None:
        for _ in range(_START_SECONDS * 20):
            if self.announce.exists():
                return
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(self.log)
        raise AssertionError("the gateway was never ready")

    def end(self) -> int:
        """Terminate the process, and kill it only if that fails."""
        self.process.terminate()
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()

    @property
    def port(self) -> int:
        announced = json.loads(self.announce.read_bytes())
        assert announced["pid"] == self.process.pid
        return int(announced["port"])

    @property
    def log(self) -> str:
        return self._log.read_text()

    def client(self, key: str | None = None) -> Client:
        return Client(self.port, self.key if key is None else key)


class Start(Protocol):
    """Starts a gateway with some settings changed; it ends with the test."""

    def __call__(
        self, *, environ: Mapping[str, str] | None = None, **changes: Any
    ) -> GatewayProcess: ...


@contextmanager
def gateways(folder: Path, model: Server) -> Iterator[Start]:
    started: list[GatewayProcess] = []

    def start(*, environ: Mapping[str, str] | None = None, **changes: Any) -> GatewayProcess:
        home = folder / f"gateway-{len(started)}"
        home.mkdir()
        state, key_file = home / "endpoint.json", home / "key"
        state.write_bytes(model.state)
        key_file.write_text(new_key())
        settings: dict[str, Any] = {
            "endpoint": "demo-dev",
            "endpoint_state": str(state),
            "key_files": (str(key_file),),
            "rate": 10_000.0,
            "burst": 5_000,
            **changes,
        }
        config = GatewayConfig(**settings)
        gateway = GatewayProcess(home, config, key_file.read_text(), environ or {})
        started.append(gateway)
        gateway.await_ready()
        return gateway

    try:
        yield start
    finally:
        for gateway in started:
            if gateway.process.poll() is None:
                gateway.end()


@pytest.fixture(scope="module")
def shared_model() -> Iterator[Server]:
    with Server(echo).running() as server:
        yield server


@pytest.fixture
def model(shared_model: Server) -> Server:
    """A model server that answers with the text; a test may change what it does."""
    shared_model.script = echo
    shared_model.received.clear()
    return shared_model


@pytest.fixture(scope="module")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory, shared_model: Server
) -> Iterator[GatewayProcess]:
    with gateways(tmp_path_factory.mktemp("shared"), shared_model) as start:
        yield start(max_body=1_000, cors_origins=("https://app.example",), timeout_ms=20_000)


@pytest.fixture
def gateway(shared_gateway: GatewayProcess, model: Server) -> GatewayProcess:
    """A gateway with common settings in front of ``model``, shared by a file's tests."""
    assert model.script is echo
    return shared_gateway


@pytest.fixture
def start(tmp_path: Path, model: Server) -> Iterator[Start]:
    with gateways(tmp_path, model) as start:
        yield start

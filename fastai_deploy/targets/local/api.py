"""The local API: the real Lambda code behind a gateway process.

The key is in a file that only its owner can read, and never in a record, log or command line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from fastai_deploy import files
from fastai_deploy.api_docs.smoke_tests import Send, check_preflight, check_throttle
from fastai_deploy.environments import clean_environment
from fastai_deploy.errors import (
    DeployError,
    FileError,
    FileMissing,
    InvocationError,
    PortTaken,
    need_extra,
)
from fastai_deploy.parity import Json, Verify
from fastai_deploy.progress import Reporter, Step
from fastai_deploy.records import Api, Endpoint
from fastai_deploy.runtime.contract import OPENAPI, PAGE
from fastai_deploy.settings import ApiSettings
from fastai_deploy.targets.base import Route
from fastai_deploy.targets.local.client import LOOPBACK, post, send
from fastai_deploy.targets.local.gateway.config import PROBE, GatewayConfig, new_key
from fastai_deploy.targets.local.processes import (
    Processes,
    Server,
    ServerSpec,
)

KIND = "gateway"
MODULE = "fastai_deploy.targets.local.gateway"
_CREATE = "run fdeploy create-api"
_JSON = {"content-type": "application/json"}
_START_SECONDS = 30.0
_LONGEST_KEY = 128  # characters, as in API Gateway
_KEY = re.compile(rb"[!-~]{20,128}")


class LocalApi:
    """The gateway of one stage, below ``home``.

    ``state`` is the file that names the endpoint; ``package`` returns the current Lambda zip.
    """

    def __init__(
        self,
        stage: str,
        home: Path,
        state: Path,
        processes: Processes,
        report: Reporter,
        *,
        package: Callable[[], bytes],
    ) -> None:
        self._stage = stage
        self._home = home
        self._package = package
        self._state = state
        self._processes = processes
        self._report = report
        self._config = home / "gateway.json"
        self._announce = home / "gateway.announce.json"
        self._key = home / "key"
        self._proof_key = home / "proof-key"
        self.log = home / "gateway.log"

    def create(self, endpoint: Endpoint, settings: ApiSettings, verify: Verify) -> Api:
        """Start the gateway, or keep the running one if settings and labels are unchanged.

        Raises PortTaken, ServerDied, ParityError or InvocationError.
        """
        need_extra("local", "httptools", "uvicorn")
        if self._key.name not in files.names_in(self._home):
            files.write(self._key, new_key().encode(), mode=0o600)
        self.key()
        running = self.port
        config = self._wanted(endpoint.name, settings, port=settings.port or running or 0)
        if running and running == config.port and self._is_stored(config):
            self._report(Step("the gateway is already running"))
            api = self._api(endpoint, settings, running)
            with self._key_for_proof() as key:
                self._prove(api, settings, verify, key)
            return api
        with self._key_for_proof() as key:
            api = self._api(endpoint, settings, self._restart(config, running))
            self._prove(api, settings, verify, key)
            self._check_throttle(api, settings, key)
        return api

    def _api(self, endpoint: Endpoint, settings: ApiSettings, port: int) -> Api:
        base = f"http://{LOOPBACK}:{port}"
        return Api(
            target="local",
            url=self.url(port, settings),
            endpoint=endpoint.name,
            key_file=str(self._key),
            made_from=endpoint.name,
            document=f"{base}{OPENAPI}",
            page=f"{base}{PAGE}",
        )

    def rotate_key(self, api: Api) -> str:
        """Replace the key; the new one is valid at once and the old one no longer.

        Raises FileError, or DeployError if the gateway does not honour that.
        """
        before = self.key() if self._key.name in files.names_in(self._home) else ""
        key = new_key()
        files.write(self._key, key.encode(), mode=0o600)
        server = self._processes.serving(KIND)
        if server is not None:
            with self._key_for_proof() as proof:
                self._check_rotated(self._send(server, api, proof), key, before)
        return key

    def _check_rotated(self, send: Send, new: str, old: str) -> None:
        """Check that the new key is accepted and the old one refused. Raises DeployError."""
        for sent, refused in ((new, False), (old, True)):
            status = send("POST", {**_JSON, "x-api-key": sent}, b"[]").status
            if (status == http.HTTPStatus.FORBIDDEN) is not refused:
                raise DeployError(
                    f"the API answered {status} to the {'old' if refused else 'new'} key",
                    hint="run fdeploy create-api",
                )

    def call(self, api: Api, request: Json, proof: str = "") -> Json:
        """Send a request with the key, and only to the gateway; ``proof`` marks it as a check.

        Raises InvocationError, also if the gateway is not running, or FileMissing without a key.
        """
        server = self._recorded(api)
        return post(
            self._url_at(server, api),
            request,
            headers={"x-api-key": self.key(), **_marked(proof)},
            timeout=60.0,
            peer=lambda: self._check(server),
        )

    def address(self, api: Api) -> str:
        """The URL of the route. Raises InvocationError unless the gateway holds its port."""
        server = self._recorded(api)
        self._check(server)
        return self._url_at(server, api)

    def route(self, api: Api) -> Route:
        """The route to the gateway, with its key. Raises InvocationError or FileMissing."""
        server = self._recorded(api)
        headers = {"x-api-key": self.key()}
        return Route(self._url_at(server, api), lambda _body: headers, lambda: self._check(server))

    def _recorded(self, api: Api) -> Server:
        """The gateway that was started. Raises InvocationError without one."""
        server = self._processes.serving(KIND)
        if server is None:
            raise InvocationError(
                f"the gateway of {api.url} is not running; nothing was sent", hint=_CREATE
            )
        return server

    def key(self) -> str:
        """The key. Raises FileMissing if there is none, or FileError if it is not a valid key."""
        try:
            key = files.read(self._key, most=_LONGEST_KEY)
        except FileMissing:
            raise FileMissing(f"the API key file {self._key} is gone", hint=_CREATE) from None
        if not _KEY.fullmatch(key):
            raise FileError(
                f"{self._key} does not contain a valid API key",
                hint="run fdeploy key rotate, which writes a new one",
            )
        return key.decode()

    def _check(self, server: Server) -> None:
        """Raise InvocationError unless the gateway holds its port, so no other gets the key."""
        if not self._processes.holds(server):
            raise InvocationError(
                f"the gateway (process {server.pid}, port {server.port}) is not running; "
                "nothing was sent",
                hint=_CREATE,
            )

    def _url_at(self, server: Server, api: Api) -> str:
        """The URL of the route on the gateway's current port."""
        return f"http://{LOOPBACK}:{server.port}{urlsplit(api.url).path}"

    def _restart(self, config: GatewayConfig, running: int | None) -> int:
        """Replace the running gateway with a new one; return its port."""
        if config.port not in (0, running) and taken(config.port):
            raise PortTaken(
                f"port {config.port} of {LOOPBACK} is in use",
                hint="choose another with --port, or 0 for a free one",
            )
        self._processes.stop(self._processes.running(KIND))
        files.write(self._config, config.encode())
        self._report(Step("starting the gateway"))
        server = self._processes.start(
            ServerSpec(
                kind=KIND,
                command=(
                    *(sys.executable, "-m", MODULE),
                    *("--config", str(self._config), "--announce", str(self._announce)),
                ),
                environment=clean_environment(),
                log=self.log,
                announce=self._announce,
                timeout=_START_SECONDS,
            )
        )
        files.write(self._config, replace(config, port=server.port).encode())
        return server.port

    def pending(self, endpoint: str, settings: ApiSettings) -> Literal["add", "change"] | None:
        """What :meth:`create` would do: start a gateway, replace it, or nothing."""
        if self.port is None:
            return "add"
        config = self._wanted(endpoint, settings, port=settings.port or self.port)
        return None if config.port == self.port and self._is_stored(config) else "change"

    def url(self, port: int, settings: ApiSettings) -> str:
        """The URL of the route."""
        return f"http://{LOOPBACK}:{port}{settings.route}"

    @property
    def port(self) -> int | None:
        """The port of the running gateway; None if it is not running."""
        server = self._processes.serving(KIND)
        return server.port if server else None

    def _is_stored(self, config: GatewayConfig) -> bool:
        return _content(self._config) == config.encode()

    def _stored_package(self) -> Path:
        """Write the package to a file named after its hash."""
        package = self._package()
        path = self._home / f"lambda-{hashlib.sha256(package).hexdigest()[:12]}.zip"
        if _content(path) != package:
            files.write(path, package)
        return path

    def _wanted(self, endpoint: str, settings: ApiSettings, port: int) -> GatewayConfig:
        return GatewayConfig(
            endpoint=endpoint,
            endpoint_state=str(self._state),
            key_files=(str(self._key), str(self._proof_key)),
            route=settings.route,
            port=port,
            stage=self._stage,
            rate=settings.rate,
            burst=settings.burst,
            quota=settings.quota,
            max_body=settings.max_body,
            timeout_ms=round(settings.timeout * 1000),
            cors_origins=settings.cors_origins,
            allowed_hosts=settings.allowed_hosts,
            log_file=str(self.log),
            package=str(self._stored_package()),
            page=True,
        )

    def _check_keyless(self, send: Send) -> None:
        """Check that a request without a key is refused."""
        body = json.dumps({"text": "no key"}).encode()
        status = send("POST", _JSON, body).status
        if status != http.HTTPStatus.FORBIDDEN:
            raise DeployError(
                f"the API answered {status} instead of 403 to a request without a key",
                hint="run fdeploy teardown, then fdeploy up",
            )

    def _running(self) -> Server:
        """The running gateway. Raises InvocationError if it has exited."""
        server = self._processes.serving(KIND)
        if server is None:
            raise InvocationError("the gateway exited while it was checked", hint=_CREATE)
        return server

    def _send(self, server: Server, api: Api, proof: str) -> Send:
        """A function that sends requests to the gateway, marked as checks."""
        url = self._url_at(server, api)
        return lambda method, headers, body: send(
            url,
            method,
            {**headers, **_marked(proof)},
            body,
            timeout=_START_SECONDS,
            peer=lambda: self._check(server),
        )

    def _prove(self, api: Api, settings: ApiSettings, verify: Verify, proof: str) -> None:
        """Check the goldens through the API, the refusal without a key, and CORS."""
        verify(lambda request: self.call(api, request, proof))
        self._check_keyless(self._send(self._running(), api, proof))
        check_preflight(
            self._send(self._running(), api, proof), settings.cors_origins, self._report
        )

    def _check_throttle(self, api: Api, settings: ApiSettings, key: str) -> None:
        """Check that requests above the rate limit are refused."""
        ask = self._send(self._running(), api, key)
        check_throttle(
            lambda method, headers, body: ask(method, {**headers, "x-api-key": key}, body),
            rate=settings.rate,
            burst=settings.burst,
            at_once=8,
            report=self._report,
        )

    @contextlib.contextmanager
    def _key_for_proof(self) -> Iterator[str]:
        """A temporary key. It marks checks, and takes the load of the throttle's."""
        key = new_key()
        files.write(self._proof_key, key.encode(), mode=0o600)
        try:
            yield key
        finally:
            files.remove(self._proof_key)


def _marked(proof: str) -> dict[str, str]:
    """The header that marks a request as a check."""
    return {PROBE: proof} if proof else {}


def _content(path: Path) -> bytes | None:
    """The content of a file; None if it cannot be read."""
    try:
        return files.read(path)
    except FileError:
        return None


def taken(port: int) -> bool:
    """Whether a port of this machine is in use."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return error.errno in (errno.EADDRINUSE, errno.EACCES)
    return False

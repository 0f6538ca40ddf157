"""The local target: the artifact in a model server process, and the Lambda behind a gateway.

.fdeploy/<stage>/local/
    store/<sha256>/model.tar.gz         the stand-in for the bucket
    models/<version>-<random>/          the unpacked artifact that a server serves
    endpoint.json  endpoint.log         the live server and its log
    gateway.json   gateway.log          the gateway's settings and its log
    servers/<token>.json                each started server: process, start time, port
    lambda-<hash>.zip                   the Lambda package, as it would be uploaded
    deployments.jsonl                   the deployed versions
    key                                 the API key, readable only by its owner
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import NoReturn

import psutil

from fastai_deploy import files
from fastai_deploy.api_docs.lambda_documents import lambda_package
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import FileMissing, UsageError
from fastai_deploy.naming import endpoint_name
from fastai_deploy.parity import Json, Verify
from fastai_deploy.progress import Reporter, Step
from fastai_deploy.records import Api, Artifact, Deployed, Endpoint, StoredArtifact, Teardown
from fastai_deploy.settings import Settings
from fastai_deploy.targets.base import Claim, Route
from fastai_deploy.targets.local.api import LocalApi
from fastai_deploy.targets.local.endpoint import LocalEndpoint, Store, interpreter
from fastai_deploy.targets.local.processes import Processes
from fastai_deploy.workspace import parsed


class History:
    """The history of deploys, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, stored: StoredArtifact, now: datetime) -> None:
        """Add a version unless it is already the newest. Raises FileError."""
        listed = self._read()
        if listed and listed[-1].sha256 == stored.sha256:
            return
        deployed = Deployed.of(stored, now, _user())
        lines = [json.dumps(asdict(each)) for each in (*listed, deployed)]
        files.write(self._path, ("\n".join(lines) + "\n").encode())

    def newest_first(self) -> list[Deployed]:
        """Each version once, by its last deploy. Raises FileError for a damaged file."""
        found: dict[str, Deployed] = {}
        for deployed in reversed(self._read()):
            found.setdefault(deployed.version, deployed)
        return list(found.values())

    def _read(self) -> list[Deployed]:
        try:
            lines = files.read(self._path).split(b"\n")
        except FileMissing:
            return []
        return [self._deployed(at, line) for at, line in enumerate(lines, 1) if line.strip()]

    def _deployed(self, number: int, line: bytes) -> Deployed:
        where = f"{self._path}, line {number}"
        hint = f"remove that line or {self._path}; the running servers are not affected"
        return parsed(Deployed, line, where, hint)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "somebody"


class LocalTarget:
    """Serves one stage of a project from ``home``, on the loopback address only."""

    name = "local"

    def __init__(
        self,
        settings: Settings,
        home: Path,
        report: Reporter,
        *,
        bundle: Path,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._settings = settings
        self._home = home
        self._report = report
        self._now = now
        self._processes = Processes(self._home, clock=clock, sleep=sleep)
        self._store = Store(self._home / "store", report)
        name = endpoint_name(settings.project_name, settings.stage)
        environments = Environments(self._home.parent.parent / "environments", report)
        self.endpoint = LocalEndpoint(
            name,
            self._home,
            self._processes,
            report,
            lambda model: interpreter(model, environments),
            api=settings.sections.api,
        )
        self.api = LocalApi(
            settings.stage,
            self._home,
            self.endpoint.state,
            self._processes,
            report,
            package=lambda: lambda_package(settings, bundle, target=self.name),
        )
        self.history = History(self._home / "deployments.jsonl")

    def claim(self, *, creates: bool) -> Claim:  # noqa: ARG002 - as every target has it
        """The stage is in the project's own folder, so it is this project's."""
        return Claim(self._settings.sections.project.id or "")

    def check_access(self) -> None:
        """Nothing to check: a local deploy needs no credentials."""

    def container(
        self,
        packaged: Artifact | None = None,
        *,
        decides: bool = False,
        pull: bool = False,
    ) -> None:
        """None: the model server runs in this Python, which has the required packages."""

    def upload(self, artifact: Artifact) -> StoredArtifact:
        """Copy the artifact into the store, unless it is already there, and verify it."""
        if self._store.has(artifact.sha256, artifact.bytes):
            path = self._store.checked(artifact.sha256)
            self._report(Step(f"version {artifact.version} is already stored"))
        else:
            path = self._store.put(Path(artifact.path), artifact.sha256, artifact.bytes)
        return StoredArtifact.of(artifact, self.name, path.as_uri())

    def artifact_of(self, sha256: str) -> Path:
        """The path of a stored artifact, after verifying its hash. Raises FileError."""
        return self._store.checked(sha256)

    def deploy(self, stored: StoredArtifact, verify: Verify) -> Endpoint:
        """Start a model server for the artifact; stop the old one once the new one is verified."""
        self.history.newest_first()  # a damaged history should fail before anything is started
        timeout = self._settings.sections.endpoint.startup_timeout
        endpoint = self.endpoint.deploy(stored, self._store, timeout=timeout, verify=verify)
        self.history.add(stored, self._now())
        return endpoint

    def invoke(self, endpoint: Endpoint, request: Json) -> Json:  # noqa: ARG002 there is one
        """Send a request to the model server."""
        return self.endpoint.invoke(request)

    def create_api(self, endpoint: Endpoint, verify: Verify) -> Api:
        """Start the gateway in front of the model server."""
        return self.api.create(endpoint, self._settings.sections.api, verify)

    def call_api(self, api: Api, request: Json) -> Json:
        """Send a request through the gateway, with the key."""
        return self.api.call(api, request)

    def endpoint_route(self, endpoint: Endpoint) -> Route:  # noqa: ARG002 there is one
        """The route to the model server."""
        return self.endpoint.route()

    def api_route(self, api: Api) -> Route:
        """The route to the gateway."""
        return self.api.route(api)

    def key(self, api: Api) -> str:  # noqa: ARG002 there is one
        """The key of the gateway."""
        return self.api.key()

    def address(self, api: Api) -> str:
        """The gateway's URL, if it runs."""
        return self.api.address(api)

    def rotate_key(self, api: Api) -> str:
        """Replace the gateway's key."""
        return self.api.rotate_key(api)

    def check_shards(self) -> NoReturn:
        """There is no machine but this one. Raises UsageError."""
        raise UsageError(
            "a batch transform runs on AWS, and this project's target is local",
            hint="add --region eu-central-1 (or another region), or leave out --transform",
        )

    def shard_service(self, stored: StoredArtifact, instances: int) -> NoReturn:
        """There is none. Raises UsageError."""
        del stored, instances
        self.check_shards()

    def teardown(self, *, artifacts: bool, confirmed: bool, wait: bool) -> Teardown:  # noqa: ARG002
        """Stop every server of this stage and remove its folder, including the store.

        Processes are found by their environment, ports by their processes, and files by listing the
        folder; the same inventory afterwards verifies that nothing is left. Raises UsageError for a
        protected stage, or FileError.
        """
        if self._settings.sections.project.protect and not confirmed:
            raise UsageError(
                f"stage {self._settings.stage} is protected (protect = true in [project])",
                hint="to delete it anyway, run fdeploy teardown --even-if-protected",
            )
        found = tuple(self._inventory())
        self._processes.stop(self._processes.running())
        files.remove_tree(self._home)
        left = tuple(self._inventory())
        return Teardown(self.name, found, tuple(x for x in found if x not in left), left)

    def servers(self) -> Iterator[tuple[str, psutil.Process]]:
        """The running servers, each with its kind."""
        return iter(sorted(self._processes.found(), key=lambda each: each[0], reverse=True))

    def _inventory(self) -> Iterator[str]:
        for kind, process in self.servers():
            yield from _process(kind, process)
        if self._home.is_symlink():
            yield f"link {self._home}"
        else:
            yield from (f"file {self._home / name}" for name in files.names_in(self._home))


def _process(kind: str, process: psutil.Process) -> Iterator[str]:
    yield f"{kind}, process {process.pid}"
    try:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                yield f"port {connection.laddr.port} of the {kind}"
    except psutil.Error:
        return

"""The interface of every target; ``stages`` uses targets only through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from fastai_deploy.packaging.wheels import Container
from fastai_deploy.parity import Json, Verify
from fastai_deploy.records import Api, Artifact, Deployed, Endpoint, StoredArtifact, Teardown
from fastai_deploy.stage_reports import (
    Checkup,
    LogLine,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)


@dataclass(frozen=True)
class Claim:
    """The id that a stage carries, empty for none; ``suggested`` is one that it could have."""

    id: str
    suggested: str = ""


@dataclass(frozen=True)
class Route:
    """How to send requests over HTTP, many on one connection: POST JSON to ``url``.

    ``headers`` returns those of a request, from its body, beside the content type. ``peer`` is
    called after connecting and before sending; it raises InvocationError if the other end is not
    the intended server.
    """

    url: str
    headers: Callable[[bytes], Mapping[str, str]]
    peer: Callable[[], None] = lambda: None


class ShardService(Protocol):
    """Answers shards of requests, each a file of lines, on machines of its own.

    ``run`` names a run, which can be continued. Every method may raise AwsError.
    """

    def agree(self, run: str) -> None:
        """Show what it costs, and ask. Raises UsageError for a no."""

    def stored(self, run: str) -> Mapping[str, int]:
        """The shards that are uploaded, with their sizes in bytes."""

    def upload(self, run: str, shard: str, data: bytes) -> None:
        """Upload a shard."""

    def transform(
        self, run: str, shards: Sequence[str], notify: Callable[[frozenset[str]], None]
    ) -> None:
        """Have all shards answered; ``notify`` receives those that are. Raises DeployError."""

    def answers(self, run: str, shard: str) -> bytes:
        """The answers to a shard, a line for each of its lines."""

    def clean(self, run: str) -> None:
        """Delete everything that the run has made."""


class Target(Protocol):
    """Stores artifacts, serves them and makes them public."""

    name: str

    def claim(self, *, creates: bool) -> Claim:
        """Check that the stage is this project's.

        Asks before taking it over or, if it is new and the command ``creates`` it, before making
        it. Raises NotOurs, or UsageError for a no.
        """

    def check_access(self) -> None:
        """Check that the target can be used at all, before any long work. Raises AwsError."""

    def container(
        self, packaged: Artifact | None = None, *, decides: bool = False, pull: bool = False
    ) -> Container | None:
        """The container that artifacts must fit; None if they run in fdeploy's environment.

        If the settings leave it open whose image serves, ``packaged`` says it, an artifact for
        which that was decided; with ``decides`` it is decided now, as far as that can be done,
        and with ``pull`` for the newest build of the image's base. Raises SettingsError,
        TargetUnavailable or AwsError.
        """

    def upload(self, artifact: Artifact) -> StoredArtifact:
        """Store the artifact under its hash; nothing is copied if it is already there."""

    def deploy(self, stored: StoredArtifact, verify: Verify) -> Endpoint:
        """Serve the artifact; the previous version is replaced only after ``verify`` succeeds."""

    def invoke(self, endpoint: Endpoint, request: Json) -> Json:
        """Send a request to the endpoint itself."""

    def create_api(self, endpoint: Endpoint, verify: Verify) -> Api:
        """Create the public API in front of the endpoint and check it with ``verify``."""

    def call_api(self, api: Api, request: Json) -> Json:
        """Send a request through the public API, with its key."""

    def endpoint_route(self, endpoint: Endpoint) -> Route:
        """The route to the endpoint itself. Raises UsageError if it has none."""

    def api_route(self, api: Api) -> Route:
        """The route to the public API, with its key. Raises UsageError if only others may call."""

    def key(self, api: Api) -> str:
        """The key of the API. Raises UsageError for an API without keys, or FileMissing."""

    def address(self, api: Api) -> str:
        """The URL of the API's route. Raises InvocationError if another program may have it."""

    def rotate_key(self, api: Api) -> str:
        """Replace the key with a new one, check that it works, and return it."""

    def check_shards(self) -> None:
        """Raise UsageError if the target cannot answer shards."""

    def shard_service(self, stored: StoredArtifact, instances: int) -> ShardService:
        """What answers shards with an artifact on so many instances. Raises SettingsError."""

    def teardown(self, *, artifacts: bool, confirmed: bool, wait: bool) -> Teardown:
        """Delete everything in this stage of the project, found by searching the target.

        ``artifacts`` also deletes uploaded artifacts that would otherwise stay. A protected stage
        must be ``confirmed``, else UsageError is raised. Without ``wait`` it returns once deletion
        has started, and nothing is verified.
        """


class Operations(Protocol):
    """Reports on a stage (plan, status, logs, versions, doctor), and rollback."""

    def plan(self, artifact: Artifact) -> StagePlan:
        """What deploying the artifact and its API would change."""

    def status(self) -> Status:
        """What is deployed, and how it is doing."""

    def logs(self, *, api: bool, since: timedelta, follow: bool) -> Iterator[LogLine]:
        """The log lines of the endpoint, or of the ``api``; ``follow`` never ends."""

    def console(self) -> str:
        """The URL of the stage in the target's own console. Raises UsageError if it has none."""

    def versions(self) -> tuple[Version, ...]:
        """The deployed versions, newest first."""

    def deployed(self) -> Sequence[Deployed]:
        """The deployed and verified versions, newest first."""

    def live_version(self) -> str:
        """The version that serves; empty if none does."""

    def artifact_of(self, version: Deployed, folder: Path) -> Path:
        """The artifact of a version, with the right hash; downloaded into ``folder`` if it must be.

        Raises FileError or AwsError.
        """

    def opened(self, version: Deployed) -> AbstractContextManager[BinaryIO]:
        """The artifact of a version, to read from its beginning. Raises FileError or AwsError."""

    def captured(self, since: timedelta) -> Iterator[bytes]:
        """The captured requests and answers, the newest first, as JSON lines.

        Raises UsageError if the target captures nothing, or AwsError.
        """

    def rollback(self, wanted: str | None) -> Endpoint:
        """Deploy the version before the live one, or ``wanted``, again. Raises UsageError."""

    def doctor(self, artifact: Artifact | None) -> Checkup:
        """Whether a deploy would work."""

    def policies(self) -> Policies:
        """The required permissions. Raises UsageError if the target has none."""

    def template(self, artifact: Artifact) -> Templates:
        """The CloudFormation templates. Raises UsageError if the target has none."""

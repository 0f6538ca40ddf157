"""What every target can do. ``stages`` knows targets only through this."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol

from fastai_deploy.packaging.wheels import Container
from fastai_deploy.parity import Json, Verify
from fastai_deploy.records import (
    Api,
    Artifact,
    Checkup,
    Endpoint,
    LogLine,
    Policies,
    StagePlan,
    Status,
    StoredArtifact,
    Teardown,
    Templates,
    Version,
)


class Target(Protocol):
    """A place where artifacts are stored, served and made public."""

    name: str

    def container(self) -> Container | None:
        """What artifacts must fit; None where they run in fdeploy's own environment."""

    def upload(self, artifact: Artifact) -> StoredArtifact:
        """Store the artifact by its hash; no byte is copied when it is already there."""

    def deploy(self, stored: StoredArtifact, verify: Verify) -> Endpoint:
        """Serve the artifact; what was serving before goes only when ``verify`` is content."""

    def invoke(self, endpoint: Endpoint, request: Json) -> Json:
        """Send a request to the endpoint itself."""

    def create_api(self, endpoint: Endpoint, verify: Verify) -> Api:
        """Put the public API in front of the endpoint, and prove it with ``verify``."""

    def call_api(self, api: Api, request: Json) -> Json:
        """Send a request through the public API, with its key."""

    def key(self, api: Api) -> str:
        """The key of the API. Raises UsageError for an API without keys, or FileMissing."""

    def rotate_key(self, api: Api) -> str:
        """Put a new key in the place of the old one, prove it, and return it."""

    def teardown(self, *, artifacts: bool, confirmed: bool, wait: bool) -> Teardown:
        """Remove everything of this project and stage, found by inventory and not by memory.

        ``artifacts`` also removes what was uploaded, where that would stay; a stage that the
        settings protect must be ``confirmed``, or UsageError is raised. Without ``wait`` it ends
        when the target has begun, and there is no proof.
        """


class Operations(Protocol):
    """What can be asked of a stage beside the flow; only ``rollback`` changes anything."""

    def plan(self, artifact: Artifact) -> StagePlan:
        """What deploying the artifact, and the API before it, would change."""

    def status(self) -> Status:
        """What there is, and how it is doing."""

    def logs(self, *, api: bool, since: timedelta, follow: bool) -> Iterator[LogLine]:
        """What the endpoint wrote, or the ``api``; ``follow`` goes on for ever."""

    def versions(self) -> tuple[Version, ...]:
        """What was deployed, newest first."""

    def rollback(self, wanted: str | None) -> Endpoint:
        """Deploy the version before the live one, or ``wanted``, again. Raises UsageError."""

    def doctor(self, artifact: Artifact | None) -> Checkup:
        """Whether a deploy would work."""

    def policies(self) -> Policies:
        """The permissions that are needed. Raises UsageError where there is no such thing."""

    def template(self, artifact: Artifact) -> Templates:
        """What would be sent. Raises UsageError where nothing is sent."""

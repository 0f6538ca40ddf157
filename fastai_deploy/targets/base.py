"""What every target can do. ``stages`` knows targets only through this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastai_deploy.records import Api, Artifact, Endpoint, StoredArtifact, Teardown
from fastai_deploy.wheels import Container

Json = Any
# Sends one request of the contract and returns the answer. Raises InvocationError.
Invoke = Callable[[Json], Json]
# Asks the goldens through an invoke. Raises ParityError or InvocationError.
Verify = Callable[[Invoke], None]


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

    def teardown(self, *, artifacts: bool, confirmed: bool) -> Teardown:
        """Remove everything of this project and stage, found by inventory and not by memory.

        ``artifacts`` also removes what was uploaded, where that would stay; a stage that the
        settings protect must be ``confirmed``, or UsageError is raised.
        """

"""The part of ECR that answers whether an image exists in AWS's own registries.

The double assumes that AWS has every tag of its serving repositories except those in the account's
behaviour. Source: the API reference of BatchGetImage, whose answer lists missing images under
``failures``; an unknown repository is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.aws_double.behaviour import Behaviour

# "Available Deep Learning Containers Images": the repositories that fdeploy chooses from.
_REPOSITORIES = (
    "pytorch-inference",
    "pytorch-inference-arm64",
    "pytorch-inference-graviton",
    "ray",
)

Json = Any


class Registry:
    """One service; ``behaviour`` gives that of the request's account."""

    def __init__(self, behaviour: Callable[[], Behaviour]) -> None:
        self._behaviour = behaviour

    def handle(self, operation: str, body: bytes) -> tuple[int, Json]:
        """Status and answer of a request."""
        if operation != "BatchGetImage":
            return 400, {"__type": "UnknownOperationException", "message": operation}
        request = json.loads(body)
        name, registry = request["repositoryName"], request["registryId"]
        if name not in _REPOSITORIES:
            return 400, {
                "__type": "RepositoryNotFoundException",
                "message": f"The repository with name '{name}' does not exist in the registry "
                f"with id '{registry}'",
            }
        images, failures = [], []
        for identity in request["imageIds"]:
            if identity.get("imageTag") in self._behaviour().missing_images:
                failures.append({"imageId": identity, "failureCode": "ImageNotFound"})
            else:
                images.append({"registryId": registry, "repositoryName": name, "imageId": identity})
        return 200, {"images": images, "failures": failures}

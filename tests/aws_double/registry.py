"""The part of ECR that answers whether an image exists in AWS's own registries, and which build.

The double assumes that AWS has every tag of its serving repositories except those in the account's
behaviour. A tag moves with each patch, and earlier builds can still be pulled by their digests.
Source: the API reference of BatchGetImage, whose answer has the digest of each image, and lists
missing images under ``failures``; an unknown repository is an error.
"""

from __future__ import annotations

import hashlib
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


class AwsRegistries:
    """The repositories of AWS's accounts; ``behaviour`` gives that of the request's account."""

    def __init__(self, behaviour: Callable[[], Behaviour]) -> None:
        self._behaviour = behaviour
        self._built: set[str] = set()

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
        behaviour = self._behaviour()
        for asked in request["imageIds"]:
            tag = asked.get("imageTag")
            named = {"imageDigest": digest(name, tag, behaviour.image_patch)} if tag else {}
            self._built.update(named.values())
            identity = {**asked, **named}
            unknown = identity["imageDigest"] not in self._built
            if unknown or tag in behaviour.missing_images:
                failures.append({"imageId": identity, "failureCode": "ImageNotFound"})
            else:
                images.append({"registryId": registry, "repositoryName": name, "imageId": identity})
        return 200, {"images": images, "failures": failures}


def digest(repository: str, tag: str, patch: int) -> str:
    """The digest of a build: another one with each patch."""
    return f"sha256:{hashlib.sha256(f'{repository}:{tag}:{patch}'.encode()).hexdigest()}"

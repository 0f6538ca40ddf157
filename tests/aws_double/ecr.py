"""An account's own repositories in ECR: the API, in front of a registry that images are pushed to.

``registry.py`` answers for AWS's repositories. The manifests and blobs are those of
``tests.registry``, whose credentials GetAuthorizationToken gives: user ``AWS``, and a password that
says whose repositories it opens.

Sources: the ECR API reference (one page for each operation, with its errors) and "Image tag
mutability" in the user guide. A tag of an immutable repository cannot be put again, not even for
the same image (buildkit 3776, aws-sdk 750). "When you remove the last tag from an image, the image
is deleted from your repository" (BatchDeleteImage).
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.aws_double import emulator
from tests.aws_double.refused import Refused
from tests.registry import Registry, Repository, digest_of

Json = Any
_MOST_IMAGES = 100  # in one BatchGetImage or BatchDeleteImage
_VALID_SECONDS = 12 * 3_600
_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[^.]+)\.amazonaws\.com/(?P<name>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>.+))?"
)
_SCANNED: Json = {"findingSeverityCounts": {}}


@dataclass
class _About:
    """What ECR knows of a repository beside its images; ``pushed`` are dates by digest."""

    created: float
    mutability: str
    scans: bool
    encryption: Json
    tags: dict[str, str]
    lifecycle: str = ""
    pushed: dict[str, float] = field(default_factory=dict)


class Ecr:
    """One service; ``others`` answers for the repositories of AWS's own accounts."""

    def __init__(
        self, registry: Registry, others: Callable[[str, bytes], tuple[int, Json]]
    ) -> None:
        self._registry = registry
        self._others = others
        self._about: dict[str, _About] = {}
        self._operations: Mapping[str, Callable[[Json], Json]] = {
            "BatchDeleteImage": self._delete_images,
            "BatchGetImage": self._get_images,
            "CreateRepository": self._create,
            "DeleteRepository": self._delete,
            "DescribeImages": self._describe_images,
            "DescribeRepositories": self._describe,
            "GetAuthorizationToken": self._token,
            "GetLifecyclePolicy": self._lifecycle,
            "ListImages": self._list_images,
            "ListTagsForResource": self._list_tags,
            "PutImage": self._put_image,
            "PutLifecyclePolicy": self._put_lifecycle,
            "TagResource": self._tag,
        }

    def handle(self, operation: str, body: bytes) -> tuple[int, Json]:
        """Status and answer of a request."""
        request = json.loads(body)
        if request.get("registryId", emulator.get_account()) != emulator.get_account():
            return self._others(operation, body)
        if operation not in self._operations:
            return 400, {"__type": "UnknownOperationException", "message": operation}
        try:
            with self._registry.lock:
                return 200, self._operations[operation](request)
        except Refused as refused:
            return 400, {"__type": refused.code, "message": str(refused)}

    # Repositories

    def _create(self, request: Json) -> Json:
        name = request["repositoryName"]
        if _place(name) in self._about:
            raise Refused(
                "RepositoryAlreadyExistsException",
                f"The repository with name '{name}' already exists in the registry with id "
                f"'{emulator.get_account()}'",
            )
        mutability = request.get("imageTagMutability", "MUTABLE")
        self._about[_place(name)] = _About(
            created=time.time(),
            mutability=mutability,
            scans=request.get("imageScanningConfiguration", {}).get("scanOnPush", False),
            encryption=request.get("encryptionConfiguration", {"encryptionType": "AES256"}),
            tags={tag["Key"]: tag["Value"] for tag in request.get("tags", [])},
        )
        self._registry.repositories[_place(name)] = Repository(immutable=mutability == "IMMUTABLE")
        return {"repository": self._shown(name)}

    def _describe(self, request: Json) -> Json:
        names = request.get("repositoryNames")
        if names is None:
            prefix = _place("")
            names = [
                place.removeprefix(prefix) for place in self._about if place.startswith(prefix)
            ]
        for name in names:
            self._find(name)
        return {"repositories": [self._shown(name) for name in names]}

    def _delete(self, request: Json) -> Json:
        name = request["repositoryName"]
        repository, shown = self._find(name), self._shown(name)
        if repository.manifests and not request.get("force"):
            raise Refused(
                "RepositoryNotEmptyException",
                f"The repository with name '{name}' in registry with id "
                f"'{emulator.get_account()}' cannot be deleted because it still contains images",
            )
        del self._registry.repositories[_place(name)], self._about[_place(name)]
        return {"repository": shown}

    def _put_lifecycle(self, request: Json) -> Json:
        self._find(request["repositoryName"])
        policy = json.loads(request["lifecyclePolicyText"])
        for rule in policy["rules"]:
            if rule["action"]["type"] != "expire" or rule["selection"]["tagStatus"] not in (
                "tagged",
                "untagged",
                "any",
            ):
                raise Refused("InvalidParameterException", "Invalid parameter")
        self._about[_place(request["repositoryName"])].lifecycle = request["lifecyclePolicyText"]
        return self._lifecycle(request)

    def _lifecycle(self, request: Json) -> Json:
        name = request["repositoryName"]
        self._find(name)
        policy = self._about[_place(name)].lifecycle
        if not policy:
            raise Refused("LifecyclePolicyNotFoundException", "Lifecycle policy does not exist")
        account = emulator.get_account()
        return {"registryId": account, "repositoryName": name, "lifecyclePolicyText": policy}

    def _list_tags(self, request: Json) -> Json:
        name = request["resourceArn"].partition(":repository/")[2]
        self._find(name)
        tags = self._about[_place(name)].tags
        return {"tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _tag(self, request: Json) -> Json:
        name = request["resourceArn"].partition(":repository/")[2]
        self._find(name)
        self._about[_place(name)].tags.update({tag["Key"]: tag["Value"] for tag in request["tags"]})
        return {}

    def _token(self, _request: Json) -> Json:
        password = base64.b64encode(_place("")[:-1].encode()).decode()
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        given = {
            "authorizationToken": token,
            "expiresAt": time.time() + _VALID_SECONDS,
            "proxyEndpoint": self._registry.url,
        }
        return {"authorizationData": [given]}

    # Images

    def _get_images(self, request: Json) -> Json:
        name, repository = request["repositoryName"], self._find(request["repositoryName"])
        images, failures = [], []
        for asked in _at_most(request["imageIds"]):
            found = repository.digest(asked.get("imageDigest") or asked["imageTag"])
            if found is None:
                failures.append(
                    {
                        "imageId": asked,
                        "failureCode": "ImageNotFound",
                        "failureReason": "Requested image not found",
                    }
                )
                continue
            media_type, manifest = repository.manifests[found]
            images.append(
                {
                    "registryId": emulator.get_account(),
                    "repositoryName": name,
                    "imageId": {**asked, "imageDigest": found},
                    "imageManifest": manifest.decode(),
                    "imageManifestMediaType": media_type,
                }
            )
        return {"images": images, "failures": failures}

    def _put_image(self, request: Json) -> Json:
        name, repository = request["repositoryName"], self._find(request["repositoryName"])
        data, tag = request["imageManifest"].encode(), request.get("imageTag", "")
        digest = digest_of(data)
        media_type = request.get("imageManifestMediaType") or json.loads(data)["mediaType"]
        if request.get("imageDigest", digest) != digest:
            raise Refused(
                "ImageDigestDoesNotMatchException", "The specified image digest does not match"
            )
        missing = repository.missing(media_type, data)
        if missing:
            raise Refused("LayersNotFoundException", f"Layers with digests '{missing}' not found")
        held = repository.tags.get(tag)
        if held is not None and held != digest and repository.immutable:
            raise Refused(
                "ImageTagAlreadyExistsException",
                f"The image tag '{tag}' already exists in the '{name}' repository and cannot be "
                "overwritten because the repository is immutable.",
            )
        if held == digest or (not tag and digest in repository.manifests):
            raise Refused(
                "ImageAlreadyExistsException",
                f"Image with digest '{digest}' and tag '{tag}' already exists in the repository "
                f"with name '{name}' in registry with id '{emulator.get_account()}'",
            )
        repository.manifests[digest] = media_type, data
        if tag:
            repository.tags[tag] = digest
        identity = {"imageDigest": digest, **({"imageTag": tag} if tag else {})}
        return {"image": {"repositoryName": name, "imageId": identity, "imageManifest": ""}}

    def _describe_images(self, request: Json) -> Json:
        name, repository = request["repositoryName"], self._find(request["repositoryName"])
        digests = list(repository.manifests)
        if "imageIds" in request:
            digests = []
            for asked in request["imageIds"]:
                found = repository.digest(asked.get("imageDigest") or asked["imageTag"])
                if found is None:
                    digest, tag = asked.get("imageDigest", "null"), asked.get("imageTag", "null")
                    raise Refused(
                        "ImageNotFoundException",
                        f"The image with imageId {{imageDigest:'{digest}', imageTag:'{tag}'}} does "
                        f"not exist within the repository with name '{name}' in the registry with "
                        f"id '{emulator.get_account()}'",
                    )
                digests.append(found)
        return {"imageDetails": [self._detail(name, repository, digest) for digest in digests]}

    def _detail(self, name: str, repository: Repository, digest: str) -> Json:
        media_type, manifest = repository.manifests[digest]
        parsed, about = json.loads(manifest), self._about[_place(name)]
        parts = (parsed.get("config", {"size": 0}), *parsed.get("layers", ()))
        scanned = {
            "imageScanStatus": {"status": "COMPLETE"},
            "imageScanFindingsSummary": _SCANNED,
        }
        tags = sorted(tag for tag, named in repository.tags.items() if named == digest)
        return {
            "registryId": emulator.get_account(),
            "repositoryName": name,
            "imageDigest": digest,
            **({"imageTags": tags} if tags else {}),
            "imageSizeInBytes": sum(part["size"] for part in parts),
            "imagePushedAt": about.pushed.setdefault(digest, time.time()),
            "imageManifestMediaType": media_type,
            **(scanned if about.scans else {}),
        }

    def _list_images(self, request: Json) -> Json:
        repository = self._find(request["repositoryName"])
        listed = []
        for digest in repository.manifests:
            tags = [tag for tag, named in repository.tags.items() if named == digest]
            listed += [{"imageDigest": digest, "imageTag": tag} for tag in tags]
            listed += [] if tags else [{"imageDigest": digest}]
        return {"imageIds": listed}

    def _delete_images(self, request: Json) -> Json:
        repository = self._find(request["repositoryName"])
        deleted, failures = [], []
        for asked in _at_most(request["imageIds"]):
            tag, digest = asked.get("imageTag"), asked.get("imageDigest")
            found = repository.digest(digest or tag)
            if found is None:
                reason = "Requested image not found"
                code = "ImageNotFound"
                failures.append({"imageId": asked, "failureCode": code, "failureReason": reason})
                continue
            gone = [tag] if tag else [t for t, named in repository.tags.items() if named == found]
            for each in gone:
                del repository.tags[each]
                deleted.append({"imageDigest": found, "imageTag": each})
            if not gone:
                deleted.append({"imageDigest": found})
            if not tag or found not in repository.tags.values():
                del repository.manifests[found]
        return {"imageIds": deleted, "failures": failures}

    # Finding and naming

    def _find(self, name: str) -> Repository:
        if _place(name) not in self._about:
            raise Refused(
                "RepositoryNotFoundException",
                f"The repository with name '{name}' does not exist in the registry with id "
                f"'{emulator.get_account()}'",
            )
        return self._registry.repositories[_place(name)]

    def _shown(self, name: str) -> Json:
        account, region, about = (
            emulator.get_account(),
            emulator.get_region(),
            self._about[_place(name)],
        )
        return {
            "repositoryArn": f"arn:aws:ecr:{region}:{account}:repository/{name}",
            "registryId": account,
            "repositoryName": name,
            "repositoryUri": f"{account}.dkr.ecr.{region}.amazonaws.com/{name}",
            "createdAt": about.created,
            "imageTagMutability": about.mutability,
            "imageScanningConfiguration": {"scanOnPush": about.scans},
            "encryptionConfiguration": about.encryption,
        }


class Images:
    """The images of the accounts' own repositories, for those who pull them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def media_type(self, uri: str) -> str:
        """The media type of an image's manifest; empty if there is no such image."""
        repository, digest = self._named(uri)
        return repository.manifests[digest][0] if repository and digest else ""

    def layers(self, uri: str) -> list[bytes]:
        """The layers of an image; none if there is no such image."""
        repository, digest = self._named(uri)
        if not repository or not digest:
            return []
        manifest = json.loads(repository.manifests[digest][1])
        return [repository.blobs[layer["digest"]] for layer in manifest["layers"]]

    def _named(self, uri: str) -> tuple[Repository | None, str | None]:
        """The repository and the digest of an image, by the name that SageMaker gets."""
        match = _IMAGE.fullmatch(uri)
        if match is None:
            return None, None
        place = f"{match['account']}/{match['region']}/{match['name']}"
        repository = self._registry.repositories.get(place)
        reference = match["digest"] or match["tag"]
        return repository, repository.digest(reference) if repository else None


_ACTIONS = {
    ("GET", "blobs"): "GetDownloadUrlForLayer",
    ("GET", "manifests"): "BatchGetImage",
    ("GET", "tags"): "ListImages",
    ("HEAD", "blobs"): "BatchCheckLayerAvailability",
    ("HEAD", "manifests"): "BatchGetImage",
    ("PATCH", "blobs/uploads"): "UploadLayerPart",
    ("POST", "blobs/uploads"): "InitiateLayerUpload",
    ("PUT", "blobs/uploads"): "CompleteLayerUpload",
    ("PUT", "manifests"): "PutImage",
}


def action_of(method: str, kind: str) -> str:
    """What a request of the registry's protocol is for IAM: ECR does it by these operations.

    Source: "IAM permissions for pushing an image" in the user guide.
    """
    return f"ecr:{_ACTIONS[method, kind]}"


def whose(user: str, password: str) -> str | None:
    """Whose repositories a login opens: ``<account>/<region>``; None if it is no login of ECR."""
    try:
        return base64.b64decode(password, validate=True).decode() if user == "AWS" else None
    except ValueError:
        return None


def _place(name: str) -> str:
    return f"{emulator.get_account()}/{emulator.get_region()}/{name}"


def _at_most(identities: list[Json]) -> list[Json]:
    if len(identities) > _MOST_IMAGES:
        raise Refused("InvalidParameterException", f"at most {_MOST_IMAGES} images at once")
    return identities

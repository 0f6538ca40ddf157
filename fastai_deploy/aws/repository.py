"""The images of fdeploy's own server in ECR: one repository for all stages of a project.

    fdeploy/<project>                 immutable tags, scanned on push, untagged images expire
        0.1.0-x86_64-3f2a...          an image, by what it was made from
        stage.dev.0.1.0-x86_64-...    the same image: the stage ``dev`` uses it

The tags of the stages are all that is known about who uses an image. ``upload`` adds the stage's;
``teardown`` removes them, then the images that no stage uses any more, then the repository when
it is empty. A repository of that name that another project made is left alone.

Sources: the API reference of ECR for each operation; "Private registry authentication" of its user
guide for the login, whose user is always ``AWS``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastai_deploy import naming
from fastai_deploy.aws.client_errors import denial
from fastai_deploy.aws.images import domain
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.registry import MANIFESTS
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsDenied, AwsError, AwsMissing, FdeployError, NotOurs
from fastai_deploy.image.names import Destination
from fastai_deploy.naming import ID_TAG, PROJECT_TAG
from fastai_deploy.progress import Reporter, Step

NO_ACCOUNT = "ACCOUNT"
"""Stands in the place of an account that nobody can be asked for."""
_MOST_DELETED = 100  # images in one request (AWS: BatchDeleteImage)
_THERE_ALREADY = frozenset(("ImageAlreadyExistsException", "ImageTagAlreadyExistsException"))
_UNTAGGED_GO: Mapping[str, Any] = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "what a broken push left",
            "selection": {
                "tagStatus": "untagged",
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": 1,
            },
            "action": {"type": "expire"},
        }
    ]
}


class Pushable(Protocol):
    """An image that can be pushed under its tag."""

    @property
    def tag(self) -> str:
        """The name of what it is made from."""

    def push(self, to: Destination) -> str:
        """Upload what is missing there; return the digest. Raises FdeployError."""


@dataclass(frozen=True)
class StoredImage:
    """An image in the repository; ``bytes`` is its compressed size, ``pushed`` a time in UTC."""

    digest: str
    tags: tuple[str, ...]
    bytes: int
    pushed: datetime

    @property
    def tag(self) -> str:
        """Its own tag; empty if somebody has removed it."""
        return next((tag for tag in self.tags if not naming.stage_of_tag(tag)), "")

    @property
    def foreign(self) -> bool:
        """Whether somebody else pushed it: it has tags, and none of them is fdeploy's."""
        return bool(self.tags) and not any(map(naming.is_image_tag, self.tags))

    @property
    def stages(self) -> frozenset[str]:
        """The stages that use it."""
        return frozenset(naming.stage_of_tag(tag) for tag in self.tags) - {""}


@dataclass(frozen=True)
class StageImages:
    """What a stage has in the repository: its own tags, and the images that only it uses.

    ``kept`` are those of other stages, and those that somebody else pushed; without any, the whole
    repository is the stage's.
    """

    tags: tuple[str, ...]
    unused: tuple[StoredImage, ...]
    kept: tuple[StoredImage, ...]


class ImageRepository:
    """The repository of a project; every method raises AwsError.

    ``tags`` are the user's own, for a new one, which ``kms_key`` encrypts.
    """

    def __init__(
        self,
        aws: Aws,
        owner: Owner,
        report: Reporter,
        *,
        tags: Mapping[str, str] | None = None,
        kms_key: str | None = None,
    ) -> None:
        self._aws = aws
        self.owner = owner
        self._report = report
        self._all_tags = {**(tags or {}), PROJECT_TAG: owner.project}
        self._all_tags.update({ID_TAG: owner.id} if owner.id else {})
        self._kms_key = kms_key
        self.name = naming.image_repository(owner.project)

    def uri(self, reference: str) -> str:
        """An image by its tag or its digest; without credentials, of :data:`NO_ACCOUNT`."""
        aws = self._aws
        account = aws.account_or(NO_ACCOUNT)
        mark = "@" if reference.startswith("sha256:") else ":"
        host = f"{account}.dkr.ecr.{aws.region}.{domain(aws.region)}"
        return f"{host}/{self.name}{mark}{reference}"

    def exists(self) -> bool:
        """Whether it exists. Raises NotOurs if another project made it."""
        try:
            answer = self._ask("describe_repositories", repositoryNames=[self.name])
        except AwsMissing:
            return False
        (found,) = answer["repositories"]
        listed = self._ask("list_tags_for_resource", resourceArn=found["repositoryArn"])["tags"]
        tags = {tag["Key"]: tag["Value"] for tag in listed}
        owner = self.owner
        id_ = tags.get(ID_TAG, "")
        if tags.get(PROJECT_TAG) != owner.project:
            raise NotOurs(
                f"the repository {self.name} in ECR was not made by fdeploy",
                hint="delete it, or set another name in [project]",
            )
        if not owner.adopts and id_ not in ("", owner.id):
            raise NotOurs(
                f"the repository {self.name} in ECR is of another project called {owner.project}, "
                f"whose id is {id_}",
                hint="set another name in [project]",
            )
        return True

    def find(self, reference: str) -> StoredImage | None:
        """An image by its tag or digest; None if there is none. Raises NotOurs."""
        if not self.exists():
            return None
        by = "imageDigest" if reference.startswith("sha256:") else "imageTag"
        try:
            answer = self._ask(
                "describe_images", repositoryName=self.name, imageIds=[{by: reference}]
            )
        except AwsMissing:
            return None
        return _stored(answer["imageDetails"][0])

    def newest(self, digest: str = "") -> StoredImage | None:
        """The image of a digest, else the one pushed last, or None. Raises NotOurs."""
        found = self._images() if self.exists() else ()
        images = [image for image in found if not image.foreign]
        ordered = sorted(images, key=lambda image: (image.digest == digest, image.pushed))
        return ordered[-1] if ordered else None

    def login(self) -> Destination:
        """Where to push, and with which password, which is valid for 12 hours."""
        (given,) = self._ask("get_authorization_token")["authorizationData"]
        user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
        url = urlsplit(given["proxyEndpoint"])
        return Destination(url.netloc, self.name, user, password, insecure=url.scheme == "http")

    def push(self, image: Pushable) -> StoredImage:
        """Push an image unless its tag is there. Raises NotOurs, and the errors of the image."""
        found = self.find(image.tag)
        if found is not None:
            return found
        self._ensure()
        self._report(Step(f"pushing the image {image.tag} to {self.name} in ECR"))
        try:
            image.push(self.login())
        except FdeployError as error:
            # A tag stays as it is: another command may have pushed the same image meanwhile.
            found = self.find(image.tag)
            if found is not None:
                return found
            if denied := denial(error.message):
                raise AwsDenied(
                    f"the image cannot be pushed to {self.name}: {denied}", hint=denied.hint
                ) from None
            raise
        found = self.find(image.tag)
        if found is None:
            raise AwsMissing(
                f"the image {self.uri(image.tag)} was pushed, and is gone",
                hint="run fdeploy upload",
            )
        return found

    def mark(self, image: StoredImage) -> None:
        """Note that the stage uses an image; who adopts the stage takes over the repository."""
        if self.owner.adopts and self.owner.id:
            self._ask("tag_resource", resourceArn=self._arn, tags=_listed(self._all_tags))
        tag = naming.stage_tag(self.owner.stage, image.tag)
        if tag in image.tags:
            return
        answer = self._ask(
            "batch_get_image",
            repositoryName=self.name,
            imageIds=[{"imageDigest": image.digest}],
            acceptedMediaTypes=list(MANIFESTS),
        )
        if not answer["images"]:
            raise AwsMissing(
                f"the image {self.uri(image.digest)} was deleted meanwhile",
                hint="run fdeploy upload",
            )
        (found,) = answer["images"]
        try:
            self._ask(
                "put_image",
                repositoryName=self.name,
                imageManifest=found["imageManifest"],
                imageManifestMediaType=found["imageManifestMediaType"],
                imageTag=tag,
                imageDigest=image.digest,
            )
        except AwsError as error:
            if error.aws_code not in _THERE_ALREADY:
                raise

    def of_stage(self) -> StageImages | None:
        """What the stage has in it; None without a repository of the project's own."""
        try:
            if not self.exists():
                return None
        except NotOurs:
            return None
        own = self.owner.stage
        images = sorted(self._images(), key=lambda image: image.tags)
        unused = tuple(image for image in images if image.stages <= {own} and not image.foreign)
        kept = tuple(image for image in images if image not in unused)
        tags = (tag for image in images for tag in image.tags if naming.stage_of_tag(tag) == own)
        return StageImages(tuple(sorted(tags)), unused, kept)

    def clear(self) -> None:
        """Delete what only the stage has, and the repository if that is all."""
        found = self.of_stage()
        if found is None:
            return
        doomed = [{"imageDigest": image.digest} for image in found.unused]
        doomed += [
            {"imageTag": tag} for image in found.kept for tag in image.tags if tag in found.tags
        ]
        for start in range(0, len(doomed), _MOST_DELETED):
            self._ask(
                "batch_delete_image",
                repositoryName=self.name,
                imageIds=doomed[start : start + _MOST_DELETED],
            )
        if not found.kept:
            try:
                self._ask("delete_repository", repositoryName=self.name)
            except AwsError as error:
                # Somebody has pushed to it meanwhile; the inventory tells.
                if error.aws_code != "RepositoryNotEmptyException":
                    raise

    def _ensure(self) -> None:
        """Make it, unless it exists."""
        if not self.exists():
            self._report(Step(f"creating the repository {self.name} in ECR"))
            encryption = {"encryptionType": "KMS", "kmsKey": self._kms_key}
            try:
                self._ask(
                    "create_repository",
                    repositoryName=self.name,
                    imageTagMutability="IMMUTABLE",
                    imageScanningConfiguration={"scanOnPush": True},
                    tags=_listed(self._all_tags),
                    **({"encryptionConfiguration": encryption} if self._kms_key else {}),
                )
            except AwsError as error:
                # Made by an attempt whose answer was lost, or by another command.
                if error.aws_code != "RepositoryAlreadyExistsException" or not self.exists():
                    raise
        self._ask(
            "put_lifecycle_policy",
            repositoryName=self.name,
            lifecyclePolicyText=json.dumps(_UNTAGGED_GO),
        )

    @property
    def _arn(self) -> str:
        aws = self._aws
        return f"arn:{aws.partition}:ecr:{aws.region}:{aws.account}:repository/{self.name}"

    def _images(self) -> Iterator[StoredImage]:
        for page in self._aws.pages("ecr", "describe_images", repositoryName=self.name):
            yield from map(_stored, page["imageDetails"])

    def _ask(self, operation: str, **parameters: Any) -> Any:
        return self._aws.call("ecr", operation, **parameters)


def _listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _stored(detail: Mapping[str, Any]) -> StoredImage:
    tags = tuple(sorted(detail.get("imageTags", ())))
    size, pushed = detail.get("imageSizeInBytes", 0), detail["imagePushedAt"]
    return StoredImage(detail["imageDigest"], tags, size, pushed)

"""The image registry, ECR: which build of an image a tag names at the moment.

AWS moves the tags of its serving images to newer builds with security patches, so that a tag alone
does not say what runs. Source: the API reference of BatchGetImage: the answer names the digest of
an image that was asked for by its tag. AWS's repositories allow this call to every account, which
needs it to pull; DescribeImages they do not.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fastai_deploy.aws.images import Image
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsCredentials, AwsDenied, AwsMissing

_IMAGE = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[^.]+)\.[^/]+/(?P<repository>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>.+))?"
)
# As stored: for another type ECR would convert the manifest.
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)


def is_in_ecr(uri: str) -> bool:
    """Whether an image is in ECR."""
    return _IMAGE.fullmatch(uri) is not None


def find_digest(aws: Aws, uri: str) -> str:
    """The digest of an image in ECR, ``sha256:...``.

    Raises AwsMissing if there is no such image, or AwsError.
    """
    match = _IMAGE.fullmatch(uri)
    missing = AwsMissing(
        f"the container image {uri} does not exist",
        hint="remove image from [endpoint], or set it to an existing one",
    )
    if match is None:
        raise missing
    digest = match["digest"]
    identity = {"imageDigest": digest} if digest else {"imageTag": match["tag"] or "latest"}
    try:
        answer = aws.elsewhere(match["region"]).call(
            "ecr",
            "batch_get_image",
            registryId=match["registry"],
            repositoryName=match["repository"],
            imageIds=[identity],
            acceptedMediaTypes=list(MANIFESTS),
        )
    except AwsMissing:
        raise missing from None
    if not answer.get("images"):
        raise missing
    return str(answer["images"][0]["imageId"].get("imageDigest", ""))


def pinned(aws: Aws, image: Image) -> Image:
    """The image by its digest; by its tag, with a warning, if AWS does not tell the digest.

    Raises AwsError if the answer may be another the next time.
    """
    if "@" in image.uri:
        return image
    try:
        digest = find_digest(aws, image.uri)
    except (AwsCredentials, AwsDenied, AwsMissing) as error:
        warning = (
            f"the image is named by its tag ({error.message}): AWS may move that to a newer build, "
            "and a rollback then gets the newer one"
        )
        return replace(image, warnings=(*image.warnings, warning))
    return replace(image, uri=f"{image.uri.rpartition(':')[0]}@{digest}", tagged=image.uri)

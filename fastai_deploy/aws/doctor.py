"""Whether a deploy would work, before it costs anything: checks that pass, warn or fail.

    credentials   whose they are                  bucket      ours, or another account's
    quota         of the instance type            image       in the region's registry
    stacks        nobody else's, nobody at work   artifact    stored

Each check says what mends it. None changes anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.aws import stacks
from fastai_deploy.aws.bucket import default_bucket, find_bucket
from fastai_deploy.aws.inventory import Names
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsError, FdeployError

Outcome = Literal["passed", "warned", "failed"]
_QUOTA_SERVICE = "sagemaker"
_IMAGE = re.compile(r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[^.]+)\.[^/]+/(?P<name>.+)")


@dataclass(frozen=True)
class Check:
    """What was looked at, and how it is; ``hint`` says what mends it."""

    name: str
    outcome: Outcome
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Subject:
    """What is to be deployed; ``instance`` None is serverless, ``bucket`` None is fdeploy's own."""

    owner: Owner
    bucket: str | None
    image: str
    instance: str | None
    count: int


class Doctor:
    """Looks at an account; never raises FdeployError."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def examine(self, subject: Subject) -> list[Check]:
        """All checks; where there are no credentials, that one alone."""
        found = [self._tried("credentials", self._credentials)]
        if found[0].outcome == "failed":
            return found
        found.append(self._tried("bucket", lambda: self._bucket(subject.bucket)))
        found.append(self._tried("image", lambda: self._image(subject.image)))
        if subject.instance:
            instance, count = subject.instance, subject.count
            found.append(self._tried("quota", lambda: self._quota(instance, count)))
        names = Names(subject.owner.project, subject.owner.stage).stacks
        found += [self._tried(f"stack {name}", self._looking_at(name, subject)) for name in names]
        return found

    def _tried(self, name: str, check: Callable[[], Check]) -> Check:
        """A check; one that may not be made warns, because a deploy may need less."""
        try:
            return check()
        except FdeployError as error:
            may_not = isinstance(error, AwsError) and error.code == "aws-denied"
            outcome: Outcome = "warned" if may_not else "failed"
            return Check(name, outcome, error.message, error.hint)

    def _credentials(self) -> Check:
        return Check(
            "credentials",
            "passed",
            f"{self._aws.caller} in account {self._aws.account}, region {self._aws.region}",
        )

    def _bucket(self, chosen: str | None) -> Check:
        bucket = find_bucket(self._aws, chosen)
        if bucket is not None:
            return Check("bucket", "passed", f"{bucket.name} is there and is this account's")
        if chosen is None:
            name = default_bucket(self._aws)
            return Check("bucket", "passed", f"{name} will be made by the first upload")
        return Check(
            "bucket",
            "failed",
            f"{chosen} does not exist",
            "make it, or remove bucket from [project]",
        )

    def _image(self, uri: str) -> Check:
        match = _IMAGE.fullmatch(uri)
        if match is None:
            return Check("image", "warned", f"{uri} is not in ECR", "name an image in ECR")
        repository, tag, digest = _parts(match["name"])
        identity = {"imageDigest": digest} if digest else {"imageTag": tag}
        answer = self._aws.elsewhere(match["region"]).call(
            "ecr",
            "batch_get_image",
            registryId=match["registry"],
            repositoryName=repository,
            imageIds=[identity],
        )
        if answer.get("images"):
            return Check("image", "passed", f"{uri} is there")
        return Check(
            "image", "failed", f"{uri} does not exist", "remove image from [endpoint], or mend it"
        )

    def _quota(self, instance: str, count: int) -> Check:
        name = f"{instance} for endpoint usage"
        value = next(self._quotas(name), None)
        if value is None:
            return Check(
                "quota", "warned", f"AWS lists no quota '{name}'", "look it up under Service Quotas"
            )
        if value < count:
            return Check(
                "quota",
                "failed",
                f"the account may have {value:g} {instance}, and {count} are wanted",
                f"ask for more under Service Quotas, Amazon SageMaker, '{name}'",
            )
        return Check("quota", "passed", f"the account may have {value:g} {instance}")

    def _quotas(self, name: str) -> Iterator[float]:
        for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
            pages = self._aws.pages("service-quotas", operation, ServiceCode=_QUOTA_SERVICE)
            for page in pages:
                for quota in page["Quotas"]:
                    if quota["QuotaName"] == name:
                        yield float(quota["Value"])

    def _looking_at(self, name: str, subject: Subject) -> Callable[[], Check]:
        return lambda: self._stack(name, subject.owner)

    def _stack(self, name: str, owner: Owner) -> Check:
        stack = stacks.our_stack(self._aws, name, owner)
        about = f"stack {name}"
        if stack is None:
            return Check(about, "passed", "is not there yet")
        if stack.working:
            return Check(about, "warned", f"is {stack.status}", "wait for it to end")
        if stack.status in stacks.READY or stack.status == stacks.REVIEW:
            return Check(about, "passed", f"is {stack.status}")
        return Check(about, "warned", f"is {stack.status}", "the next deploy clears it up")


def _parts(name: str) -> tuple[str, str, str]:
    """Repository, tag and digest of the last part of an image's URI."""
    repository, _, digest = name.partition("@")
    repository, _, tag = repository.partition(":")
    return repository, tag or "latest", digest

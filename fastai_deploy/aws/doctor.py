"""Checks that a deploy would work, before it costs anything: each passes, warns or fails.

    credentials   valid, and whose they are       bucket      owned by this account
    permissions   by IAM's policy simulator       image       in the region's registry
    quota         of the instance type            memory      estimated to be enough
    concurrency   of the account's functions      runtime     Lambda has the Python here
    stacks        owned, and not busy             limits      timeouts and sizes are consistent
    roles         the settings' own: of this account, there, and for their services

Each check says how to fix a problem. None changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws import stacks
from fastai_deploy.aws.bucket import bucket_key, default_bucket, find_bucket
from fastai_deploy.aws.capacity import MemoryEstimate
from fastai_deploy.aws.endpoint import instances_of
from fastai_deploy.aws.images import OWN, Family
from fastai_deploy.aws.inventory import MAKE_AGAIN, Inventory, Names
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.permission_check import check_permissions
from fastai_deploy.aws.permissions import Needs, user_policies
from fastai_deploy.aws.registry import find_digest, is_in_ecr
from fastai_deploy.aws.session import Aws, console_url
from fastai_deploy.aws.specs import Roles
from fastai_deploy.errors import (
    AwsDenied,
    AwsError,
    AwsMissing,
    AwsQuota,
    FdeployError,
    SettingsError,
    TargetUnavailable,
)
from fastai_deploy.packaging.wheels import FUNCTION
from fastai_deploy.records import counted
from fastai_deploy.stage_reports import Check, Outcome

_QUOTA_SERVICE = "sagemaker"
_CODE = "L-B99A9384"  # Lambda, concurrent executions
# "Configuring reserved concurrency for a function"; new accounts have 10.
_UNRESERVED, _FEW_AT_ONCE = 100, 10


@dataclass(frozen=True)
class Limits:
    """Timeouts in seconds and size limits in bytes, along the path of a request.

    A request passes the gateway, the Lambda and the endpoint; None means there is no gateway.
    """

    function_seconds: float | None
    gateway_seconds: float | None
    endpoint_seconds: float
    largest_request: int | None
    endpoint_takes: int


@dataclass(frozen=True)
class Subject:
    """What to check; ``instance`` None means serverless, ``bucket`` None fdeploy's own bucket.

    ``function`` is the reserved concurrency of the model's function, 0 for none; None without such
    a function, and ``image`` is empty with one.

    ``needs`` describes the required permissions, except those of ``unused`` services; ``estimate``
    is None if there is no model to measure. ``image_name`` has the tag in place of the digest.
    ``server`` is what serves in it; ``upload`` pushes fdeploy's own.
    ``count`` instances are started beside the ones in use,
    ``rolling`` if the settings replaced them batch by batch (0: they do, or it has too few).
    """

    owner: Owner
    needs: Needs
    unused: frozenset[str]
    bucket: str | None
    image: str
    image_name: str
    instance: str | None
    count: int
    rolling: int
    limits: Limits
    estimate: MemoryEstimate | None = None
    function: int | None = None
    server: Family = "ray-serve"

    @property
    def own_image(self) -> bool:
        """Whether the image is of fdeploy's own server."""
        return self.server == OWN


class Doctor:
    """Checks an account; only :meth:`require` raises, elsewhere failures become checks."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def credentials(self) -> Check:
        """Check the credentials, without which nothing else can be checked."""
        return self._tried("credentials", self._credentials)

    def examine(self, subject: Subject) -> list[Check]:
        """Run all other checks."""
        found = [
            self._tried("permissions", lambda: self._permissions(subject)),
            self._tried("bucket", lambda: self._bucket(subject.bucket)),
        ]
        if subject.needs.own_image and not subject.own_image:
            found.append(self._tried("own image", lambda: self._own_image(subject)))
        found += [self._tried(name, check) for name, check in self._needed(subject)]
        if subject.estimate:
            found.append(subject.estimate.check())
        found.append(_limits(subject.limits))
        names = Names(subject.owner.project, subject.owner.stage).stacks
        found += [self._tried(f"stack {name}", self._looking_at(name, subject)) for name in names]
        return found

    def require(self, subject: Subject) -> list[Check]:
        """Check what would otherwise make AWS fail after minutes; return the warnings.

        Raises AwsMissing for a missing image or role, AwsQuota for too low a quota,
        TargetUnavailable for a region whose Lambda lacks the Python, and SettingsError for a role
        that cannot be used or a model that does not fit in memory.
        """
        warned = []
        if subject.estimate:
            subject.estimate.require()
            if subject.estimate.tight:
                warned.append(subject.estimate.check())
        for name, check in self._needed(subject):
            try:
                made = check()
            except (AwsMissing, AwsQuota):
                raise
            except AwsError as error:
                made = Check(name, "warned", error.message, error.hint)
            if made.outcome == "warned":
                warned.append(made)
        return warned

    def _needed(self, subject: Subject) -> Iterator[tuple[str, Callable[[], Check]]]:
        roles = subject.needs.roles
        if roles != Roles():
            yield "roles", lambda: self._roles(roles)
        if subject.image:
            yield "image", lambda: self._image(subject)
        reserved = subject.function
        if reserved is not None:
            yield "runtime", self._runtime
            yield "concurrency", lambda: self._concurrency(reserved)
        instance = subject.instance
        if instance:
            yield "quota", lambda: self._quota(instance, subject)

    def _tried(self, name: str, check: Callable[[], Check]) -> Check:
        """Run a check; a missing permission only warns, because a deploy may not need it."""
        try:
            return check()
        except FdeployError as error:
            may_not = isinstance(error, AwsError) and error.code == "aws-denied"
            outcome: Outcome = "warned" if may_not else "failed"
            return Check(name, outcome, error.message, error.hint)

    def _credentials(self) -> Check:
        self._aws.check_account()
        return Check(
            "credentials",
            "passed",
            f"{self._aws.caller} in account {self._aws.account}, region {self._aws.region}",
        )

    def _permissions(self, subject: Subject) -> Check:
        documents = user_policies(subject.needs)
        if not self._makes_bucket(subject.bucket):
            documents = {name: each for name, each in documents.items() if name != "bucket"}
        if not subject.own_image:  # has a check of its own
            documents = {name: each for name, each in documents.items() if name != "images"}
        return self._simulated(documents, subject)

    def _simulated(self, documents: Mapping[str, Any], subject: Subject) -> Check:
        return check_permissions(
            self._aws, documents, subject.needs, subject.owner.stage, unused=subject.unused
        )

    def _own_image(self, subject: Subject) -> Check:
        """Whether the caller may keep images of fdeploy's own server; an image of AWS does too."""
        images = {"images": user_policies(subject.needs)["images"]}
        found = self._simulated(images, subject)
        if found.outcome == "passed":
            message = "the next fdeploy package may choose the image of fdeploy's own server"
            return Check("own image", "passed", message)
        return Check(
            "own image",
            "warned",
            f"an image of AWS serves, which takes more memory and starts later: {found.message}",
            f'{found.hint}; or set server = "{subject.server}" in [endpoint] to keep AWS\'s image',
        )

    def _makes_bucket(self, chosen: str | None) -> bool:
        """Whether the first upload will create the bucket; other problems have their own check."""
        try:
            return chosen is None and find_bucket(self._aws, None) is None
        except FdeployError:
            return False

    def _bucket(self, chosen: str | None) -> Check:
        bucket = find_bucket(self._aws, chosen)
        if bucket is not None:
            message = f"{bucket.name} exists and belongs to this account"
            key = bucket_key(self._aws, bucket)
            if key:
                message += f"; its objects have the key {key}, which the endpoint's role may use"
            return Check("bucket", "passed", message)
        if chosen is None:
            name = default_bucket(self._aws)
            return Check("bucket", "passed", f"the first upload will create {name}")
        return Check(
            "bucket",
            "failed",
            f"{chosen} does not exist",
            "create it, or remove bucket from [project]",
        )

    def _roles(self, roles: Roles) -> Check:
        settings = {
            "execution_role": (roles.execution, "sagemaker.amazonaws.com"),
            "lambda_role": (roles.function, "lambda.amazonaws.com"),
            "cloudformation_role": (roles.cloudformation, "cloudformation.amazonaws.com"),
        }
        given = {name: (arn, service) for name, (arn, service) in settings.items() if arn}
        for name, (arn, service) in given.items():
            self._check_role(name, arn, service)
        if roles.boundary:
            self._check_account("permissions_boundary", roles.boundary)
            self._aws.call("iam", "get_policy", PolicyArn=roles.boundary)
        named = [*given, *(["permissions_boundary"] if roles.boundary else [])]
        return Check("roles", "passed", f"{', '.join(named)}: they exist and fit")

    def _check_role(self, setting: str, arn: str, service: str) -> None:
        self._check_account(setting, arn)
        found = self._aws.call("iam", "get_role", RoleName=arn.rpartition("/")[2])["Role"]
        if found["Arn"] != arn:
            raise SettingsError(
                f"{setting} in [project] is {arn}, but the ARN of that role is {found['Arn']}",
                hint=f"set {setting} to that ARN",
            )
        if not _trusts(found["AssumeRolePolicyDocument"], service):
            raise SettingsError(
                f"{service} may not assume {arn} ({setting} in [project])",
                hint=f"add {service} to the trust policy of the role",
            )

    def _check_account(self, setting: str, arn: str) -> None:
        """Raise SettingsError for what belongs to another account, except AWS's own policies."""
        account = arn.split(":")[4]
        if account not in (self._aws.account, "aws"):
            raise SettingsError(
                f"{setting} in [project] belongs to account {account}, but the credentials are of "
                f"account {self._aws.account}: {arn}",
                hint=f"set {setting} to one of account {self._aws.account}, or choose other "
                "credentials with AWS_PROFILE",
            )

    def _image(self, subject: Subject) -> Check:
        uri = subject.image
        if not is_in_ecr(uri):
            return Check("image", "warned", f"{uri} is not in ECR", "choose an image in ECR")
        if subject.own_image and "@" not in uri:
            return Check("image", "passed", f"the next upload pushes {uri}")
        digest = find_digest(self._aws, uri)
        return Check(
            "image", "passed", f"{subject.image_name.partition('@')[0]} exists, as {digest}"
        )

    def _runtime(self) -> Check:
        """Check that Lambda knows the Python of the function in this region.

        No operation lists a region's runtimes. ``ListLayers`` refuses one that is not among them,
        names those, and changes nothing.
        """
        python, region = FUNCTION.python, self._aws.region
        try:
            self._aws.call("lambda", "list_layers", CompatibleRuntime=f"python{python}", MaxItems=1)
        except AwsError as error:
            if "compatibleRuntime" not in error.message or "enum value set" not in error.message:
                raise
            raise TargetUnavailable(
                f"Lambda has no Python {python} in {region}",
                hint="choose another --region, or set kind to serverless or real-time in "
                "[endpoint]",
            ) from None
        return Check("runtime", "passed", f"Lambda has Python {python} in {region}")

    def _concurrency(self, reserved: int) -> Check:
        """Compare the account's concurrency with what the function reserves, and its own need."""
        limits = self._aws.call("lambda", "get_account_settings")["AccountLimit"]
        most, free = limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]
        message = f"this account runs at most {most:,} functions at once here, {free:,} unreserved"
        url = console_url(self._aws.region, f"servicequotas/home/services/lambda/quotas/{_CODE}")
        if reserved and free - reserved < _UNRESERVED:
            raise AwsQuota(
                f"{message}; AWS keeps {_UNRESERVED} unreserved, and the settings reserve "
                f"{reserved}",
                hint=f"remove concurrency from [endpoint.function], or ask for more at {url}",
            )
        if most <= _FEW_AT_ONCE:
            hint = (
                f"Lambda refuses more requests at once; ask for more at {url}. Until then, burst = "
                f"{most} in [api] lets most callers get 429 and try again, instead of 500"
            )
            return Check("concurrency", "warned", message, hint)
        return Check("concurrency", "passed", message)

    def _quota(self, instance: str, subject: Subject) -> Check:
        """Compare the quota with what is in use and what is started beside it (blue/green)."""
        name = f"{instance} for endpoint usage"
        quota = next(self._quotas(name), None)
        if quota is None:
            return Check(
                "quota", "warned", f"AWS lists no quota '{name}'", "look it up under Service Quotas"
            )
        used, hidden = self._in_use(instance)
        value = float(quota["Value"])
        message = f"the account's quota is {value:g} {instance}, {used} of them in use"
        if hidden:
            message += f" (without {counted(hidden, 'endpoint')} that you may not look at)"
        if subject.count and value < used + subject.count:
            beside = " beside the old ones, which serve until the new ones do" if used else ""
            hint = self._more(quota, used + subject.count)
            if subject.rolling and value >= used + subject.rolling:
                hint = (
                    f"set rolling = true in [endpoint], which needs only {subject.rolling} more, "
                    f"or {hint}"
                )
            raise AwsQuota(f"{message}, and the settings need {subject.count}{beside}", hint=hint)
        return Check("quota", "passed", message)

    def _more(self, quota: Mapping[str, Any], wanted: int) -> str:
        """How to ask for a higher quota."""
        region, code = self._aws.region, quota["QuotaCode"]
        page = console_url(region, f"servicequotas/home/services/{_QUOTA_SERVICE}/quotas/{code}")
        return (
            f"request more '{quota['QuotaName']}': "
            f"aws service-quotas request-service-quota-increase --service-code {_QUOTA_SERVICE} "
            f"--quota-code {code} --desired-value {wanted} --region {region}, or at "
            f" {page}; or choose another --instance"
        )

    def _quotas(self, name: str) -> Iterator[Mapping[str, Any]]:
        for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
            pages = self._aws.pages("service-quotas", operation, ServiceCode=_QUOTA_SERVICE)
            for page in pages:
                for quota in page["Quotas"]:
                    if quota["QuotaName"] == name:
                        yield quota

    def _in_use(self, instance: str) -> tuple[int, int]:
        """How many instances of a type the endpoints here have, and how many may not be seen."""
        used = hidden = 0
        for page in self._aws.pages("sagemaker", "list_endpoints"):
            for item in page["Endpoints"]:
                found = self._seen(item["EndpointName"], instance)
                used += found or 0
                hidden += found is None
        return used, hidden

    def _seen(self, name: str, instance: str) -> int | None:
        """The instances of an endpoint; None for one that the caller may not look at."""
        try:
            return instances_of(self._aws, name, instance)
        except AwsDenied:
            return None

    def _looking_at(self, name: str, subject: Subject) -> Callable[[], Check]:
        return lambda: self._stack(name, subject.owner)

    def _stack(self, name: str, owner: Owner) -> Check:
        stack = stacks.our_stack(self._aws, name, owner)
        about = f"stack {name}"
        if stack is None:
            return Check(about, "passed", "does not exist yet")
        if stack.working:
            return Check(about, "warned", f"is {stack.status}", "wait for it to finish")
        if stack.status in stacks.READY and (gone := Inventory(self._aws, owner).gone(stack)):
            lost = ", ".join(map(str, gone))
            return Check(about, "failed", f"somebody has deleted {lost}", MAKE_AGAIN)
        if stack.status in stacks.READY or stack.status == stacks.REVIEW:
            return Check(about, "passed", f"is {stack.status}")
        return Check(about, "warned", f"is {stack.status}", "the next deploy cleans it up")


def _trusts(policy: Any, service: str) -> bool:
    """Whether a trust policy lets a service assume the role."""
    for statement in policy["Statement"]:
        services = statement.get("Principal", {}).get("Service", ())
        services = (services,) if isinstance(services, str) else services
        if statement["Effect"] == "Allow" and service in services:
            return True
    return False


def _limits(limits: Limits) -> Check:
    """Check that no timeout exceeds the one behind it, and that the largest request fits."""
    message = f"an endpoint answers within {limits.endpoint_seconds:g} s"
    if limits.function_seconds is None or limits.gateway_seconds is None:
        return Check("limits", "passed", f"{message}, and has no API in front of it")
    message = (
        f"the Lambda waits {limits.function_seconds:g} s, API Gateway "
        f"{limits.gateway_seconds:g} s, {message}"
    )
    if limits.function_seconds > min(limits.gateway_seconds, limits.endpoint_seconds):
        return Check("limits", "failed", message, "set a smaller timeout in [api]")
    largest = limits.largest_request or 0
    message += f"; a request has at most {largest:,} of {limits.endpoint_takes:,} allowed bytes"
    if largest > limits.endpoint_takes:
        return Check("limits", "failed", message, "set a smaller max_body in [api]")
    return Check("limits", "passed", message)

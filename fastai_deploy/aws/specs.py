"""Frozen records of what the stacks of a stage are to be; ``wanted.py`` makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from fastai_deploy.aws.images import Family
from fastai_deploy.aws.ownership import Owner

Kind = Literal["real-time", "serverless", "async", "lambda"]
Auth = Literal["key", "iam", "jwt", "none"]
VARIANT = "main"
# InvokeEndpoint waits 60 s; whatever stands behind it should give up with it.
INVOKE_SECONDS = 60
BATCH_PERCENT = 50  # of the instances, in a rolling update; the most that SageMaker takes


@dataclass(frozen=True)
class Roles:
    """ARNs of IAM roles of the user's own; fdeploy makes those of the stacks that are None.

    ``boundary`` is the permissions boundary of every role that fdeploy makes; ``cloudformation`` is
    the role that CloudFormation works with, instead of the caller's permissions.
    """

    boundary: str | None = None
    execution: str | None = None
    function: str | None = None
    cloudformation: str | None = None


@dataclass(frozen=True)
class Common:
    """What all stacks of a stage share. ``log_days`` are days, ``tags`` the user's own."""

    owner: Owner
    tags: tuple[tuple[str, str], ...]
    log_days: int
    kms_key: str | None = None
    alarm_topic: str | None = None
    roles: Roles = field(default_factory=Roles)


@dataclass(frozen=True)
class Location:
    """An object or a prefix in S3."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """As AWS writes it: ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Vpc:
    """The network that an endpoint's instances join."""

    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]


@dataclass(frozen=True)
class ModelSpec:
    """A container and its artifact; ``registry`` is the account that owns its repository.

    ``bucket_key``: the KMS key with which a bucket of the user's own encrypts by default.
    ``backend_url``: where the artifact's model server listens beside Ray Serve; empty if it answers
    through Ray, as the artifacts of earlier versions do.
    """

    image: str
    registry: str
    repository: str
    artifact: Location
    server: Family
    isolated: bool
    vpc: Vpc | None = None
    bucket_key: str | None = None
    backend_url: str = ""


@dataclass(frozen=True)
class Instances:
    """Instances that are paid by the hour; time-outs are in seconds.

    ``encrypts_volume``: the instance has a volume that a KMS key of the user's can encrypt.
    """

    type: str
    count: int
    startup_timeout: int
    download_timeout: int
    encrypts_volume: bool
    inference_ami: str | None = None


@dataclass(frozen=True)
class Serverless:
    """A serverless variant; ``memory`` is in MB."""

    memory: int
    concurrency: int
    provisioned: int | None = None


@dataclass(frozen=True)
class Scaling:
    """Autoscaling; ``target`` is per instance: invocations a minute, or for async the backlog."""

    minimum: int
    maximum: int
    target: float


@dataclass(frozen=True)
class Capture:
    """Data capture: ``percent`` of the requests and answers go below ``destination``."""

    percent: int
    destination: Location


@dataclass(frozen=True)
class Rollout:
    """How a new version takes over; ``bake`` is how many seconds the alarms watch it.

    ``rolling``: batch by batch, instead of a second fleet beside the first.
    """

    canary: bool
    bake: int
    rolling: bool = False


@dataclass(frozen=True)
class EndpointAlarms:
    """Thresholds: a share of the requests, milliseconds, and hours (0: no such alarm)."""

    errors: float
    latency: int
    idle: int


@dataclass(frozen=True)
class EndpointSpec:
    """The stack ``<project>-<stage>-endpoint``.

    ``version`` is the artifact's; ``output`` is where an asynchronous endpoint writes; ``warnings``
    are for people. ``unproven``: not all of the model's answers are proven, which ``status`` says.
    """

    common: Common
    name: str
    kind: Kind
    version: str
    model: ModelSpec
    capacity: Instances | Serverless
    rollout: Rollout
    alarms: EndpointAlarms
    scaling: Scaling | None = None
    capture: Capture | None = None
    output: Location | None = None
    dashboard: bool = True
    warnings: tuple[str, ...] = ()
    unproven: bool = False

    @property
    def fixed_instances(self) -> int:
        """How many instances it has; 0 if autoscaling decides, or it is serverless."""
        if self.scaling or isinstance(self.capacity, Serverless):
            return 0
        return self.capacity.count


@dataclass(frozen=True)
class Function:
    """The Lambda; ``timeout`` is in seconds, ``memory`` in MB.

    ``timeout_ms``: within how many milliseconds it answers, which it sees to itself.
    """

    name: str
    code: Location
    memory: int
    timeout: int
    timeout_ms: int
    concurrency: int | None = None


@dataclass(frozen=True)
class FunctionSpec:
    """The stack ``<project>-<stage>-function``: the model in a Lambda function.

    ``version`` is the artifact's; ``storage`` is the size of /tmp in MB; ``artifact`` is where the
    model's larger files are read from, None if they are in the package; ``function.timeout_ms``,
    ``route``, ``max_body`` and ``origins`` are the API's. ``canary`` is the share of the requests
    that a new version gets for ``bake`` seconds; 0 for none.
    """

    common: Common
    function: Function
    version: str
    storage: int
    snapstart: bool
    provisioned: int | None
    artifact: Location | None
    bucket_key: str | None
    vpc: Vpc | None
    route: str
    max_body: int
    origins: tuple[str, ...]
    canary: float
    bake: int
    unproven: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name


@dataclass(frozen=True)
class Jwt:
    """Whose tokens are accepted, and for whom they must be made."""

    issuer: str
    audience: tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    """A name of the user's own, and its certificate in ACM."""

    name: str
    certificate: str


@dataclass(frozen=True)
class Throttle:
    """Requests per second, requests at once, and requests a day (None: no limit)."""

    rate: float
    burst: int
    quota: int | None = None


@dataclass(frozen=True)
class ApiAlarms:
    """Thresholds: shares of the requests, and milliseconds."""

    errors: float
    client_errors: float
    latency: int


@dataclass(frozen=True)
class ApiSpec:
    """The stack ``<project>-<stage>-api``.

    ``version`` is that of the Lambda's code; texts are sent to ``route``, in a body of at most
    ``max_body`` bytes; ``page``: there is a page at ``/``; ``origins`` may call the API from their
    pages. ``embedded``: the model is in the function, which another stack has.
    """

    common: Common
    version: str
    endpoint: str
    function: Function
    type: Literal["rest", "http", "function-url"]
    auth: Auth
    route: str
    max_body: int
    page: bool
    throttle: Throttle
    origins: tuple[str, ...]
    access_logs: bool
    alarms: ApiAlarms
    jwt: Jwt | None = None
    domain: Domain | None = None
    warnings: tuple[str, ...] = ()
    embedded: bool = False


@dataclass(frozen=True)
class TtlSpec:
    """The stack ``<project>-<stage>-ttl``: at ``ends`` (UTC) it deletes the API and ``stack``."""

    common: Common
    version: str
    endpoint: str
    stack: str
    ends: datetime

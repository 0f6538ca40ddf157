"""What the stacks of a stage are to be: frozen records, from which the templates are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fastai_deploy.aws.ownership import Owner

Kind = Literal["real-time", "serverless", "async"]
Auth = Literal["key", "iam", "jwt", "none"]
VARIANT = "main"


@dataclass(frozen=True)
class Common:
    """What all stacks of a stage share. ``log_days`` are days, ``tags`` the user's own."""

    owner: Owner
    tags: tuple[tuple[str, str], ...]
    log_days: int
    kms_key: str | None = None
    alarm_topic: str | None = None


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
    """A container and its artifact; ``registry`` is the account that owns its repository."""

    image: str
    registry: str
    repository: str
    artifact: Location
    environment: tuple[tuple[str, str], ...]
    isolated: bool
    vpc: Vpc | None = None


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
    """How a new version takes over; ``bake`` is how many seconds the alarms watch it."""

    canary: bool
    bake: int


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


@dataclass(frozen=True)
class Function:
    """The Lambda; ``timeout`` is in seconds, ``memory`` in MB."""

    name: str
    code: Location
    handler: str
    environment: tuple[tuple[str, str], ...]
    memory: int
    timeout: int
    concurrency: int | None = None


@dataclass(frozen=True)
class Route:
    """A method and a path of the API; ``protected``: only for who is authorized."""

    method: str
    path: str
    protected: bool


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

    ``version`` is that of the Lambda's code; ``origins`` may call the API from their pages.
    """

    common: Common
    version: str
    endpoint: str
    function: Function
    type: Literal["rest", "http"]
    auth: Auth
    routes: tuple[Route, ...]
    throttle: Throttle
    origins: tuple[str, ...]
    access_logs: bool
    alarms: ApiAlarms
    jwt: Jwt | None = None
    domain: Domain | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TtlSpec:
    """The stack ``<project>-<stage>-ttl``: at ``ends`` (UTC) it deletes the other two."""

    common: Common
    version: str
    endpoint: str
    ends: datetime

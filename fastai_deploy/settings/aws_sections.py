"""``[endpoint]`` and ``[api]``: the model's endpoint, and the public API in front of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from fastai_deploy.settings.sections import Section

INSTANCE_PATTERN = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"
IMAGE_PATTERN = (
    r"^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.[a-z0-9.-]+/[a-z0-9][a-z0-9._/-]*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$"
)
SUBNET_PATTERN = r"^subnet-[0-9a-z]+$"
SECURITY_GROUP_PATTERN = r"^sg-[0-9a-z]+$"

SubnetId = Annotated[str, Field(pattern=SUBNET_PATTERN)]
SecurityGroupId = Annotated[str, Field(pattern=SECURITY_GROUP_PATTERN)]
# Read for one more release, and left out of the documentation.
DEPRECATED: dict[str, JsonValue] = {"deprecated": True}
# The sizes that Serverless Inference has, in MB.
ServerlessMemory = Literal[1024, 2048, 3072, 4096, 5120, 6144]


class ScalingSettings(Section):
    """Autoscaling of the endpoint's instances; endpoint.instance_count is the minimum."""

    max_instances: Annotated[
        int | None,
        Field(ge=1, le=100, description="AWS: most instances. Default: no autoscaling."),
    ] = None
    to_zero: Annotated[
        bool, Field(description="AWS, async only: no instance while there is nothing to do.")
    ] = False
    target: Annotated[
        float | None,
        Field(
            gt=0,
            le=1_000_000,
            description="AWS: what autoscaling aims at: invocations per minute and instance "
            "(default 1000), for async waiting requests per instance (default 5).",
        ),
    ] = None


class ServerlessSettings(Section):
    """A serverless endpoint: kind = "serverless" in [endpoint]."""

    memory: Annotated[ServerlessMemory, Field(description="AWS: memory in MB.")] = 3072
    concurrency: Annotated[
        int, Field(ge=1, le=200, description="AWS: requests answered at once.")
    ] = 10
    provisioned_concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            le=200,
            description="AWS: how many of them are kept warm, which costs by the hour.",
        ),
    ] = None


class AlarmSettings(Section):
    """CloudWatch alarms of the endpoint and of the API."""

    errors: Annotated[
        float,
        Field(gt=0, le=1, description="AWS: alarm when more than this share of requests fails."),
    ] = 0.05
    client_errors: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="AWS: alarm when the API answers more than this share with 4xx.",
        ),
    ] = 0.5
    latency: Annotated[
        int,
        Field(
            ge=1,
            le=60_000,
            description="AWS: alarm when the p95 is above so many ms, of the model or of the API.",
        ),
    ] = 5_000
    idle: Annotated[
        int,
        Field(
            ge=0,
            le=168,
            description="AWS: alarm after so many hours without a request to instances that are "
            "billed by the hour; 0: no alarm.",
        ),
    ] = 24


class EndpointSettings(Section):
    """The endpoint that answers invocations."""

    kind: Annotated[
        Literal["real-time", "serverless", "async"],
        Field(
            description="AWS: real-time (instances that are always on), serverless (no cost when "
            "idle, slow first answers, no GPU, no VPC) or async (a queue in S3, no API in front)."
        ),
    ] = "real-time"
    instance: Annotated[
        str | None,
        Field(
            pattern=INSTANCE_PATTERN,
            description="SageMaker instance type, such as ml.m5.large, which is also what AWS gets "
            "when none is named.",
        ),
    ] = None
    instance_count: Annotated[
        int, Field(ge=1, le=100, description="AWS: instances; with autoscaling, the minimum.")
    ] = 1
    server: Annotated[
        Literal["auto", "ray-serve", "torchserve"],
        Field(
            description="AWS: family of the container image; auto takes one that still gets "
            "patches wherever there is one."
        ),
    ] = "auto"
    image: Annotated[
        str | None,
        Field(
            pattern=IMAGE_PATTERN,
            description="AWS: container image in ECR to use instead of the one that fdeploy "
            "chooses.",
        ),
    ] = None
    startup_timeout: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="Seconds until the endpoint must be healthy; on AWS at least 60.",
        ),
    ] = 300.0
    download_timeout: Annotated[
        int,
        Field(
            ge=60,
            le=3600,
            description="AWS: seconds that an instance may take to fetch and unpack the artifact.",
        ),
    ] = 600
    subnets: Annotated[
        tuple[SubnetId, ...],
        Field(
            max_length=16,
            description="AWS: subnets of the VPC that the instances join, with security_groups. "
            "The VPC needs a way to S3, such as a gateway endpoint.",
        ),
    ] = ()
    security_groups: Annotated[
        tuple[SecurityGroupId, ...],
        Field(max_length=5, description="AWS: security groups of the instances in the VPC."),
    ] = ()
    network_isolation: Annotated[
        bool,
        Field(
            description="AWS: the container reaches no network at all. Serverless endpoints do "
            "without it, because AWS does."
        ),
    ] = True
    data_capture: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="AWS: percent of the requests and answers that are kept in the bucket. "
            "They hold the users' texts.",
        ),
    ] = 0
    canary: Annotated[
        bool,
        Field(
            description="AWS: a new version gets one instance's share of the requests first; needs "
            "two instances. Otherwise all requests move at once, when it is healthy."
        ),
    ] = False
    bake: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="AWS: seconds that the alarms watch a new version while the old one is "
            "kept ready; an alarm brings the old one back. 0: nobody watches, which lets a "
            "version be replaced whose alarms are on.",
        ),
    ] = 180
    scaling: ScalingSettings = ScalingSettings()
    serverless: ServerlessSettings = ServerlessSettings()
    alarm_errors: Annotated[
        float | None,
        Field(
            gt=0, le=1, description="Replaced by errors in [alarms].", json_schema_extra=DEPRECATED
        ),
    ] = None
    alarm_latency: Annotated[
        int | None,
        Field(
            ge=1,
            le=60_000,
            description="Replaced by latency in [alarms].",
            json_schema_extra=DEPRECATED,
        ),
    ] = None


ROUTE_PATTERN = r"^/[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
# A scheme and a host and no more: the origin is written into headers of the API's own answers.
ORIGIN_PATTERN = r"^(\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)$"
HOST_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
ISSUER_PATTERN = r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"
DOMAIN_PATTERN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$"
CERTIFICATE_PATTERN = r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+$"

# What API Gateway lets through (10 MB) is more than InvokeEndpoint takes (6 MB).
MAX_BODY_BYTES = 6_000_000
# The integration time-out of API Gateway is 29 s unless AWS raises it for an account.
MAX_GATEWAY_SECONDS = 29.0

Origin = Annotated[str, Field(pattern=ORIGIN_PATTERN)]
HostName = Annotated[str, Field(pattern=HOST_PATTERN)]
Example = Annotated[str, Field(min_length=1, max_length=1_000)]
Audience = Annotated[str, Field(min_length=1, max_length=1_000)]


class ApiSettings(Section):
    """The public API in front of the endpoint."""

    type: Annotated[
        Literal["rest", "http"],
        Field(
            description="AWS: kind of API Gateway: rest (API keys, quotas, errors of the contract "
            "throughout) or http (cheaper; for auth iam, jwt or none)."
        ),
    ] = "rest"
    auth: Annotated[
        Literal["key", "iam", "jwt", "none"],
        Field(
            description="AWS: who may call: key (x-api-key), iam (signed requests), jwt (tokens of "
            "an OpenID issuer, with type http) or none (everybody)."
        ),
    ] = "key"
    jwt_issuer: Annotated[
        str | None,
        Field(pattern=ISSUER_PATTERN, description="AWS, auth jwt: URL of the tokens' issuer."),
    ] = None
    jwt_audience: Annotated[
        tuple[Audience, ...],
        Field(max_length=50, description="AWS, auth jwt: audiences that a token may be for."),
    ] = ()
    route: Annotated[
        str, Field(pattern=ROUTE_PATTERN, description="Path of the POST route.", max_length=128)
    ] = "/classify"
    port: Annotated[
        int,
        Field(ge=0, le=65535, description="Port of the local API; 0 takes a free one."),
    ] = 0
    rate: Annotated[
        float, Field(gt=0, le=10_000, description="Requests per second that a key may send.")
    ] = 50.0
    burst: Annotated[
        int, Field(ge=1, le=5_000, description="Requests that a key may send at once.")
    ] = 100
    quota: Annotated[
        int | None, Field(ge=1, description="Requests a day that a key may send; none: no limit.")
    ] = None
    max_body: Annotated[
        int, Field(ge=1_024, le=MAX_BODY_BYTES, description="Largest request body in bytes.")
    ] = 1_048_576
    timeout: Annotated[
        float,
        Field(gt=0, le=MAX_GATEWAY_SECONDS, description="Seconds that a request may take."),
    ] = 29.0
    cors_origins: Annotated[
        tuple[Origin, ...],
        Field(
            max_length=50,
            description="Origins whose pages may call the API, such as https://example.com.",
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Field(
            max_length=50,
            description="Local: names that this machine's servers are reached by beside localhost "
            "and 127.0.0.1, such as that of a notebook server whose proxy leads here. Requests for "
            "any other name are refused.",
        ),
    ] = ()
    domain: Annotated[
        str | None,
        Field(
            pattern=DOMAIN_PATTERN,
            max_length=253,
            description="AWS: name of your own that the API is reached by, such as "
            "api.example.com; create-api tells what its DNS entry must point to.",
        ),
    ] = None
    certificate: Annotated[
        str | None,
        Field(
            pattern=CERTIFICATE_PATTERN,
            description="AWS: ARN of the domain's certificate in ACM, in the API's region.",
        ),
    ] = None
    page: Annotated[
        bool,
        Field(
            description="AWS: serve a page to try the API at /, to everybody; it asks for the key "
            "or token. On this machine it is always there."
        ),
    ] = False
    examples: Annotated[
        tuple[Example, ...],
        Field(max_length=12, description="Texts that the page offers to try; everybody sees them."),
    ] = (
        "An unexpected pleasure, from the first page to the last.",
        "It arrived late, and the box was open.",
        "The meeting is moved to Thursday at ten.",
    )
    memory: Annotated[
        int,
        Field(
            ge=128,
            le=10_240,
            description="AWS: memory of the Lambda in MB; its share of a processor grows with it.",
        ),
    ] = 512
    concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000,
            description="AWS: requests that the Lambda may answer at once, reserved for it. "
            "Default: what the account has.",
        ),
    ] = None
    access_logs: Annotated[
        bool,
        Field(description="AWS: one log line a request from API Gateway itself, without texts."),
    ] = True
    alarm_errors: Annotated[
        float | None,
        Field(
            gt=0, le=1, description="Replaced by errors in [alarms].", json_schema_extra=DEPRECATED
        ),
    ] = None
    alarm_latency: Annotated[
        int | None,
        Field(
            ge=1,
            le=30_000,
            description="Replaced by latency in [alarms].",
            json_schema_extra=DEPRECATED,
        ),
    ] = None

"""The sections ``[endpoint]`` and ``[api]``: the model's endpoint and the public API."""

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
# Accepted for one more release, and left out of the documentation.
DEPRECATED: dict[str, JsonValue] = {"deprecated": True}
ReplacedAlarmErrors = Annotated[
    float | None,
    Field(gt=0, le=1, description="Replaced by errors in [alarms].", json_schema_extra=DEPRECATED),
]
# Memory sizes of SageMaker Serverless Inference, in MB.
ServerlessMemory = Literal[1024, 2048, 3072, 4096, 5120, 6144]


class ScalingSettings(Section):
    """Autoscaling of the endpoint's instances; endpoint.instance_count is the minimum."""

    max_instances: Annotated[
        int | None,
        Field(ge=1, le=100, description="AWS: maximum instances. Default: no autoscaling."),
    ] = None
    to_zero: Annotated[
        bool, Field(description="AWS, async only: run no instance while the queue is empty.")
    ] = False
    target: Annotated[
        float | None,
        Field(
            gt=0,
            le=1_000_000,
            description="AWS: autoscaling target: invocations per minute per instance (default "
            "1000); for async, queued requests per instance (default 5).",
        ),
    ] = None


class ServerlessSettings(Section):
    """A serverless endpoint: kind = "serverless" in [endpoint]."""

    memory: Annotated[ServerlessMemory, Field(description="AWS: memory in MB.")] = 3072
    concurrency: Annotated[
        int, Field(ge=1, le=200, description="AWS: maximum concurrent requests.")
    ] = 10
    provisioned_concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            le=200,
            description="AWS: concurrency to keep warm, which is billed by the hour.",
        ),
    ] = None


class FunctionSettings(Section):
    """The model in a Lambda function: kind = "lambda" in [endpoint]."""

    memory: Annotated[
        int | None,
        Field(
            ge=128,
            le=10_240,
            description="AWS: memory in MB; the processor share grows with it, and 1769 is a whole "
            "core. Default: 1769, or more if the model needs it.",
        ),
    ] = None
    timeout: Annotated[
        int,
        Field(
            ge=1,
            le=900,
            description="AWS: seconds a request may take, loading the model included; more than "
            "timeout in [api].",
        ),
    ] = 60
    storage: Annotated[
        int | None,
        Field(
            ge=512,
            le=10_240,
            description="AWS: size of /tmp in MB, for a model that does not fit into the "
            "function's package. Default: 512, or more if the model needs it.",
        ),
    ] = None
    snapstart: Annotated[
        bool,
        Field(
            description="AWS: start from a snapshot with the loaded model. It shortens cold "
            "starts, and costs something for every version that exists and every start."
        ),
    ] = False
    concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000,
            description="AWS: reserved concurrency, which is also the maximum. Default: the "
            "account's shared concurrency.",
        ),
    ] = None
    provisioned_concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000,
            description="AWS: environments to keep warm, which are billed by the hour.",
        ),
    ] = None


class AlarmSettings(Section):
    """CloudWatch alarms of the endpoint and of the API."""

    errors: Annotated[
        float,
        Field(gt=0, le=1, description="AWS: alarm when more than this fraction of requests fails."),
    ] = 0.05
    client_errors: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="AWS: alarm when more than this fraction of the API's responses is 4xx.",
        ),
    ] = 0.5
    latency: Annotated[
        int,
        Field(
            ge=1,
            le=60_000,
            description="AWS: alarm if the model's or the API's p95 latency exceeds this many ms.",
        ),
    ] = 5_000
    idle: Annotated[
        int,
        Field(
            ge=0,
            le=168,
            description="AWS: alarm when instances billed by the hour have had no request for this "
            "many hours; 0 turns it off.",
        ),
    ] = 24


class EndpointSettings(Section):
    """The endpoint that serves the model."""

    kind: Annotated[
        Literal["real-time", "serverless", "async", "lambda"],
        Field(
            description="AWS: real-time (instances that are always on), serverless (no cost when "
            "idle; cold starts, no GPU, no VPC), async (requests queued in S3; no public API) or "
            "lambda (the model in the API's own function: no cost when idle, no instance quota)."
        ),
    ] = "real-time"
    instance: Annotated[
        str | None,
        Field(
            pattern=INSTANCE_PATTERN,
            description="SageMaker instance type. Selects the AWS target; there, the default is "
            "ml.m5.large.",
        ),
    ] = None
    instance_count: Annotated[
        int,
        Field(ge=1, le=100, description="AWS: instances; with autoscaling, the minimum."),
    ] = 1
    server: Annotated[
        Literal["auto", "fdeploy", "ray-serve", "torchserve"],
        Field(
            description="AWS: what serves the model. fdeploy is fdeploy's own server in an image "
            "that fdeploy makes and pushes to ECR; ray-serve and torchserve are AWS's images. auto "
            "is fdeploy for a converted model on a processor, where the account allows it; else an "
            "image of AWS that still receives security patches."
        ),
    ] = "auto"
    image: Annotated[
        str | None,
        Field(
            pattern=IMAGE_PATTERN,
            description="AWS: container image in ECR to use instead of the one fdeploy selects.",
        ),
    ] = None
    startup_timeout: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="Seconds the endpoint has to become healthy; at least 60 on AWS.",
        ),
    ] = 300.0
    download_timeout: Annotated[
        int,
        Field(
            ge=60,
            le=3600,
            description="AWS: seconds an instance has to download and unpack the artifact.",
        ),
    ] = 600
    subnets: Annotated[
        tuple[SubnetId, ...],
        Field(
            max_length=16,
            description="AWS: VPC subnets for the instances; requires security_groups. The VPC "
            "needs a route to S3, such as a gateway endpoint.",
        ),
    ] = ()
    security_groups: Annotated[
        tuple[SecurityGroupId, ...],
        Field(
            max_length=5,
            description="AWS: VPC security groups for the instances; requires subnets.",
        ),
    ] = ()
    network_isolation: Annotated[
        bool,
        Field(
            description="AWS: run the container without any network access. Not applied to "
            "serverless endpoints, which do not support it."
        ),
    ] = True
    data_capture: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="AWS: percentage of requests and answers to capture in the bucket. They "
            "contain your users' texts.",
        ),
    ] = 0
    data_retention: Annotated[
        int,
        Field(
            ge=0,
            le=3650,
            description="AWS: days after which captured data, and the requests and answers of an "
            "async endpoint, are deleted from fdeploy's bucket; 0 keeps them. A bucket of your own "
            "keeps its own rules.",
        ),
    ] = 30
    canary: Annotated[
        bool,
        Field(
            description="AWS: shift one instance's share of the traffic to a new version first; "
            "needs at least two instances. For kind lambda, a tenth of it for bake seconds. "
            "Otherwise all traffic shifts at once, when the new "
            "version is healthy."
        ),
    ] = False
    rolling: Annotated[
        bool,
        Field(
            description="AWS: replace the instances of an update batch by batch, half of them at a "
            "time; needs at least two. Otherwise a second fleet starts beside the first "
            "(blue/green), which needs a quota for both."
        ),
    ] = False
    bake: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="AWS: seconds to watch the alarms after a deploy while the old version is "
            "kept ready; an alarm rolls back to it. An alarm needs two bad minutes, and their "
            "metrics come up to two minutes late: below 240 it may come too late. 0 turns this "
            "off, which makes it possible to replace a version whose alarms are firing.",
        ),
    ] = 300
    scaling: ScalingSettings = ScalingSettings()
    serverless: ServerlessSettings = ServerlessSettings()
    function: FunctionSettings = FunctionSettings()
    alarm_errors: ReplacedAlarmErrors = None
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
# Only a scheme and a host: the origin is copied into response headers.
ORIGIN_PATTERN = r"^(\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)$"
HOST_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
ISSUER_PATTERN = r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"
DOMAIN_PATTERN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$"
CERTIFICATE_PATTERN = r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+$"

# API Gateway accepts 10 MB, but InvokeEndpoint only 6 MB.
MAX_BODY_BYTES = 6_000_000
# The integration timeout of API Gateway is 29 s unless AWS raises it for an account.
MAX_GATEWAY_SECONDS = 29.0

Origin = Annotated[str, Field(pattern=ORIGIN_PATTERN)]
HostName = Annotated[str, Field(pattern=HOST_PATTERN)]
Example = Annotated[str, Field(min_length=1, max_length=1_000)]
Audience = Annotated[str, Field(min_length=1, max_length=1_000)]


class ApiSettings(Section):
    """The public API in front of the endpoint."""

    type: Annotated[
        Literal["rest", "http", "function-url"],
        Field(
            description="AWS: API Gateway type: rest (API keys, quotas, and all errors in the "
            "contract's format) or http (cheaper; with auth iam, jwt or none); or function-url, "
            "without API Gateway, for kind lambda with auth iam or none."
        ),
    ] = "rest"
    auth: Annotated[
        Literal["key", "iam", "jwt", "none"],
        Field(
            description="AWS: authentication: key (x-api-key header), iam (signed requests), jwt "
            "(tokens of an OpenID issuer; requires type http) or none (open to everyone)."
        ),
    ] = "key"
    jwt_issuer: Annotated[
        str | None,
        Field(pattern=ISSUER_PATTERN, description="AWS, auth jwt: URL of the token issuer."),
    ] = None
    jwt_audience: Annotated[
        tuple[Audience, ...],
        Field(max_length=50, description="AWS, auth jwt: accepted token audiences."),
    ] = ()
    route: Annotated[
        str,
        Field(
            pattern=ROUTE_PATTERN,
            description="Path that classifies texts (POST).",
            max_length=128,
        ),
    ] = "/classify"
    port: Annotated[
        int,
        Field(ge=0, le=65535, description="Port of the local API; 0 picks a free one."),
    ] = 0
    rate: Annotated[
        float, Field(gt=0, le=10_000, description="Requests per second allowed per key.")
    ] = 50.0
    burst: Annotated[
        int, Field(ge=1, le=5_000, description="Requests allowed at once per key (burst).")
    ] = 100
    quota: Annotated[
        int | None,
        Field(ge=1, description="Requests per day allowed per key. Default: no limit."),
    ] = None
    max_body: Annotated[
        int, Field(ge=1_024, le=MAX_BODY_BYTES, description="Maximum request body in bytes.")
    ] = 1_048_576
    timeout: Annotated[
        float,
        Field(gt=0, le=MAX_GATEWAY_SECONDS, description="Request timeout in seconds."),
    ] = 29.0
    cors_origins: Annotated[
        tuple[Origin, ...],
        Field(
            max_length=50,
            description="CORS: origins whose pages may call the API, such as https://example.com.",
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Field(
            max_length=50,
            description="Local: host names accepted besides localhost and 127.0.0.1, such as that "
            "of a notebook server that proxies to this machine. Requests for other names are "
            "refused.",
        ),
    ] = ()
    domain: Annotated[
        str | None,
        Field(
            pattern=DOMAIN_PATTERN,
            max_length=253,
            description="AWS: custom domain name for the API, such as api.example.com. create-api "
            "prints the DNS record to create.",
        ),
    ] = None
    certificate: Annotated[
        str | None,
        Field(
            pattern=CERTIFICATE_PATTERN,
            description="AWS: ARN of the domain's ACM certificate, in the API's region.",
        ),
    ] = None
    page: Annotated[
        bool,
        Field(
            description="AWS: serve a public demo page at /, which asks for the key or token. The "
            "local API always serves it."
        ),
    ] = False
    examples: Annotated[
        tuple[Example, ...],
        Field(
            max_length=12,
            description="Example texts on the demo page; anyone who opens it sees them.",
        ),
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
            description="AWS: Lambda memory in MB; its CPU share grows with it.",
        ),
    ] = 512
    concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            le=1_000,
            description="AWS: reserved concurrency of the Lambda. Default: the account's shared "
            "concurrency.",
        ),
    ] = None
    access_logs: Annotated[
        bool,
        Field(description="AWS: have API Gateway log one line per request, without its text."),
    ] = True
    alarm_errors: ReplacedAlarmErrors = None
    alarm_latency: Annotated[
        int | None,
        Field(
            ge=1,
            le=30_000,
            description="Replaced by latency in [alarms].",
            json_schema_extra=DEPRECATED,
        ),
    ] = None

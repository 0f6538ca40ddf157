"""``[endpoint]``: what answers invocations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fastai_deploy.settings.section import Section

INSTANCE_PATTERN = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"
IMAGE_PATTERN = (
    r"^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.[a-z0-9.-]+/[a-z0-9][a-z0-9._/-]*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$"
)
SUBNET_PATTERN = r"^subnet-[0-9a-z]+$"
SECURITY_GROUP_PATTERN = r"^sg-[0-9a-z]+$"

SubnetId = Annotated[str, Field(pattern=SUBNET_PATTERN)]
SecurityGroupId = Annotated[str, Field(pattern=SECURITY_GROUP_PATTERN)]
# The sizes that Serverless Inference has, in MB.
ServerlessMemory = Literal[1024, 2048, 3072, 4096, 5120, 6144]


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
        int, Field(ge=1, le=100, description="AWS: instances; with max_instances, the fewest.")
    ] = 1
    max_instances: Annotated[
        int | None,
        Field(ge=1, le=100, description="AWS: autoscale up to so many. Default: no autoscaling."),
    ] = None
    scale_to_zero: Annotated[
        bool, Field(description="AWS, async only: no instance while there is nothing to do.")
    ] = False
    scaling_target: Annotated[
        float | None,
        Field(
            gt=0,
            le=1_000_000,
            description="AWS: what autoscaling aims at: invocations per minute and instance "
            "(default 1000), for async waiting requests per instance (default 5).",
        ),
    ] = None
    serverless_memory: Annotated[
        ServerlessMemory, Field(description="AWS, serverless only: memory in MB.")
    ] = 3072
    serverless_concurrency: Annotated[
        int, Field(ge=1, le=200, description="AWS, serverless only: requests answered at once.")
    ] = 10
    provisioned_concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            le=200,
            description="AWS, serverless only: so many of them kept warm, which costs by the hour.",
        ),
    ] = None
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
    alarm_errors: Annotated[
        float,
        Field(gt=0, le=1, description="AWS: alarm when more than this share of requests fails."),
    ] = 0.05
    alarm_latency: Annotated[
        int,
        Field(ge=1, le=60_000, description="AWS: alarm when the model's p95 is above so many ms."),
    ] = 5_000
    alarm_idle: Annotated[
        int,
        Field(
            ge=0,
            le=168,
            description="AWS: alarm after so many hours without a request to instances that cost "
            "by the hour; 0: none.",
        ),
    ] = 24

"""How settings, artifact and image decide what the stacks of a stage are to be. Pure.

settings ── instance, image ──┐
stored artifact ──────────────┴─> EndpointSpec ──name──> ApiSpec, TtlSpec
stored artifact, package ───────> FunctionSpec ──┘
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from fastai_deploy.aws.capacity import (
    DEFAULT_INSTANCE,
    Instance,
    function_memory,
    instance,
)
from fastai_deploy.aws.images import Image
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.specs import (
    ApiAlarms,
    ApiSpec,
    Capture,
    Common,
    Domain,
    EndpointAlarms,
    EndpointSpec,
    Function,
    FunctionSpec,
    Instances,
    Jwt,
    Location,
    ModelSpec,
    Roles,
    Rollout,
    Scaling,
    Serverless,
    Throttle,
    TtlSpec,
    Vpc,
)
from fastai_deploy.errors import SettingsError
from fastai_deploy.naming import (
    async_prefix,
    captured_prefix,
    endpoint_name,
    function_name,
    model_stack,
)
from fastai_deploy.records import StoredArtifact
from fastai_deploy.settings import Settings

# Two periods of an alarm, and what metrics may be late.
_LEAST_BAKE = 240  # seconds
_LEAST_STARTUP = 60  # ContainerStartupHealthCheckTimeoutInSeconds
_INVOCATIONS_A_MINUTE = 1_000.0
_BACKLOG = 5.0  # AWS's own example
_NEW_ACCOUNT_MB = 3_008
_MB = 1 << 20
_LEAST_STORAGE = 512
_BESIDE = 24  # MB of /tmp for the model's smaller files and all else
_CANARY = 0.1


def wanted_instance(settings: Settings, known: Sequence[str]) -> Instance:
    """The instance type of the settings; for a serverless endpoint what it is most like.

    Raises SettingsError for a type that there is not, or that the kind of endpoint cannot have.
    """
    endpoint = settings.sections.endpoint
    found = instance(endpoint.instance or DEFAULT_INSTANCE, known)
    if endpoint.kind == "serverless":
        if found.accelerator != "none":
            raise SettingsError(
                f"a serverless endpoint has no {found.accelerator}, and {found.type} is named",
                hint="set kind to real-time in [endpoint], or name a processor, or no instance",
            )
        return Instance(DEFAULT_INSTANCE)
    if found.burstable and _scaling(settings):
        raise SettingsError(
            f"SageMaker does not autoscale burstable instances such as {found.type}",
            hint="choose another instance, or remove max_instances from [endpoint.scaling]",
        )
    return found


# "Supported Regions" of Serverless Inference in the SageMaker guide, as of 2026-11-28.
_SERVERLESS_REGIONS = frozenset(
    (
        *("af-south-1", "ap-east-1", "ap-south-1", "me-south-1", "sa-east-1", "ca-central-1"),
        *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-southeast-1", "ap-southeast-2"),
        *("eu-central-1", "eu-north-1", "eu-south-1", "eu-west-1", "eu-west-2", "eu-west-3"),
        *("us-east-1", "us-east-2", "us-west-1", "us-west-2"),
    )
)


def check_region(settings: Settings, region: str) -> None:
    """Raise SettingsError for a serverless endpoint in China or GovCloud, where AWS has none."""
    if settings.sections.endpoint.kind == "serverless" and region.startswith(("cn-", "us-gov-")):
        raise SettingsError(
            f"AWS has no serverless endpoints in {region}",
            hint="set kind to real-time in [endpoint], or choose another region, such as "
            "eu-central-1",
        )


def check_arns(settings: Settings, region: str) -> None:
    """Raise SettingsError if the settings name something of another region than the stage's.

    CloudFormation would find out after minutes. Sources: "Using Amazon CloudWatch alarms" (actions
    of the alarm's region), "Using keys in other AWS services" of KMS, and "Custom domain name for
    public REST APIs" (a regional certificate).
    """
    sections = settings.sections
    named = {
        "project.kms_key": sections.project.kms_key,
        "project.alarm_topic": sections.project.alarm_topic,
        "api.certificate": sections.api.certificate,
    }
    for key, arn in named.items():
        theirs = (arn or "").split(":")[3:4]
        if arn and theirs != [region]:
            raise SettingsError(
                f"{key} is in {theirs[0]}, and the stage in {region}, which can only use its own",
                hint=f"name one of {region}, or remove {key}",
            )


def region_warnings(settings: Settings, region: str) -> tuple[str, ...]:
    """A warning for a serverless endpoint in a region that may have none."""
    if settings.sections.endpoint.kind != "serverless" or region in _SERVERLESS_REGIONS:
        return ()
    return (f"AWS did not list {region} among the regions with serverless endpoints",)


def endpoint_spec(
    settings: Settings,
    stored: StoredArtifact,
    image: Image,
    on: Instance,
    bucket_key: str | None = None,
) -> EndpointSpec:
    """The endpoint's stack. Raises SettingsError when the artifact is not in S3."""
    endpoint, stage = settings.sections.endpoint, settings.stage
    alarms = settings.sections.alarms
    project, version = settings.project_name, stored.version
    artifact = _location(stored.uri)
    capture = None
    if endpoint.data_capture:
        place = Location(artifact.bucket, captured_prefix(project, stage))
        capture = Capture(endpoint.data_capture, place)
    queue = None
    if endpoint.kind == "async":
        queue = Location(artifact.bucket, async_prefix(project, stage))
    return EndpointSpec(
        common=_common(settings),
        name=endpoint_name(project, stage, endpoint.kind),
        kind=endpoint.kind,
        version=version,
        model=ModelSpec(
            image=image.uri,
            registry=image.registry,
            repository=image.repository,
            artifact=artifact,
            server=image.family,
            isolated=endpoint.network_isolation and endpoint.kind != "serverless",
            vpc=Vpc(endpoint.subnets, endpoint.security_groups) if endpoint.subnets else None,
            bucket_key=None if bucket_key == settings.sections.project.kms_key else bucket_key,
            backend_url=stored.backend_url,
        ),
        capacity=_capacity(settings, image, on),
        rollout=Rollout(endpoint.canary, endpoint.bake, endpoint.rolling),
        alarms=EndpointAlarms(
            endpoint.alarm_errors or alarms.errors,
            endpoint.alarm_latency or alarms.latency,
            alarms.idle,
        ),
        scaling=_scaling(settings),
        capture=capture,
        output=queue,
        dashboard=settings.sections.project.dashboard,
        warnings=(*image.warnings, *_endpoint_warnings(settings)),
        unproven=stored.unproven,
    )


def function_spec(
    settings: Settings,
    stored: StoredArtifact,
    code: Location,
    *,
    size: int,
    reads: bool,
    bucket_key: str | None = None,
) -> FunctionSpec:
    """The function's stack; ``size`` is the bytes of the model, ``reads`` as in FunctionCode.

    Raises SettingsError for storage that does not hold the model, or what excludes SnapStart.
    """
    endpoint, api = settings.sections.endpoint, settings.sections.api
    memory = endpoint.function.memory or function_memory(size)
    files = math.ceil(size / _MB) + _BESIDE if reads else 0
    storage = endpoint.function.storage or max(_LEAST_STORAGE, files)
    if storage < files:
        raise SettingsError(
            f"the model's files have {files} MB, and storage in [endpoint.function] is {storage}",
            hint=f"set storage to at least {files}, or remove it",
        )
    if endpoint.function.snapstart and storage > _LEAST_STORAGE:
        raise SettingsError(
            f"the model needs {storage} MB of /tmp, and SnapStart allows {_LEAST_STORAGE}",
            hint="set snapstart = false in [endpoint.function]",
        )
    name = endpoint_name(settings.project_name, settings.stage, "lambda")
    return FunctionSpec(
        common=_common(settings),
        function=Function(
            name=name,
            code=code,
            memory=memory,
            timeout=endpoint.function.timeout,
            timeout_ms=round(api.timeout * 1_000),
            concurrency=endpoint.function.concurrency,
        ),
        version=stored.version,
        storage=storage,
        snapstart=endpoint.function.snapstart,
        provisioned=endpoint.function.provisioned_concurrency,
        artifact=_location(stored.uri) if reads else None,
        bucket_key=None if bucket_key == settings.sections.project.kms_key else bucket_key,
        vpc=Vpc(endpoint.subnets, endpoint.security_groups) if endpoint.subnets else None,
        route=api.route,
        max_body=api.max_body,
        origins=api.cors_origins,
        canary=_CANARY if endpoint.canary else 0,
        bake=endpoint.bake,
        unproven=stored.unproven,
        warnings=tuple(_function_warnings(settings, memory)),
    )


def _function_warnings(settings: Settings, memory: int) -> Iterator[str]:
    endpoint = settings.sections.endpoint
    if endpoint.instance:
        yield f"endpoint.instance ({endpoint.instance}) is not used: the model is in a function"
    if memory > _NEW_ACCOUNT_MB:
        yield (
            f"the function has {memory:,} MB; a new account may have a quota of "
            f"{_NEW_ACCOUNT_MB:,}, which AWS raises by use"
        )
    if endpoint.function.provisioned_concurrency:
        yield "provisioned_concurrency is paid by the hour, asked or not"
    if endpoint.function.snapstart:
        yield "AWS charges for a SnapStart snapshot while it exists, and for each start from it"


def api_spec(
    settings: Settings, *, code: Location, code_version: str, gateway_logs: bool
) -> ApiSpec:
    """The API's stack; ``code`` is where the Lambda's package stands.

    ``gateway_logs`` says whether the account lets REST APIs write logs (GetAccount has a
    cloudwatchRoleArn). Raises SettingsError for an endpoint that no API can stand before.
    """
    api, endpoint = settings.sections.api, settings.sections.endpoint
    alarms = settings.sections.alarms
    project, stage = settings.project_name, settings.stage
    if endpoint.kind == "async":
        raise SettingsError(
            "an asynchronous endpoint answers through S3, for which no API can wait",
            hint='set kind to "real-time" or "serverless" in [endpoint]',
        )
    name, embedded = endpoint_name(project, stage, endpoint.kind), endpoint.kind == "lambda"
    no_logs = api.access_logs and api.type == "rest" and not gateway_logs
    return ApiSpec(
        common=_common(settings),
        version=code_version[:12],
        endpoint=name,
        function=Function(
            name=name if embedded else function_name(project, stage),
            code=code,
            memory=api.memory,
            timeout=math.ceil(api.timeout),
            timeout_ms=round(api.timeout * 1_000),
            concurrency=api.concurrency,
        ),
        embedded=embedded,
        type=api.type,
        auth=api.auth,
        route=api.route,
        max_body=api.max_body,
        page=api.page,
        throttle=Throttle(api.rate, api.burst, api.quota),
        origins=api.cors_origins,
        access_logs=api.access_logs and not no_logs,
        alarms=ApiAlarms(
            api.alarm_errors or alarms.errors,
            alarms.client_errors,
            api.alarm_latency or alarms.latency,
        ),
        jwt=Jwt(api.jwt_issuer, api.jwt_audience) if api.auth == "jwt" and api.jwt_issuer else None,
        domain=Domain(api.domain, api.certificate) if api.domain and api.certificate else None,
        warnings=tuple(_api_warnings(settings, no_logs=no_logs)),
    )


def ttl_spec(settings: Settings, *, version: str, ends: datetime) -> TtlSpec:
    """The stack that ends the stage at a date in UTC."""
    kind = settings.sections.endpoint.kind
    return TtlSpec(
        common=_common(settings),
        version=version[:12],
        endpoint=endpoint_name(settings.project_name, settings.stage, kind),
        stack=model_stack(settings.project_name, settings.stage, kind),
        ends=ends,
    )


def _common(settings: Settings) -> Common:
    project = settings.sections.project
    return Common(
        owner=Owner(settings.project_name, settings.stage),
        tags=tuple(sorted(project.tags.items())),
        log_days=project.log_retention,
        kms_key=project.kms_key,
        alarm_topic=project.alarm_topic,
        roles=wanted_roles(settings),
    )


def wanted_roles(settings: Settings) -> Roles:
    """The roles that the settings name."""
    project = settings.sections.project
    return Roles(
        boundary=project.permissions_boundary,
        execution=project.execution_role,
        function=project.lambda_role,
        cloudformation=project.cloudformation_role,
    )


def _location(uri: str) -> Location:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not key:
        raise SettingsError(
            f"the artifact is stored at {uri}, and not in S3", hint="run fdeploy upload"
        )
    return Location(bucket, key)


def _capacity(settings: Settings, image: Image, on: Instance) -> Instances | Serverless:
    endpoint = settings.sections.endpoint
    if endpoint.kind == "serverless":
        return Serverless(
            endpoint.serverless.memory,
            endpoint.serverless.concurrency,
            endpoint.serverless.provisioned_concurrency,
        )
    return Instances(
        type=on.type,
        count=endpoint.instance_count,
        startup_timeout=max(_LEAST_STARTUP, math.ceil(endpoint.startup_timeout)),
        download_timeout=endpoint.download_timeout,
        encrypts_volume=settings.sections.project.kms_key is not None and not on.has_local_disk,
        inference_ami=image.inference_ami,
    )


def _scaling(settings: Settings) -> Scaling | None:
    endpoint = settings.sections.endpoint
    least = 0 if endpoint.scaling.to_zero else endpoint.instance_count
    most = endpoint.scaling.max_instances or endpoint.instance_count
    if endpoint.kind == "serverless" or least == most:
        return None
    usual = _BACKLOG if endpoint.kind == "async" else _INVOCATIONS_A_MINUTE
    return Scaling(least, most, endpoint.scaling.target or usual)


def _endpoint_warnings(settings: Settings) -> Iterator[str]:
    endpoint = settings.sections.endpoint
    if endpoint.kind == "serverless":
        if endpoint.instance:
            yield f"endpoint.instance ({endpoint.instance}) is not used: it is serverless"
        if endpoint.scaling.max_instances:
            yield "max_instances is not used: a serverless endpoint scales by itself"
        if endpoint.server == "ray-serve":
            yield "Ray needs shared memory, which a serverless endpoint most likely does not have"
        if not endpoint.serverless.provisioned_concurrency:
            yield (
                "after a pause the first request waits until the model is loaded; if that takes "
                "longer than the 29 s of API Gateway, it is answered with 504. "
                "provisioned_concurrency in [endpoint.serverless] keeps the model loaded"
            )
    elif 0 < endpoint.bake < _LEAST_BAKE:
        yield (
            f"an alarm cannot stop a new version within {endpoint.bake} s (bake in [endpoint]): "
            f"it needs two bad minutes, and metrics come late; set at least {_LEAST_BAKE}"
        )
    if endpoint.data_capture:
        yield f"{endpoint.data_capture} % of the users' texts are kept in the bucket"


def _api_warnings(settings: Settings, *, no_logs: bool) -> Iterator[str]:
    api = settings.sections.api
    if api.type == "function-url":
        yield "a function URL has no rate limit: concurrency in [endpoint.function] is the only one"
    if api.auth == "none":
        yield 'the API is open to everybody (auth = "none"), and every request costs money'
    if "*" in api.cors_origins:
        yield "every web page may call the API (cors_origins has *)"
    if api.type == "http":
        yield "what an HTTP API refuses itself it says in AWS's words, not the contract's"
    if no_logs:
        yield (
            "there is no access log: API Gateway has no role to write logs with in this account "
            "and region (its settings, CloudWatch log role ARN)"
        )

"""From the settings, the stored artifact and the image to what the stacks are to be. Pure.

settings ── instance, image ──┐
stored artifact ──────────────┴─> EndpointSpec ──name──> ApiSpec, TtlSpec
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from fastai_deploy.aws.capacity import DEFAULT_INSTANCE, Instance, instance
from fastai_deploy.aws.images import Image
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.template.spec import (
    ApiAlarms,
    ApiSpec,
    Capture,
    Common,
    Domain,
    EndpointAlarms,
    EndpointSpec,
    Function,
    Instances,
    Jwt,
    Location,
    ModelSpec,
    Rollout,
    Route,
    Scaling,
    Serverless,
    Throttle,
    TtlSpec,
    Vpc,
)
from fastai_deploy.errors import SettingsError
from fastai_deploy.naming import async_prefix, captured_prefix, endpoint_name, function_name
from fastai_deploy.packaging.lambda_zip import HANDLER
from fastai_deploy.records import StoredArtifact
from fastai_deploy.runtime.contract import HEALTH, OPENAPI, PAGE
from fastai_deploy.runtime.telemetry import SWITCHES
from fastai_deploy.settings import Settings

# InvokeEndpoint waits 60 s; whatever stands behind it should give up with it.
INVOKE_SECONDS = 60
_LEAST_STARTUP = 60  # ContainerStartupHealthCheckTimeoutInSeconds
_INVOCATIONS_A_MINUTE = 1_000.0
_BACKLOG = 5.0  # AWS's own example
_MODEL_DIR = "/opt/ml/model"


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


def endpoint_spec(
    settings: Settings, stored: StoredArtifact, image: Image, on: Instance
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
            environment=tuple(sorted(_container(settings, image, version))),
            isolated=endpoint.network_isolation and endpoint.kind != "serverless",
            vpc=Vpc(endpoint.subnets, endpoint.security_groups) if endpoint.subnets else None,
        ),
        capacity=_capacity(settings, image, on),
        rollout=Rollout(endpoint.canary, endpoint.bake),
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
    name = endpoint_name(project, stage, endpoint.kind)
    environment = {
        "FDEPLOY_ENDPOINT": name,
        "FDEPLOY_ROUTE": api.route,
        "FDEPLOY_MAX_BODY": str(api.max_body),
        "FDEPLOY_CORS_ORIGINS": ",".join(api.cors_origins),
        "FDEPLOY_TIMEOUT_MS": str(round(api.timeout * 1_000)),
    }
    no_logs = api.access_logs and api.type == "rest" and not gateway_logs
    return ApiSpec(
        common=_common(settings),
        version=code_version[:12],
        endpoint=name,
        function=Function(
            name=function_name(project, stage),
            code=code,
            handler=HANDLER,
            environment=tuple(sorted(environment.items())),
            memory=api.memory,
            timeout=math.ceil(api.timeout),
            concurrency=api.concurrency,
        ),
        type=api.type,
        auth=api.auth,
        routes=(
            Route("POST", api.route, protected=True),
            Route("GET", HEALTH, protected=False),
            Route("GET", OPENAPI, protected=False),
            *([Route("GET", PAGE, protected=False)] if api.page else []),
        ),
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


def _container(settings: Settings, image: Image, version: str) -> Iterator[tuple[str, str]]:
    """The variables of the container."""
    yield "FDEPLOY_VERSION", version
    # AWS's own start scripts run before any code of ours.
    yield from SWITCHES.items()
    if image.family == "ray-serve":
        # An asynchronous invocation may take longer than InvokeEndpoint waits.
        if settings.sections.endpoint.kind != "async":
            yield "RAYSERVE_BACKEND_TIMEOUT", str(INVOKE_SECONDS)
        return
    yield "SAGEMAKER_PROGRAM", "inference.py"
    yield "SAGEMAKER_SUBMIT_DIRECTORY", f"{_MODEL_DIR}/code"
    yield "SAGEMAKER_CONTAINER_LOG_LEVEL", "20"
    # Otherwise TorchServe loads the model once for every core.
    yield "SAGEMAKER_MODEL_SERVER_WORKERS", "1"
    yield "SAGEMAKER_MODEL_SERVER_TIMEOUT", str(INVOKE_SECONDS)


def _endpoint_warnings(settings: Settings) -> Iterator[str]:
    endpoint = settings.sections.endpoint
    if endpoint.kind == "serverless":
        if endpoint.instance:
            yield f"endpoint.instance ({endpoint.instance}) is not used: it is serverless"
        if endpoint.scaling.max_instances:
            yield "max_instances is not used: a serverless endpoint scales by itself"
    if endpoint.data_capture:
        yield f"{endpoint.data_capture} % of the users' texts are kept in the bucket"


def _api_warnings(settings: Settings, *, no_logs: bool) -> Iterator[str]:
    api = settings.sections.api
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

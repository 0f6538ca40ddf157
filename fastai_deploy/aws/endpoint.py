"""The SageMaker endpoint: its state, its live configuration, and its invocations."""

from __future__ import annotations

import http
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.bucket import Bucket, encryption
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.errors import (
    AwsCredentials,
    AwsDenied,
    AwsError,
    AwsMissing,
    AwsThrottled,
    AwsUnreachable,
    DeployError,
    InvocationError,
    NoAnswer,
    error_from_response,
)

IN_SERVICE = "InService"
_STEADY = frozenset((IN_SERVICE, "Failed", "OutOfService", "UpdateRollbackFailed"))
_POLL_SECONDS = 5.0
_WAIT_SECONDS = 3_600.0  # as long as a container may take to start (AWS: ProductionVariant)
_MODEL_ERROR = "ModelError"
# Errors that keep a request from reaching the endpoint.
_ON_THE_WAY = (AwsCredentials, AwsDenied, AwsThrottled, AwsUnreachable)
Json = Any


@dataclass(frozen=True)
class EndpointState:
    """The state of an endpoint; ``config`` is the configuration in use.

    ``instances`` run now, ``desired`` are to run; a serverless endpoint has none.
    """

    name: str
    status: str
    config: str
    reason: str
    instances: int
    desired: int


def find_endpoint(aws: Aws, name: str) -> EndpointState | None:
    """The state of an endpoint; None if it does not exist. Raises AwsError."""
    try:
        found = aws.call("sagemaker", "describe_endpoint", EndpointName=name)
    except AwsMissing:
        return None
    variants = found.get("ProductionVariants", [])
    return EndpointState(
        name=name,
        status=found["EndpointStatus"],
        config=found["EndpointConfigName"],
        reason=found.get("FailureReason", ""),
        instances=sum(variant.get("CurrentInstanceCount", 0) for variant in variants),
        desired=sum(variant.get("DesiredInstanceCount", 0) for variant in variants),
    )


def check_in_use(aws: Aws, name: str, config: str) -> None:
    """Wait until the endpoint is steady, and check that it uses a configuration.

    After a failed update an endpoint returns to InService with the old configuration, sometimes
    without a reason, so only this comparison detects it. Raises DeployError.
    """
    deadline = aws.clock() + _WAIT_SECONDS
    state = find_endpoint(aws, name)
    while state is not None and state.status not in _STEADY and aws.clock() < deadline:
        aws.sleep(_POLL_SECONDS)
        state = find_endpoint(aws, name)
    if state is None:
        raise DeployError(
            f"the endpoint {name} is gone, although its stack exists",
            hint="it was deleted by hand: run fdeploy teardown, then fdeploy up",
        )
    if state.status != IN_SERVICE or state.config != config:
        raise DeployError(
            f"the endpoint {name} is {state.status} with {state.config} instead of {config}: "
            f"{state.reason or 'AWS gives no reason'}",
            hint="the previous version is still serving; run fdeploy logs to see the new one's log",
        )


def instances_of(aws: Aws, name: str, instance: str) -> int:
    """How many instances of a type an endpoint runs; 0 if it is gone. Raises AwsError."""
    state = find_endpoint(aws, name)
    if state is None or not state.desired:
        return 0
    try:
        found = aws.call("sagemaker", "describe_endpoint_config", EndpointConfigName=state.config)
    except AwsMissing:
        return 0
    of_type = any(item.get("InstanceType") == instance for item in found["ProductionVariants"])
    return max(state.instances, state.desired) if of_type else 0


def set_instances(aws: Aws, name: str, variant: str, count: int) -> bool:
    """Have an endpoint run so many instances; return whether it was another number.

    Autoscaling that is switched off leaves the instances that it had. Raises AwsError.
    """
    state = find_endpoint(aws, name)
    if state is None or state.desired == count:
        return False
    aws.call(
        "sagemaker",
        "update_endpoint_weights_and_capacities",
        EndpointName=name,
        DesiredWeightsAndCapacities=[{"VariantName": variant, "DesiredInstanceCount": count}],
    )
    return True


def invoke(aws: Aws, name: str, request: Json) -> Json:
    """Send one request to an endpoint. Raises InvocationError or NoAnswer."""
    try:
        answer = aws.call(
            "sagemaker-runtime",
            "invoke_endpoint",
            EndpointName=name,
            ContentType="application/json",
            Accept="application/json",
            Body=json.dumps(request).encode(),
        )
        return json.loads(answer["Body"].read())
    except AwsError as error:
        raise passed_on(name, error) from None
    except ValueError:
        raise InvocationError(
            f"the answer of endpoint {name} is not JSON", hint="run fdeploy deploy"
        ) from None


def invocations_url(aws: Aws, name: str) -> str:
    """The URL of InvokeEndpoint, for requests that are signed but not sent by boto3."""
    return f"{aws.client('sagemaker-runtime').meta.endpoint_url}/endpoints/{name}/invocations"


def passed_on(name: str, error: AwsError) -> InvocationError:
    """Translate the AWS error of an invocation."""
    cause = error.__cause__
    answer: Mapping[str, Any] = getattr(cause, "response", {})
    if error.aws_code == _MODEL_ERROR:
        return said_by_model(f"the endpoint {name}", answer)
    if error.aws_code == "ValidationError":
        return InvocationError(
            f"the endpoint {name} does not exist or is not ready: {error.message}",
            hint="run fdeploy status to see its state, or fdeploy deploy to create it",
        )
    if isinstance(error, _ON_THE_WAY):
        return NoAnswer(error.message, hint=error.hint)
    return InvocationError(error.message, hint=error.hint)


def said_by_model(who: str, answer: Mapping[str, Any]) -> InvocationError:
    """The model server's own error, translated if it has the contract's form."""
    status = answer.get("OriginalStatusCode", 0)
    said = error_from_response(who, status, answer.get("OriginalMessage"))
    if said is not None:
        return said
    if not status:
        return InvocationError(
            f"{who} did not answer in time",
            hint="send less text per request",
            status=http.HTTPStatus.GATEWAY_TIMEOUT,
            answer_code="timeout",
        )
    return InvocationError(
        f"{who} answered {status}", hint="run fdeploy logs to see why", status=status
    )


_ANSWER_POLL_SECONDS = 2.0
# As long as a request may take (AWS: InvocationTimeoutSeconds), and as long again in the queue.
_INVOCATION_SECONDS = 3_600
_ANSWER_WAIT_SECONDS = 2.0 * _INVOCATION_SECONDS
_JSON = "application/json"


@dataclass(frozen=True)
class Queue:
    """Where requests to an asynchronous endpoint are stored; ``prefix`` has no trailing slash.

    ``kms_key`` encrypts them, as it does the answers; None for the bucket's default.
    """

    bucket: Bucket
    prefix: str
    kms_key: str | None = None


def invoke_async(
    aws: Aws, name: str, queue: Queue, request: Json, *, notify: Callable[[str], None]
) -> Json:
    """Send one request and wait for its answer; ``notify`` receives where it will be stored.

    Raises InvocationError, or NoAnswer if there is no answer within two hours.
    """
    key = f"{queue.prefix}/input/{uuid.uuid4()}.json"
    try:
        aws.call(
            "s3",
            "put_object",
            **queue.bucket.owned,
            Key=key,
            Body=json.dumps(request).encode(),
            ContentType=_JSON,
            **encryption(queue.kms_key),
        )
        accepted = aws.call(
            "sagemaker-runtime",
            "invoke_endpoint_async",
            EndpointName=name,
            ContentType=_JSON,
            Accept=_JSON,
            InputLocation=queue.bucket.uri(key),
            InvocationTimeoutSeconds=_INVOCATION_SECONDS,
        )
    except AwsError as error:
        raise passed_on(name, error) from None
    notify(f"the answer will be stored at {accepted['OutputLocation']}")
    return _awaited(aws, name, queue.bucket, accepted)


def _awaited(aws: Aws, name: str, bucket: Bucket, accepted: Json) -> Json:
    deadline = aws.clock() + _ANSWER_WAIT_SECONDS
    while aws.clock() < deadline:
        failure = _read(aws, bucket, accepted.get("FailureLocation", ""))
        if failure is not None:
            raise InvocationError(
                f"the endpoint {name} failed: {failure[:500].decode(errors='replace')}",
                hint="run fdeploy logs to see why",
            )
        answer = _read(aws, bucket, accepted["OutputLocation"])
        if answer is not None:
            try:
                return json.loads(answer)
            except ValueError:
                raise InvocationError(
                    f"the answer of endpoint {name} is not JSON", hint="run fdeploy deploy"
                ) from None
        aws.sleep(_ANSWER_POLL_SECONDS)
    raise NoAnswer(
        f"the endpoint {name} has not answered within {_ANSWER_WAIT_SECONDS / 60:g} min",
        hint=f"check {accepted['OutputLocation']} later, or run fdeploy logs now",
    )


def _read(aws: Aws, bucket: Bucket, uri: str) -> bytes | None:
    """The object, or None until it exists; without s3:ListBucket, S3 answers 403 until then."""
    if not uri:
        return None
    key = uri.removeprefix(bucket.uri(""))
    try:
        answer = aws.call("s3", "get_object", **bucket.owned, Key=key)
        with boundary("s3", "GetObject"):
            data: bytes = answer["Body"].read()
    except (AwsMissing, AwsDenied):
        return None
    return data

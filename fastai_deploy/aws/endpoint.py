"""The SageMaker endpoint: its state, what it uses, and how it is invoked, in real time or async."""

from __future__ import annotations

import http
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.bucket import Bucket
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
# What keeps a request from the endpoint, and is not the endpoint's fault.
_ON_THE_WAY = (AwsCredentials, AwsDenied, AwsThrottled, AwsUnreachable)
Json = Any


@dataclass(frozen=True)
class EndpointState:
    """What SageMaker says of an endpoint; ``config`` is the configuration that is in use."""

    name: str
    status: str
    config: str
    reason: str
    instances: int


def find_endpoint(aws: Aws, name: str) -> EndpointState | None:
    """The endpoint of a name; None where there is none. Raises AwsError."""
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
    )


def check_in_use(aws: Aws, name: str, config: str) -> None:
    """Wait until the endpoint is steady, and see that it uses a configuration.

    A failed update goes back to InService on the old configuration, sometimes without a reason:
    only the comparison tells. Raises DeployError.
    """
    deadline = aws.clock() + _WAIT_SECONDS
    state = find_endpoint(aws, name)
    while state is not None and state.status not in _STEADY and aws.clock() < deadline:
        aws.sleep(_POLL_SECONDS)
        state = find_endpoint(aws, name)
    if state is None:
        raise DeployError(
            f"the endpoint {name} is gone, though its stack is there",
            hint="somebody deleted it by hand: run fdeploy teardown, then fdeploy up",
        )
    if state.status != IN_SERVICE or state.config != config:
        raise DeployError(
            f"the endpoint {name} is {state.status} with {state.config} and not with {config}: "
            f"{state.reason or 'AWS gives no reason'}",
            hint="the version before goes on serving; fdeploy logs shows what the new one said",
        )


def invoke(aws: Aws, name: str, request: Json) -> Json:
    """Send one request of the contract to an endpoint. Raises InvocationError or NoAnswer."""
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
            f"the endpoint {name} answered no JSON", hint="run fdeploy deploy"
        ) from None


def passed_on(name: str, error: AwsError) -> InvocationError:
    """What an error of an invocation means to who sent it."""
    cause = error.__cause__
    answer: Mapping[str, Any] = getattr(cause, "response", {})
    if error.aws_code == _MODEL_ERROR:
        return said_by_model(f"the endpoint {name}", answer)
    if error.aws_code == "ValidationError":
        return InvocationError(
            f"the endpoint {name} is not there, or not ready: {error.message}",
            hint="fdeploy status shows its state; fdeploy deploy brings it up",
        )
    if isinstance(error, _ON_THE_WAY):
        return NoAnswer(error.message, hint=error.hint)
    return InvocationError(error.message, hint=error.hint)


def said_by_model(who: str, answer: Mapping[str, Any]) -> InvocationError:
    """The model server's own error, in the contract's form where it has it."""
    status = answer.get("OriginalStatusCode", 0)
    said = error_from_response(who, status, answer.get("OriginalMessage"))
    if said is not None:
        return said
    if not status:
        return InvocationError(
            f"{who} did not answer in time",
            hint="send less text at once",
            status=http.HTTPStatus.GATEWAY_TIMEOUT,
            answer_code="timeout",
        )
    return InvocationError(f"{who} answered {status}", hint="fdeploy logs shows why", status=status)


_ANSWER_POLL_SECONDS = 2.0
_ANSWER_WAIT_SECONDS = 1_800.0
_JSON = "application/json"


@dataclass(frozen=True)
class Queue:
    """Where requests to an asynchronous endpoint are put; ``prefix`` is without a slash."""

    bucket: Bucket
    prefix: str


def invoke_async(
    aws: Aws, name: str, queue: Queue, request: Json, *, told: Callable[[str], None]
) -> Json:
    """Send one request of the contract and wait for its answer; ``told`` hears where it will be.

    Raises InvocationError, or NoAnswer when there is none within half an hour.
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
        )
        accepted = aws.call(
            "sagemaker-runtime",
            "invoke_endpoint_async",
            EndpointName=name,
            ContentType=_JSON,
            Accept=_JSON,
            InputLocation=queue.bucket.uri(key),
        )
    except AwsError as error:
        raise passed_on(name, error) from None
    told(f"the answer will be at {accepted['OutputLocation']}")
    return _awaited(aws, name, queue.bucket, accepted)


def _awaited(aws: Aws, name: str, bucket: Bucket, accepted: Json) -> Json:
    deadline = aws.clock() + _ANSWER_WAIT_SECONDS
    while aws.clock() < deadline:
        failure = _read(aws, bucket, accepted.get("FailureLocation", ""))
        if failure is not None:
            raise InvocationError(
                f"the endpoint {name} failed: {failure[:500].decode(errors='replace')}",
                hint="fdeploy logs shows why",
            )
        answer = _read(aws, bucket, accepted["OutputLocation"])
        if answer is not None:
            try:
                return json.loads(answer)
            except ValueError:
                raise InvocationError(
                    f"the endpoint {name} answered no JSON", hint="run fdeploy deploy"
                ) from None
        aws.sleep(_ANSWER_POLL_SECONDS)
    raise NoAnswer(
        f"the endpoint {name} has not answered within {_ANSWER_WAIT_SECONDS / 60:g} min",
        hint=f"look at {accepted['OutputLocation']} later, or at fdeploy logs now",
    )


def _read(aws: Aws, bucket: Bucket, uri: str) -> bytes | None:
    """The object, when it is there; without s3:ListBucket S3 says 403 until it is."""
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

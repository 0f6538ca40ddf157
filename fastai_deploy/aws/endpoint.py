"""The endpoint as it runs: what it is, what it uses, and what it answers.

Sources: the API references of DescribeEndpoint and InvokeEndpoint. What the model server says is
inside a ModelError, in its own words, and is passed on.
"""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.session import Aws
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
)
from fastai_deploy.refusal import refused

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
    said = refused(who, status, answer.get("OriginalMessage"))
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

"""The model's Lambda function: asking it, and who it is. Source: the API reference of Invoke."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastai_deploy.aws.endpoint import passed_on
from fastai_deploy.aws.inventory import MAKE_AGAIN
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import (
    AwsError,
    AwsMissing,
    DeployError,
    InvocationError,
    error_from_response,
)
from fastai_deploy.naming import ALIAS
from fastai_deploy.parity import Json

# The first is the code of the API reference, the second what the service was seen to answer.
_TOO_LARGE = frozenset(("RequestTooLargeException", "RequestEntityTooLargeException"))
_TOO_MANY = "TooManyRequestsException"


@dataclass(frozen=True)
class FunctionState:
    """A function's alias: its state, the versions it serves with their weights, and their numbers.

    ``reason`` is why it is not active; ``versions`` counts the published ones.
    """

    name: str
    status: str
    reason: str
    number: str
    weights: Mapping[str, float]
    memory: int


def find_function(aws: Aws, name: str) -> FunctionState | None:
    """The state of a function's alias; None if there is none. Raises AwsError."""
    try:
        alias = aws.call("lambda", "get_alias", FunctionName=name, Name=ALIAS)
        found = aws.call("lambda", "get_function_configuration", FunctionName=name, Qualifier=ALIAS)
    except AwsMissing:
        return None
    weights = alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
    return FunctionState(
        name=name,
        status=found.get("State", "Active"),
        reason=found.get("StateReason", ""),
        number=alias["FunctionVersion"],
        weights=weights,
        memory=found["MemorySize"],
    )


def check_in_use(aws: Aws, name: str, number: str) -> None:
    """Check that the alias serves this version, and no other. Raises DeployError or AwsError.

    CloudFormation does not notice if somebody has deleted or moved it.
    """
    state = find_function(aws, name)
    if state is None:
        raise DeployError(
            f"the function {name} or its alias {ALIAS} is gone, although its stack exists",
            hint=f"it was deleted by hand: {MAKE_AGAIN}",
        )
    if (state.number, dict(state.weights)) != (number, {}):
        others = "".join(f", {each}" for each in sorted(state.weights))
        raise DeployError(
            f"the alias {ALIAS} of {name} serves version {state.number}{others} instead of "
            f"{number}, although its stack is up to date",
            hint=f"it was moved by hand: run aws lambda update-alias --function-name {name} "
            f"--name {ALIAS} --function-version {number} "
            "--routing-config AdditionalVersionWeights={}",
        )


def invoke(aws: Aws, name: str, request: Json, qualifier: str = ALIAS) -> Json:
    """Send one request to a version of a function. Raises InvocationError or NoAnswer."""
    who = f"the function {name}"
    try:
        answer = aws.call(
            "lambda",
            "invoke",
            FunctionName=name,
            Qualifier=qualifier,
            Payload=json.dumps(request).encode(),
        )
        said = json.loads(answer["Payload"].read())
    except AwsMissing:
        raise InvocationError(
            f"{who} has no version {qualifier}", hint="run fdeploy deploy"
        ) from None
    except AwsError as error:
        raise _not_taken(who, name, error) from None
    except ValueError:
        raise InvocationError(
            f"the answer of {who} is not JSON", hint="run fdeploy deploy"
        ) from None
    if answer.get("FunctionError"):
        raise _failed(who, said)
    if isinstance(said, dict) and "error" in said and "status" in said:
        raise _refused(who, said)
    return said


def _not_taken(who: str, name: str, error: AwsError) -> InvocationError:
    """Lambda did not run the function: for the size of the request, for too many, or unreached."""
    if error.aws_code in _TOO_LARGE:
        return InvocationError(
            f"{who} takes no request of more than 6 MB",
            hint="send fewer or shorter texts in one request",
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            answer_code="too_large",
        )
    if error.aws_code == _TOO_MANY:
        return InvocationError(
            f"{who} has more requests at once than it or the account may run",
            hint="send fewer at once; fdeploy doctor shows how many the account may run",
            status=HTTPStatus.TOO_MANY_REQUESTS,
            answer_code="throttled",
            retry_after=1.0,
        )
    return passed_on(name, error)


def _failed(who: str, said: Any) -> InvocationError:
    """A crash or a time-out; Lambda says which."""
    message = str(said.get("errorMessage", "")) if isinstance(said, dict) else ""
    if "timed out" in message:
        return InvocationError(
            f"{who} did not answer in time",
            hint="send less text per request, or set more memory in [endpoint.function]",
            status=HTTPStatus.GATEWAY_TIMEOUT,
            answer_code="timeout",
        )
    return InvocationError(
        f"{who} failed: {message[:300] or 'no message'}",
        hint="run fdeploy logs to see why",
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def _refused(who: str, said: Mapping[str, Any]) -> InvocationError:
    status = said["status"] if isinstance(said["status"], int) else HTTPStatus.INTERNAL_SERVER_ERROR
    return error_from_response(who, status, json.dumps(said)) or InvocationError(
        f"{who} answered {status}", hint="run fdeploy logs to see why", status=status
    )


def invocations_url(aws: Aws, name: str) -> str:
    """The URL of Invoke for the live version, for requests that are signed but not by boto3."""
    endpoint = aws.client("lambda").meta.endpoint_url
    return f"{endpoint}/2015-03-31/functions/{name}/invocations?Qualifier={ALIAS}"

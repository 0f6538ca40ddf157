"""Every failure of the endpoint, as an error response of the contract.

    the model server returned one of the contract's errors                   -> the same error
    ModelError          the model failed                                     -> 500 model_error
    ModelError 0, 408, 504, read time-out                                    -> 504 timeout
    ModelError 413, ValidationError about the body's length                  -> 413 too_large
    ModelError 429, 502, 503, 507, throttling, other 5xx of SageMaker        -> 503 overloaded
    ValidationError, ModelNotReadyException, ServiceUnavailable,
    no connection                                                            -> 503 not_ready
    access denied, credentials, anything else                                -> 500 internal

Sources: the errors of InvokeEndpoint in the SageMaker runtime's API reference. It does not mention
that a model's time-out is a ModelError of status 0: aws/sagemaker-python-sdk issue 1119.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Dict, Mapping, Optional

from botocore import exceptions as aws

from .. import error_responses
from ..contract import Json, RequestError
from .failures import ErrorResponse, internal, overloaded, timeout

ACTION = "sagemaker:InvokeEndpoint"
_RETRY_SOON = 1
_SERVER_ERROR = 500

# The contract's errors that a model server may return about a request.
_MODEL_MAY_SAY = {
    400: ("invalid_json",),
    413: ("too_large",),
    415: ("unsupported_media_type",),
    422: ("invalid_request",),
    503: ("overloaded", "not_ready"),
    504: ("timeout",),
}
_THROTTLED = frozenset(
    (
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    )
)
_UNAVAILABLE = frozenset(("ServiceUnavailable", "ServiceUnavailableException"))
_NOT_UP = _UNAVAILABLE | {"ModelNotReadyException", "ValidationError", "ValidationException"}
_DENIED = frozenset(
    (
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    )
)
_NO_CONNECTION = (
    aws.ConnectionError,
    aws.ConnectionClosedError,
    aws.HTTPClientError,
    aws.ResponseStreamingError,
)


def of(error: Exception) -> ErrorResponse:
    """The error response for an exception of the endpoint's client; never raises."""
    facts: Dict[str, Json] = {"error": type(error).__name__}
    if isinstance(error, aws.ClientError):
        facts["error"] = _code(error)
        return _answered(error, facts)
    if isinstance(error, aws.ReadTimeoutError):
        return timeout(facts)
    if isinstance(error, _NO_CONNECTION):
        return _not_ready(facts, transient=True)
    if isinstance(error, aws.NoCredentialsError):
        facts["action"] = ACTION
    return internal(facts)


def _answered(error: Any, facts: Dict[str, Json]) -> ErrorResponse:
    """The error response for an error that SageMaker returned."""
    code = str(facts["error"])
    message = str(error.response.get("Error", {}).get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "ModelError":
        return _model(error.response, facts)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or "length less than" in message:
        return _too_large(facts)
    if code in _NOT_UP:
        # Here AWS names the endpoint and its state, and nothing that a user sent.
        return _not_ready({**facts, "reason": message[:1_000]}, transient=code in _UNAVAILABLE)
    if code in _THROTTLED or (isinstance(status, int) and status >= _SERVER_ERROR):
        return overloaded(facts, transient=True)
    if code in _DENIED:
        # Here AWS names the role, the action and the resource.
        return internal({**facts, "action": ACTION, "reason": message[:1_000]})
    return internal(facts)


def _model(response: Mapping[str, Any], facts: Dict[str, Json]) -> ErrorResponse:
    """The error response for a ModelError; its message may repeat the request, so it is dropped."""
    status = response.get("OriginalStatusCode")
    facts["model_status"] = status if isinstance(status, int) else None
    if response.get("LogStreamArn"):
        facts["log_stream"] = str(response["LogStreamArn"])
    said = _said(status, response.get("OriginalMessage"))
    if said is not None:
        return ErrorResponse(said, facts=facts)
    if status in (0, 408, 504):
        return timeout(facts)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return _too_large(facts)
    if status in (429, 502, 503, 507):
        return overloaded(facts)
    return ErrorResponse(error_responses.model_error(), facts=facts)


def _said(status: Any, original: Any) -> Optional[RequestError]:
    """The model server's own error, if the contract allows its code with this status, or None."""
    try:
        error = json.loads(original)["error"]
        code, message, hint = error["code"], error["message"], error["hint"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if code not in _MODEL_MAY_SAY.get(status, ()):
        return None
    retry_after = _RETRY_SOON if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return RequestError(status, code, str(message)[:500], str(hint)[:500], retry_after)


def _not_ready(facts: Mapping[str, Json], *, transient: bool = False) -> ErrorResponse:
    return ErrorResponse(error_responses.not_ready(), facts=facts, transient=transient)


def _too_large(facts: Mapping[str, Json]) -> ErrorResponse:
    return ErrorResponse(error_responses.too_large_for_the_model(), facts=facts)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))[:100]

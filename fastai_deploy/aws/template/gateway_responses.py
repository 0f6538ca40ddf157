"""What API Gateway itself answers, in the contract's words and with CORS headers.

    refused before the Lambda is asked: no key, no route, too fast, too large, no answer in time

Source: "Gateway response types" in the API Gateway developer guide. A template for them knows no
logic, so what they say is fixed; the request's own text is in none of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.aws.template.intrinsics import Json, Resources, ref, resource


@dataclass(frozen=True)
class Refusal:
    """A gateway response; ``status`` None keeps the one that API Gateway has for it."""

    type: str
    status: int | None
    code: str
    message: str
    hint: str
    retry_after: int | None = None


_KEY_HINT = "send the key in the header x-api-key"
_SIGN_HINT = "sign the request with AWS credentials that may execute-api:Invoke"
_DEFECT_HINT = "the owner of the API finds the reason in the log, under the x-request-id"


def refusals(spec: ApiSpec) -> tuple[Refusal, ...]:
    """Every refusal of the API, as ``docs/contract.md`` spells it."""
    post = next(route for route in spec.routes if route.protected)
    forbidden = _SIGN_HINT if spec.auth == "iam" else _KEY_HINT
    # An unknown route and a request without a signature are one type to API Gateway.
    unknown = (
        Refusal(
            "MISSING_AUTHENTICATION_TOKEN",
            403,
            "forbidden",
            "no such route, or no signature",
            forbidden,
        )
        if spec.auth == "iam"
        else Refusal(
            "MISSING_AUTHENTICATION_TOKEN",
            404,
            "not_found",
            "there is no such route",
            f"send {post.method} {post.path}",
        )
    )
    return (
        unknown,
        Refusal(
            "RESOURCE_NOT_FOUND",
            404,
            "not_found",
            "there is no such route",
            f"send {post.method} {post.path}",
        ),
        Refusal("INVALID_API_KEY", 403, "forbidden", "the request has no valid API key", _KEY_HINT),
        Refusal("ACCESS_DENIED", 403, "forbidden", "the request is not allowed", forbidden),
        Refusal("EXPIRED_TOKEN", 403, "forbidden", "the credentials have expired", forbidden),
        Refusal("INVALID_SIGNATURE", 403, "forbidden", "the signature is wrong", forbidden),
        Refusal("WAF_FILTERED", 403, "forbidden", "the request was blocked", "ask the API's owner"),
        Refusal("UNAUTHORIZED", 401, "unauthorized", "the request is not authorized", forbidden),
        Refusal(
            "THROTTLED",
            429,
            "throttled",
            "too many requests a second",
            "try again after the Retry-After seconds",
            retry_after=1,
        ),
        Refusal(
            "QUOTA_EXCEEDED",
            429,
            "quota_exceeded",
            "the requests of this key are used up for today",
            "the next day begins at 00:00 UTC",
        ),
        Refusal(
            "REQUEST_TOO_LARGE",
            413,
            "too_large",
            "the body is too large",
            "send less text in one request",
        ),
        Refusal(
            "BAD_REQUEST_BODY", 400, "invalid_json", "the body is not JSON", 'send {"text": "..."}'
        ),
        Refusal(
            "INTEGRATION_TIMEOUT",
            504,
            "timeout",
            "the model did not answer in time",
            "send less text in one request",
        ),
        Refusal(
            "INTEGRATION_FAILURE",
            503,
            "overloaded",
            "the API is overloaded",
            "try again after a moment",
            retry_after=1,
        ),
        Refusal(
            "DEFAULT_4XX",
            None,
            "invalid_request",
            "the request was refused",
            "see the API's documentation",
        ),
        Refusal("DEFAULT_5XX", None, "internal", "the request could not be answered", _DEFECT_HINT),
    )


def gateway_responses(spec: ApiSpec, api: str) -> Resources:
    """The responses of the REST API with this logical id."""
    return {
        f"Answer{_camel(refusal.type)}": resource(
            "AWS::ApiGateway::GatewayResponse",
            {
                "RestApiId": ref(api),
                "ResponseType": refusal.type,
                "StatusCode": str(refusal.status) if refusal.status else None,
                "ResponseParameters": _headers(refusal, spec.origins),
                "ResponseTemplates": {"application/json": _body(refusal)},
            },
        )
        for refusal in refusals(spec)
    }


def _body(refusal: Refusal) -> str:
    error = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
    return json.dumps({"error": error})


def _headers(refusal: Refusal, origins: Sequence[str]) -> dict[str, Json]:
    headers = {
        "x-request-id": "context.requestId",
        "cache-control": "'no-store'",
        "x-content-type-options": "'nosniff'",
    }
    if refusal.retry_after is not None:
        headers["retry-after"] = f"'{refusal.retry_after}'"
    if origins:
        # Of several origins the right one cannot be chosen here. These answers are fixed and
        # carry no credentials, so that every page may read them.
        allowed = origins[0] if len(origins) == 1 else "*"
        headers["access-control-allow-origin"] = f"'{allowed}'"
        headers["access-control-expose-headers"] = "'retry-after, x-request-id'"
    return {f"gatewayresponse.header.{name}": value for name, value in headers.items()}


def _camel(words: str) -> str:
    return "".join(word.capitalize() for word in words.split("_"))

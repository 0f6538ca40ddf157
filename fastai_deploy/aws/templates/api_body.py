"""The OpenAPI document that API Gateway imports an API from.

It is the document that callers are given (``public/openapi.py``), reduced to what API Gateway uses,
in OpenAPI 3.0, with Amazon's extensions: the Lambda behind each path, who may call it, and what a
REST API answers itself, in the contract's words and with CORS headers.

Sources: "OpenAPI extensions for API Gateway", "Amazon API Gateway important notes" (OpenAPI) and
"Gateway response types" in the API Gateway developer guide. A template of a gateway response knows
no logic, so what it says is fixed; the request's own text is in none of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.api_docs import openapi
from fastai_deploy.api_docs.openapi import ApiDescription
from fastai_deploy.aws.specs import ApiSpec

Json = Any
_EXTENSION = "x-amazon-apigateway"
_LAMBDA = (
    "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/"
    "${Function.Arn}/invocations"
)
_MODEL, _VALIDATOR = "AnyJson", "body"
# Whatever is JSON passes: what is wrong in it, the Lambda says better. OpenAPI 3.0 has no type for
# null, and a template may hold none.
_ANY_JSON = {
    "title": "any JSON document",
    "anyOf": [{"type": "object"}, {"not": {"type": "object"}}],
}


def api_body(spec: ApiSpec) -> dict[str, Json]:
    """The ``Body`` of an API, with CloudFormation's functions in it."""
    owner = spec.common.owner
    described = openapi.document(_face(spec))
    body: dict[str, Json] = {
        "openapi": "3.0.1",
        "info": {
            "title": f"{owner.project}-{owner.stage}",
            "version": described["info"]["version"],
            "description": f"Asks the endpoint {spec.endpoint} (fdeploy)",
        },
        "paths": {path: _path(spec, item) for path, item in described["paths"].items()},
        "components": {"securitySchemes": _schemes(spec, described)},
    }
    if spec.type == "rest":
        body["components"]["schemas"] = {_MODEL: _ANY_JSON}
        body[f"{_EXTENSION}-api-key-source"] = "HEADER"
        body[f"{_EXTENSION}-request-validators"] = {
            _VALIDATOR: {"validateRequestBody": True, "validateRequestParameters": False}
        }
        body[f"{_EXTENSION}-gateway-responses"] = {
            refusal.type: _gateway_response(refusal, spec.origins) for refusal in refusals(spec)
        }
        return body
    tags = {**dict(spec.common.tags), **owner.tags}
    body["tags"] = [
        {"name": name, f"{_EXTENSION}-tag-value": value} for name, value in tags.items()
    ]
    if spec.origins:
        body[f"{_EXTENSION}-cors"] = {
            "allowOrigins": list(spec.origins),
            "allowMethods": ["GET", "HEAD", "OPTIONS", "POST"],
            "allowHeaders": ["authorization", "content-type", "x-api-key"],
            "exposeHeaders": ["retry-after", "x-request-id"],
            "maxAge": 600,
        }
    return body


def _face(spec: ApiSpec) -> ApiDescription:
    """The API as its callers see it, as far as it does not depend on the model."""
    return ApiDescription(
        title="",
        route=spec.route,
        auth=spec.auth,
        max_body=spec.max_body,
        own_words=spec.type == "rest",
        page=spec.page,
    )


def _path(spec: ApiSpec, described: Json) -> Json:
    """The methods of a path; any other one the Lambda answers with 405, to who may ask it."""
    operations = {method: _operation(spec, each) for method, each in described.items()}
    if spec.type == "rest" and "post" in described:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_MODEL}"}}}
        operations["post"]["requestBody"] = {"required": False, "content": content}
        operations["post"][f"{_EXTENSION}-request-validator"] = _VALIDATOR
    # Browsers send neither a key nor a signature with a preflight. An HTTP API answers it itself.
    if spec.type == "rest" and spec.origins:
        operations["options"] = _bare(spec, security=[])
    (security,) = (each["security"] for each in described.values())
    operations[f"{_EXTENSION}-any-method"] = _bare(spec, security=security)
    return operations


def _operation(spec: ApiSpec, described: Json) -> dict[str, Json]:
    """An operation as API Gateway needs it: the content of answers it does not look at."""
    kept = {key: described[key] for key in ("operationId", "summary")}
    answers = described["responses"]
    return {
        **kept,
        **_bare(spec, security=described["security"]),
        "responses": {
            status: {"description": answers[status]["description"]} for status in answers
        },
    }


def _bare(spec: ApiSpec, *, security: Json) -> dict[str, Json]:
    integration = {
        "type": "aws_proxy",
        "httpMethod": "POST",
        "uri": {"Fn::Sub": _LAMBDA},
        **({"payloadFormatVersion": "2.0"} if spec.type == "http" else {}),
        # As long as the Lambda may take: it answers before that.
        "timeoutInMillis": spec.function.timeout * 1_000,
    }
    return {
        "security": security,
        "responses": {"200": {"description": "The Lambda's answer."}},
        f"{_EXTENSION}-integration": integration,
    }


def _schemes(spec: ApiSpec, described: Json) -> Json:
    if spec.jwt is None:
        return described["components"]["securitySchemes"]
    authorizer = {
        "type": "jwt",
        "identitySource": "$request.header.Authorization",
        "jwtConfiguration": {"issuer": spec.jwt.issuer, "audience": list(spec.jwt.audience)},
    }
    # API Gateway takes an authorizer from a scheme of this type, whatever the flows.
    scheme = {"type": "oauth2", "flows": {}, f"{_EXTENSION}-authorizer": authorizer}
    return dict.fromkeys(described["components"]["securitySchemes"], scheme)


# What a REST API answers itself: no key, no route, too fast, too large, no answer in time


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
            f"send POST {spec.route}",
        )
    )
    return (
        unknown,
        Refusal(
            "RESOURCE_NOT_FOUND",
            404,
            "not_found",
            "there is no such route",
            f"send POST {spec.route}",
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


def _gateway_response(refusal: Refusal, origins: Sequence[str]) -> Json:
    error = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
    response: dict[str, Json] = {
        "responseParameters": _headers(refusal, origins),
        "responseTemplates": {"application/json": json.dumps({"error": error})},
    }
    return {**response, "statusCode": str(refusal.status)} if refusal.status else response


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

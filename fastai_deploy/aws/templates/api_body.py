"""The OpenAPI document that API Gateway imports an API from.

It is the document that callers are given (``api_docs/openapi.py``), reduced to what API Gateway
uses, in OpenAPI 3.0, with Amazon's extensions: the Lambda behind each path, who may call it, and
what a REST API answers itself, in the contract's words and with CORS headers.

Sources: "OpenAPI extensions for API Gateway", "Amazon API Gateway important notes" (OpenAPI),
"Gateway response types" and "Amazon API Gateway dimensions and metrics" (4XXError) in the API
Gateway developer guide. A template of a gateway response knows no logic, so what it says is fixed;
the request's own text is in none of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.api_docs import openapi
from fastai_deploy.api_docs.openapi import ApiDescription
from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.naming import ALIAS
from fastai_deploy.runtime import error_responses
from fastai_deploy.runtime.error_responses import RequestError

Json = Any
_EXTENSION = "x-amazon-apigateway"
_LAMBDA = (
    "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/"
    "%s/invocations"
)
_OWN = "${Function.Arn}"
_EMBEDDED = (
    f"arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:%s:{ALIAS}"
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
            each.type: _gateway_response(each, spec.origins) for each in gateway_responses(spec)
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
        "uri": {"Fn::Sub": _LAMBDA % (_EMBEDDED % spec.function.name if spec.embedded else _OWN)},
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
class GatewayResponse:
    """What API Gateway answers to requests of one type; ``status`` None keeps its own status."""

    type: str
    error: RequestError
    status: int | None


_SIGN_HINT = "sign the request with AWS credentials that may execute-api:Invoke"


def gateway_responses(spec: ApiSpec) -> tuple[GatewayResponse, ...]:
    """Every error response of API Gateway itself, as ``docs/contract.md`` spells it."""
    hint = _SIGN_HINT if spec.auth == "iam" else error_responses.KEY_HINT
    unknown = error_responses.not_found(spec.route)
    errors = {
        # An unknown route and a request without a signature are one type to API Gateway.
        "MISSING_AUTHENTICATION_TOKEN": (
            RequestError(403, "forbidden", "no such route, or no signature", hint)
            if spec.auth == "iam"
            else unknown
        ),
        "RESOURCE_NOT_FOUND": unknown,
        "INVALID_API_KEY": error_responses.no_key(),
        "ACCESS_DENIED": RequestError(403, "forbidden", "the request is not allowed", hint),
        "EXPIRED_TOKEN": RequestError(403, "forbidden", "the credentials have expired", hint),
        "INVALID_SIGNATURE": RequestError(403, "forbidden", "the signature is wrong", hint),
        "WAF_FILTERED": RequestError(
            403, "forbidden", "the request was blocked", "ask the API's owner"
        ),
        "UNAUTHORIZED": RequestError(401, "unauthorized", "the request is not authorized", hint),
        "THROTTLED": error_responses.throttled("too many requests a second"),
        "QUOTA_EXCEEDED": error_responses.quota_exceeded(
            "the requests of this key are used up for today", "the next day begins at 00:00 UTC"
        ),
        "REQUEST_TOO_LARGE": error_responses.too_large(spec.max_body),
        "BAD_REQUEST_BODY": RequestError(
            400, "invalid_json", "the body is not JSON", 'send {"text": "..."}'
        ),
    }
    # API Gateway counts a response whose status is changed as a client's error (4XXError), so that
    # the alarm on server errors would not see it. These keep their own: 504, 504 and any 5xx.
    rest = {
        "INTEGRATION_TIMEOUT": error_responses.timed_out(),
        "INTEGRATION_FAILURE": error_responses.timed_out(),
        "DEFAULT_4XX": RequestError(
            422, "invalid_request", "the request was refused", "see the API's documentation"
        ),
        "DEFAULT_5XX": error_responses.internal(),
    }
    return (
        *(GatewayResponse(name, error, error.status) for name, error in errors.items()),
        *(GatewayResponse(name, error, None) for name, error in rest.items()),
    )


def _gateway_response(answer: GatewayResponse, origins: Sequence[str]) -> Json:
    response: dict[str, Json] = {
        "responseParameters": _headers(answer.error, origins),
        "responseTemplates": {"application/json": json.dumps(answer.error.body())},
    }
    return {**response, "statusCode": str(answer.status)} if answer.status else response


def _headers(error: RequestError, origins: Sequence[str]) -> dict[str, Json]:
    headers = {
        "x-request-id": "context.requestId",
        "cache-control": "'no-store'",
        "x-content-type-options": "'nosniff'",
    }
    if error.retry_after is not None:
        headers["retry-after"] = f"'{error.retry_after}'"
    if origins:
        # Of several origins the right one cannot be chosen here. These answers are fixed and
        # carry no credentials, so that every page may read them.
        allowed = origins[0] if len(origins) == 1 else "*"
        headers["access-control-allow-origin"] = f"'{allowed}'"
        headers["access-control-expose-headers"] = "'retry-after, x-request-id'"
    return {f"gatewayresponse.header.{name}": value for name, value in headers.items()}

"""The OpenAPI 3.1 document of an API.

Requests and errors come from ``runtime.contract``, which also validates with them; this module adds
the answers and what is specific to one API: its route, its labels, its authentication. The server's
URL is unknown until the API exists, so whoever serves the document fills it in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastai_deploy.bundle import read_manifest
from fastai_deploy.errors import FileMissing
from fastai_deploy.runtime.contract import ERRORS, HEALTH, OPENAPI, PAGE, REQUEST
from fastai_deploy.settings import ApiSettings, Settings

Auth = Literal["key", "iam", "jwt", "none"]


@dataclass(frozen=True)
class ApiDescription:
    """An API as its callers see it.

    ``labels`` are the model's, empty if there is no bundle; ``several``: a text can have more than
    one. ``own_words``: the gateway's own errors have the contract's form (those of an AWS HTTP API
    do not). ``page``: there is a demo page at ``/``. ``unproven``: some of the model's answers are
    not proven to match the learner's.
    """

    title: str
    route: str
    auth: Auth
    max_body: int
    labels: tuple[str, ...] = ()
    several: bool = False
    own_words: bool = True
    page: bool = False
    issuer: str | None = None
    unproven: bool = False


def describe_api(settings: Settings, bundle: Path, *, target: str) -> ApiDescription:
    """Describe a stage's API on a target (``local`` or ``aws``). Raises FileError.

    The local API always requires a key and always has a demo page.
    """
    api: ApiSettings = settings.sections.api
    local = target == "local"
    try:
        manifest, _ = read_manifest(bundle)
    except FileMissing:
        manifest = None
    return ApiDescription(
        title=settings.project_name,
        route=api.route,
        auth="key" if local else api.auth,
        max_body=api.max_body,
        labels=manifest.labels if manifest else (),
        several=manifest is not None and manifest.task == "multi-label",
        own_words=local or api.type == "rest",
        page=local or api.page,
        issuer=api.jwt_issuer,
        unproven=manifest is not None and bool(manifest.unproven),
    )


Json = Any

VERSION = "1.1.0"
"""The version of the contract; the first number changes when callers have to change."""

SAMPLE = ApiDescription(
    "demo", "/classify", "key", 1_048_576, labels=("negative", "positive"), page=True
)
"""The API described in ``docs/openapi.json``."""

_SCHEMAS = "#/components/schemas/"
_HEADERS = "#/components/headers/"
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_ASKED = (400, 413, 415, 422, 429, 500, 503, 504)
_WITHOUT_RIGHT = {"key": (403,), "iam": (403,), "jwt": (401, 403), "none": ()}
_RETRIED = (429, 503)
# Statuses with which an HTTP API itself refuses requests, in its own form.
_REFUSED_BY_AWS = (401, 403, 429, 500, 503, 504)


def document(described_api: ApiDescription) -> dict[str, Json]:
    """The document, as plain data."""
    paths: dict[str, Json] = {
        described_api.route: {"post": _classify(described_api)},
        HEALTH: {"get": _health()},
        OPENAPI: {"get": _openapi()},
    }
    if described_api.page:
        paths[PAGE] = {"get": _page()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": described_api.title,
            "version": VERSION,
            "description": _description(described_api),
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(_schemas(described_api)),
            "headers": {
                "RequestId": {
                    "description": "Identifies the request in the logs.",
                    "required": True,
                    "schema": {"type": "string", "pattern": "^[A-Za-z0-9=_-]{1,128}$"},
                },
                "RetryAfter": {
                    "description": "Seconds to wait before sending the request again.",
                    "required": True,
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
            "securitySchemes": _schemes(described_api),
        },
    }


def encoded(described_api: ApiDescription) -> bytes:
    """The document as JSON; the same description gives the same bytes."""
    return (json.dumps(document(described_api), ensure_ascii=False, indent=2) + "\n").encode()


def _description(described_api: ApiDescription) -> str:
    said = [f"Classifies texts: `POST {described_api.route}`."]
    if described_api.labels:
        count = "any number" if described_api.several else "one"
        said.append(f"A text gets {count} of {len(described_api.labels)} labels.")
    if described_api.unproven:
        said.append("Some answers are not proven to match the original learner's.")
    return " ".join(said)


def _classify(described_api: ApiDescription) -> Json:
    content = {
        "application/json": {
            "schema": {"$ref": f"{_SCHEMAS}Request"},
            "examples": {
                "one": {"summary": "one text", "value": {"text": "some text"}},
                "several": {
                    "summary": "several texts, the best label of each",
                    "value": {"texts": ["some text", "another one"], "top_k": 1},
                },
            },
        },
        "text/plain": {
            "schema": {
                "type": "string",
                "description": "The text. A JSON object that contains `text` or `texts` is read "
                "as JSON.",
            },
            "example": "some text",
        },
        "application/x-www-form-urlencoded": {"schema": {"$ref": f"{_SCHEMAS}Form"}},
    }
    answer = {"anyOf": [{"$ref": f"{_SCHEMAS}Answer"}, {"$ref": f"{_SCHEMAS}Answers"}]}
    statuses = sorted({*_ASKED, *_WITHOUT_RIGHT[described_api.auth]})
    return {
        "operationId": "classify",
        "summary": "Classify a text, or several",
        "description": f"The body may have at most {described_api.max_body:,} bytes.",
        "security": [{name: []} for name in _schemes(described_api)],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": _answered("One answer for `text`, a list in order for `texts`.", answer),
            **{str(status): _refused(described_api, status) for status in statuses},
        },
    }


def _health() -> Json:
    return {
        "operationId": "health",
        "summary": "Check that the API is up, whatever the state of the model",
        "security": [],
        "responses": {
            "200": _answered("The API is up.", {"$ref": f"{_SCHEMAS}Health"}),
        },
    }


def _openapi() -> Json:
    return {
        "operationId": "openapi",
        "summary": "This document",
        "security": [],
        "responses": {
            "200": _answered("The document.", {"type": "object", "required": ["openapi"]}),
        },
    }


def _page() -> Json:
    return {
        "operationId": "page",
        "summary": "The demo page",
        "security": [],
        "responses": {
            "200": {
                "description": "The page.",
                "headers": {"x-request-id": {"$ref": f"{_HEADERS}RequestId"}},
                "content": {"text/html": {"schema": {"type": "string"}}},
            },
        },
    }


def _answered(description: str, schema: Json) -> Json:
    return {
        "description": description,
        "headers": {"x-request-id": {"$ref": f"{_HEADERS}RequestId"}},
        "content": {"application/json": {"schema": schema}},
    }


def _refused(described_api: ApiDescription, status: int) -> Json:
    """An error response with the contract's codes for this status."""
    codes = ERRORS[status]
    error = {
        "allOf": [
            {"$ref": f"{_SCHEMAS}Error"},
            {
                "properties": {
                    "error": {"properties": {"code": {"enum": [code for code, _ in codes]}}}
                }
            },
        ]
    }
    foreign = not described_api.own_words and status in _REFUSED_BY_AWS
    headers = {"x-request-id": {"$ref": f"{_HEADERS}RequestId"}}
    if status in _RETRIED:
        headers["retry-after"] = {"$ref": f"{_HEADERS}RetryAfter"}
    schema = {"anyOf": [error, {"$ref": f"{_SCHEMAS}GatewayMessage"}]} if foreign else error
    refused = {
        "description": "; ".join(f"`{code}`: {meaning}" for code, meaning in codes) + ".",
        "content": {"application/json": {"schema": schema}},
    }
    # An HTTP API's own errors have none of these headers.
    return refused if foreign else {**refused, "headers": headers}


def _schemas(described_api: ApiDescription) -> Iterator[tuple[str, Json]]:
    yield "Request", REQUEST
    yield "Form", _form()
    yield (
        "Label",
        {
            "type": "string",
            **({"enum": list(described_api.labels)} if described_api.labels else {}),
        },
    )
    yield "Answer", _answer(several=described_api.several)
    yield (
        "Answers",
        {
            "type": "array",
            "items": {"anyOf": [{"$ref": f"{_SCHEMAS}Answer"}, {"$ref": f"{_SCHEMAS}Error"}]},
        },
    )
    words = {name: {"type": "string"} for name in ("code", "message", "hint")}
    yield "Error", _closed({"error": _closed(words)})
    yield "Health", _closed({"status": {"const": "ok"}})
    if not described_api.own_words:
        yield (
            "GatewayMessage",
            {
                "type": "object",
                "required": ["message"],
                "properties": {"message": {"type": ["string", "null"]}},
                "description": "An error in API Gateway's own form.",
            },
        )


def _form() -> Json:
    """A request as a form, whose fields are strings and never null."""
    fields = {**REQUEST["properties"]}
    fields["top_k"] = {**fields["top_k"], "type": "integer"}
    return {**REQUEST, "properties": fields}


def _answer(*, several: bool) -> Json:
    """The answer to one text, as ``contract.answer`` makes it."""
    label = {"$ref": f"{_SCHEMAS}Label"}
    chosen: Mapping[str, Json] = {"label": label, "score": _PROBABILITY}
    if several:
        chosen = {
            "labels": {
                "type": "array",
                "items": label,
                "description": "Labels above the threshold, most probable first; may be empty.",
            },
            "scores": {"type": "array", "items": _PROBABILITY},
        }
    return _closed(
        {
            **chosen,
            "probabilities": {
                "type": "object",
                "propertyNames": label,
                "additionalProperties": _PROBABILITY,
                "description": "Probabilities by label, most probable first.",
            },
            "truncated": {
                "type": "boolean",
                "description": "The text was longer than the model can read and was truncated.",
            },
            "model": _model(),
        }
    )


def _model() -> Json:
    """The model in an answer; older servers do not name the precision."""
    closed = _closed({"name": {"type": "string"}, "version": {"type": "string"}})
    unproven = {
        "const": True,
        "description": "Present if some answers are not proven to match the original learner's.",
    }
    precision = {
        "type": "string",
        "description": "What the model computed in: fp32 (float32), or a form with fewer bits that "
        "passed the parity gate, such as bf16 or int8-weights; learner for the original learner.",
    }
    more = {"precision": precision, "unproven": unproven}
    return {**closed, "properties": {**closed["properties"], **more}}


def _closed(properties: Mapping[str, Json]) -> Json:
    """An object with exactly these keys."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _schemes(described_api: ApiDescription) -> dict[str, Json]:
    if described_api.auth == "key":
        return {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}
    if described_api.auth == "iam":
        return {
            "signature": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "AWS Signature Version 4, service `execute-api`.",
                "x-amazon-apigateway-authtype": "awsSigv4",
            }
        }
    if described_api.auth == "jwt":
        scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        description = (
            {"description": f"A token issued by {described_api.issuer}."}
            if described_api.issuer
            else {}
        )
        return {"token": {**scheme, **description}}
    return {}


if __name__ == "__main__":
    sys.stdout.buffer.write(encoded(SAMPLE))

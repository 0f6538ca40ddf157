"""Client code for an API: curl, Python with requests, and a Postman collection (2.1)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from fastai_deploy.records import Api

_TEXT = '{"text": "some text"}'
_SECONDS = 30  # as long as API Gateway waits


def curl(api: Api) -> Iterator[str]:
    """A curl command for a POSIX shell, line by line."""
    credential = {
        "key": f'-H "x-api-key: $(cat {shlex.quote(api.key_file)})"',
        "jwt": '-H "authorization: Bearer $TOKEN"',
        "iam": f'--aws-sigv4 "aws:amz:{_region(api)}:execute-api" '
        '--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" '
        '-H "x-amz-security-token: $AWS_SESSION_TOKEN"',
        "none": "",
    }[api.auth]
    yield f"curl {credential} \\" if credential else "curl \\"
    yield f"     -H 'content-type: application/json' -d '{_TEXT}' \\"
    yield f"     {shlex.quote(api.url)}"


def python(api: Api) -> Iterator[str]:
    """A Python program that uses ``requests``, line by line."""
    headers = {
        "key": f'{{"x-api-key": Path({api.key_file!r}).read_text()}}',
        "jwt": '{"authorization": f"Bearer {os.environ[\'TOKEN\']}"}',
        "iam": "dict(signed.headers)",
        "none": "{}",
    }[api.auth]
    yield from {
        "key": ["from pathlib import Path", ""],
        "jwt": ["import os", ""],
        "iam": [
            "import boto3",
            "from botocore.auth import SigV4Auth",
            "from botocore.awsrequest import AWSRequest",
        ],
        "none": [],
    }[api.auth]
    yield "import requests"
    yield ""
    if api.auth == "iam":
        yield f"body = {_TEXT!r}"
        yield 'kind = {"content-type": "application/json"}'
        yield f'signed = AWSRequest("POST", {api.url!r}, kind, body)'
        yield (
            f"SigV4Auth(boto3.Session().get_credentials(), "
            f'"execute-api", {_region(api)!r}).add_auth(signed)'
        )
    yield "answer = requests.post("
    yield f'    "{api.url}",'
    yield f"    headers={headers},"
    yield "    data=body," if api.auth == "iam" else f"    json={_TEXT},"
    yield f"    timeout={_SECONDS},"
    yield ")"
    yield "print(answer.json())"


def _region(api: Api) -> str:
    """The region in an API Gateway host name, else a placeholder."""
    _, _, rest = api.url.partition(".execute-api.")
    return rest.partition(".")[0] or "REGION"


Json = Any
_SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"


def collection(api: Api, title: str) -> bytes:
    """The Postman collection as JSON; the same API gives the same bytes."""
    items = [
        _item("Classify a text", "POST", api.url, {"text": "some text"}),
        _item("Classify several", "POST", api.url, {"texts": ["some text", "another"], "top_k": 1}),
        _item("Plain text", "POST", api.url, "some text"),
        *([_item("The OpenAPI document", "GET", api.document)] if api.document else []),
    ]
    variables = {"key": ["key"], "jwt": ["token"], "iam": ["accessKey", "secretKey"], "none": []}
    document = {
        "info": {"name": title, "schema": _SCHEMA},
        "item": items,
        "auth": _auth(api),
        "variable": [{"key": name, "value": "", "type": "string"} for name in variables[api.auth]],
    }
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()


def _item(name: str, method: str, url: str, body: Json = None) -> Json:
    request: dict[str, Json] = {"method": method, "header": [], "url": _url(url)}
    if body is not None:
        plain = isinstance(body, str)
        request["header"] = [
            {"key": "content-type", "value": "text/plain" if plain else "application/json"}
        ]
        request["body"] = {"mode": "raw", "raw": body if plain else json.dumps(body)}
    else:
        request["auth"] = {"type": "noauth"}
    return {"name": name, "request": request, "response": []}


def _url(url: str) -> Json:
    parts = urlsplit(url)
    address: dict[str, Json] = {
        "raw": url,
        "protocol": parts.scheme,
        "host": (parts.hostname or "").split("."),
        "path": parts.path.strip("/").split("/"),
    }
    return {**address, "port": str(parts.port)} if parts.port else address


def _auth(api: Api) -> Json:
    def values(pairs: dict[str, str]) -> Json:
        return [{"key": key, "value": value, "type": "string"} for key, value in pairs.items()]

    return {
        "key": {
            "type": "apikey",
            "apikey": values({"key": "x-api-key", "value": "{{key}}", "in": "header"}),
        },
        "jwt": {"type": "bearer", "bearer": values({"token": "{{token}}"})},
        "iam": {
            "type": "awsv4",
            "awsv4": values(
                {
                    "accessKey": "{{accessKey}}",
                    "secretKey": "{{secretKey}}",
                    "service": "execute-api",
                }
            ),
        },
        "none": {"type": "noauth"},
    }[api.auth]

"""A Postman collection (format 2.1) of an API: to be imported into Postman, Insomnia or Bruno.

The key is a variable without a value: it is typed in where the collection is used.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from fastai_deploy.records import Api

Json = Any
_SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"


def collection(api: Api, title: str) -> bytes:
    """The collection as JSON; the same API gives the same bytes."""
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

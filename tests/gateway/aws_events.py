"""Events as AWS documents them, for the three ways to call a Lambda over HTTP.

Sources: "Lambda proxy integrations in API Gateway" (REST, format 1.0), "Create AWS Lambda proxy
integrations for HTTP APIs" (format 2.0) and "Invoking Lambda function URLs".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
Builder = Callable[..., dict[str, Any]]


def rest(
    body: str | None = '{"text": "a fine film"}',
    *,
    method: str = "POST",
    path: str = "/classify",
    headers: Mapping[str, str] | None = None,
    is_base64: bool = False,
) -> dict[str, Any]:
    sent = _sent(headers)
    return {
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef1234",
            "domainName": "abcdef1234.execute-api.eu-central-1.amazonaws.com",
            "domainPrefix": "abcdef1234",
            "extendedRequestId": "Kx4=",
            "httpMethod": method,
            "identity": {
                "accessKey": None,
                "accountId": None,
                "apiKey": "0123456789abcdefghij0123456789abcdefghij",
                "apiKeyId": "a1b2c3d4e5",
                "caller": None,
                "sourceIp": "192.0.2.7",
                "user": None,
                "userAgent": "curl/8.5.0",
                "userArn": None,
            },
            "path": f"/dev{path}",
            "protocol": "HTTP/1.1",
            "requestId": REQUEST_ID,
            "requestTime": "21/Nov/2026:20:13:05 +0000",
            "requestTimeEpoch": 1_795_292_385_000,
            "resourceId": "zzz999",
            "resourcePath": path,
            "stage": "dev",
        },
        "body": body,
        "isBase64Encoded": is_base64,
    }


def http(
    body: str | None = '{"text": "a fine film"}',
    *,
    method: str = "POST",
    path: str = "/classify",
    headers: Mapping[str, str] | None = None,
    is_base64: bool = False,
    stage: str = "dev",
) -> dict[str, Any]:
    raw = path if stage == "$default" else f"/{stage}{path}"
    return _version_2(
        body,
        headers,
        route=f"{method} {path}",
        raw_path=raw,
        is_base64=is_base64,
        context={
            "accountId": "123456789012",
            "apiId": "abcdef1234",
            "domainName": "abcdef1234.execute-api.eu-central-1.amazonaws.com",
            "domainPrefix": "abcdef1234",
            "http": _http(method, raw),
            "requestId": REQUEST_ID,
            "routeKey": f"{method} {path}",
            "stage": stage,
            "time": "21/Nov/2026:20:13:05 +0000",
            "timeEpoch": 1_795_292_385_000,
        },
    )


def function_url(
    body: str | None = '{"text": "a fine film"}',
    *,
    method: str = "POST",
    path: str = "/classify",
    headers: Mapping[str, str] | None = None,
    is_base64: bool = False,
) -> dict[str, Any]:
    return _version_2(
        body,
        headers,
        route="$default",
        raw_path=path,
        is_base64=is_base64,
        context={
            "accountId": "anonymous",
            "apiId": "urlid",
            "authentication": None,
            "domainName": "urlid.lambda-url.eu-central-1.on.aws",
            "domainPrefix": "urlid",
            "http": _http(method, path),
            "requestId": REQUEST_ID,
            "routeKey": "$default",
            "stage": "$default",
            "time": "21/Nov/2026:20:13:05 +0000",
            "timeEpoch": 1_795_292_385_000,
        },
    )


KINDS: tuple[Builder, ...] = (rest, http, function_url)


def _version_2(
    body: str | None,
    headers: Mapping[str, str] | None,
    *,
    route: str,
    raw_path: str,
    is_base64: bool,
    context: dict[str, Any],
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": raw_path,
        "rawQueryString": "",
        "headers": {name.lower(): value for name, value in _sent(headers).items()},
        "requestContext": context,
        "isBase64Encoded": is_base64,
    }
    return event if body is None else {**event, "body": body}


def _http(method: str, path: str) -> dict[str, str]:
    return {
        "method": method,
        "path": path,
        "protocol": "HTTP/1.1",
        "sourceIp": "192.0.2.7",
        "userAgent": "curl/8.5.0",
    }


def _sent(headers: Mapping[str, str] | None) -> dict[str, str]:
    given = {"Content-Type": "application/json"} if headers is None else dict(headers)
    return {"Host": "abcdef1234.execute-api.eu-central-1.amazonaws.com", **given}

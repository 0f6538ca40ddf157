"""Which service and operation an HTTP request asks for, in each of AWS's protocols."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")
_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")
_CBOR = re.compile(r"/service/\w+/operation/(\w+)")
_IDENTIFIER = re.compile(r"/(?:[a-z0-9]{10}|fdeploy-[^/]+|[0-9a-f]{32,}[^/]*)(?=/|$)")

QUERY, JSON, REST_JSON, REST_XML, CBOR, PLAIN = "query", "json", "rest-json", "rest-xml", "cbor", ""


@dataclass(frozen=True)
class Request:
    """One HTTP request, whole."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Operation:
    """What is asked: ``cloudformation`` ``CreateChangeSet``, by which account, in which region."""

    service: str
    name: str
    protocol: str
    account: str
    region: str

    def __str__(self) -> str:
        return f"{self.service} {self.name}"


def operation_of(request: Request) -> Operation:
    """The operation of a signed request; an unsigned one is a call of a public API."""
    scope = _SCOPE.search(request.headers.get("authorization", ""))
    if scope is None:
        return Operation("execute-api", request.method, PLAIN, "", "")
    account, region, service = scope[1], scope[2], scope[3]
    name, protocol = _name(service, request)
    return Operation(service, name, protocol, account, region)


def _name(service: str, request: Request) -> tuple[str, str]:
    target = request.headers.get("x-amz-target", "")
    if target:
        return target.rpartition(".")[2], JSON
    if cbor := _CBOR.fullmatch(request.path):
        return cbor[1], CBOR
    if request.method == "POST" and (action := _ACTION.search(request.body)):
        return action[1].decode(), QUERY
    if service == "sagemaker":
        later = request.path.endswith("/async-invocations")
        return "InvokeEndpointAsync" if later else "InvokeEndpoint", REST_JSON
    if service == "s3":
        return _s3(request), REST_XML
    return f"{request.method} {_IDENTIFIER.sub('/{}', request.path)}", REST_JSON


def _s3(request: Request) -> str:
    """``PUT bucket?lifecycle``, ``HEAD object``: S3's operations are a method and a place."""
    place = "object" if request.path.strip("/").count("/") else "bucket"
    keys = sorted(parse_qs(request.query, keep_blank_values=True))
    return f"{request.method} {place}{'?' if keys else ''}{'&'.join(keys)}"

"""API Gateway's own log: one line of JSON a request, with nothing that a user sent.

Sources: "$context variables" for REST APIs, and "Customize HTTP API access logs".
"""

from __future__ import annotations

import json
from typing import Literal

from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.aws.template.intrinsics import Resources
from fastai_deploy.aws.template.logs import log_group
from fastai_deploy.naming import access_log_group

ACCESS_LOG = "AccessLogGroup"

_COMMON = {
    "request_id": "$context.requestId",
    "time": "$context.requestTimeEpoch",
    "method": "$context.httpMethod",
    "status": "$context.status",
    "bytes": "$context.responseLength",
    "ms": "$context.responseLatency",
    "lambda_ms": "$context.integrationLatency",
    "error": "$context.error.responseType",
}
_OF = {
    "rest": {"route": "$context.resourcePath", "key_id": "$context.identity.apiKeyId"},
    "http": {"route": "$context.routeKey"},
}


def access_log_format(kind: Literal["rest", "http"]) -> str:
    """The format of a line."""
    return json.dumps({**_COMMON, **_OF[kind]}, separators=(",", ":"))


def access_log(spec: ApiSpec) -> Resources:
    """The log group, where lines are wanted."""
    if not spec.access_logs:
        return {}
    owner = spec.common.owner
    name = access_log_group(owner.project, owner.stage)
    return {ACCESS_LOG: log_group(spec.common, spec.version, name)}

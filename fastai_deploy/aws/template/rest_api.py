"""A REST API: the routes, what it checks itself, its stage, and the key with its usage plan.

    RestApi <- resources <- methods ── Deployment<digest> <- ApiStage <- UsagePlan <- key
               gateway responses ─────┘

A deployment is a snapshot of the API: its logical id holds a digest of what it is made of, so that
a change makes another one and the stage moves over to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastai_deploy.aws.specs import ApiSpec, Route
from fastai_deploy.aws.template.access_log import ACCESS_LOG, access_log_format
from fastai_deploy.aws.template.function import FUNCTION, permission
from fastai_deploy.aws.template.gateway_responses import gateway_responses
from fastai_deploy.aws.template.intrinsics import (
    Json,
    Resource,
    Resources,
    attribute,
    digest,
    ref,
    resource,
    sub,
    tags,
)

API = "Api"
KEY_SERIAL = "ApiKeySerial"
STAGE = "ApiStage"
_VALIDATOR, _MODEL = "BodyValidator", "AnyJson"
# Whatever is JSON passes: what is wrong in it, the Lambda says better.
_ANY_JSON = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "title": "any JSON document",
    "type": ["array", "boolean", "integer", "null", "number", "object", "string"],
}


def rest_api(spec: ApiSpec) -> Resources:
    """The resources of the API."""
    snapshot: Resources = {
        API: resource(
            "AWS::ApiGateway::RestApi",
            {
                "Name": f"{spec.common.owner.project}-{spec.common.owner.stage}",
                "Description": f"Asks the endpoint {spec.endpoint} (fdeploy)",
                "EndpointConfiguration": {"Types": ["REGIONAL"]},
                "ApiKeySourceType": "HEADER",
                "Tags": tags(spec.common, spec.version),
            },
        ),
        _VALIDATOR: resource(
            "AWS::ApiGateway::RequestValidator",
            {
                "RestApiId": ref(API),
                "Name": "body",
                "ValidateRequestBody": True,
                "ValidateRequestParameters": False,
            },
        ),
        _MODEL: resource(
            "AWS::ApiGateway::Model",
            {
                "RestApiId": ref(API),
                "Name": _MODEL,
                "ContentType": "application/json",
                "Schema": _ANY_JSON,
            },
        ),
        **dict(_paths(spec)),
        **dict(_methods(spec)),
        **gateway_responses(spec, API),
    }
    made_of = {
        name: {**value, "Properties": {**value["Properties"], "Tags": None}}
        for name, value in snapshot.items()
    }
    deployment = f"Deployment{digest(made_of)[:12]}"
    return {
        **snapshot,
        deployment: resource(
            "AWS::ApiGateway::Deployment",
            {"RestApiId": ref(API)},
            DependsOn=sorted(set(snapshot) - {API}),
        ),
        STAGE: _stage(spec, deployment),
        "ApiPermission": permission(
            sub(
                "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:"
                f"${{{API}}}/{spec.common.owner.stage}/*"
            )
        ),
        **(_key(spec) if spec.auth == "key" else {}),
    }


def rest_url(spec: ApiSpec, path: str) -> Json:
    """The URL of a path."""
    stage = spec.common.owner.stage
    return sub(f"https://${{{API}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}/{stage}{path}")


def with_key_serial(template: Mapping[str, Json], serial: str) -> dict[str, Json]:
    """The template with a new key in the place of the old one.

    The value of a key cannot be changed, but a key of another name is another key:
    CloudFormation makes it, moves the usage plan over, and deletes the old one at the end.
    """
    resources, outputs = dict(template["Resources"]), dict(template["Outputs"])
    key = resources["ApiKey"]
    name = str(key["Properties"]["Name"]).partition(".")[0]
    resources["ApiKey"] = {**key, "Properties": {**key["Properties"], "Name": f"{name}.{serial}"}}
    outputs[KEY_SERIAL] = {"Value": serial}
    return {**template, "Resources": resources, "Outputs": outputs}


def _paths(spec: ApiSpec) -> Iterator[tuple[str, Resource]]:
    """Every part of every route's path, once."""
    paths = {path for route in spec.routes for path in _ancestry(route.path)} - {"/"}
    for path in sorted(paths):
        parent, _, part = path.rpartition("/")
        yield (
            _path_id(path),
            resource(
                "AWS::ApiGateway::Resource",
                {
                    "RestApiId": ref(API),
                    "ParentId": _path_ref(parent),
                    "PathPart": part,
                },
            ),
        )


def _methods(spec: ApiSpec) -> Iterator[tuple[str, Resource]]:
    for path in sorted({route.path for route in spec.routes}):
        routes = [route for route in spec.routes if route.path == path]
        for route in routes:
            yield _method_id(path, route.method), _method(spec, route)
        if spec.origins:
            yield (
                _method_id(path, "OPTIONS"),
                _method(spec, Route("OPTIONS", path, protected=False)),
            )
        # Any other method the Lambda answers with 405, to whoever may ask it at all.
        others = Route("ANY", path, protected=all(route.protected for route in routes))
        yield _method_id(path, "ANY"), _method(spec, others)


def _method(spec: ApiSpec, route: Route) -> Resource:
    checked = route.method == "POST"
    return resource(
        "AWS::ApiGateway::Method",
        {
            "RestApiId": ref(API),
            "ResourceId": _path_ref(route.path),
            "HttpMethod": route.method,
            "AuthorizationType": "AWS_IAM" if route.protected and spec.auth == "iam" else "NONE",
            "ApiKeyRequired": route.protected and spec.auth == "key",
            "RequestValidatorId": ref(_VALIDATOR) if checked else None,
            "RequestModels": {"application/json": ref(_MODEL)} if checked else None,
            "Integration": {
                "Type": "AWS_PROXY",
                "IntegrationHttpMethod": "POST",
                "Uri": sub(
                    "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/"
                    f"functions/${{{FUNCTION}.Arn}}/invocations"
                ),
                # As long as the Lambda may take: it answers before that.
                "TimeoutInMillis": spec.function.timeout * 1_000,
            },
        },
    )


def _stage(spec: ApiSpec, deployment: str) -> Resource:
    log = None
    if spec.access_logs:
        destination = attribute(ACCESS_LOG, "Arn")
        log = {"DestinationArn": destination, "Format": access_log_format("rest")}
    return resource(
        "AWS::ApiGateway::Stage",
        {
            "RestApiId": ref(API),
            "DeploymentId": ref(deployment),
            "StageName": spec.common.owner.stage,
            "AccessLogSetting": log,
            "MethodSettings": [
                {
                    "ResourcePath": "/*",
                    "HttpMethod": "*",
                    "ThrottlingRateLimit": spec.throttle.rate,
                    "ThrottlingBurstLimit": spec.throttle.burst,
                    "MetricsEnabled": True,
                    "DataTraceEnabled": False,
                    "LoggingLevel": "OFF",
                }
            ],
            "Tags": tags(spec.common, spec.version),
        },
    )


def _key(spec: ApiSpec) -> Resources:
    """The API key, and how much it may ask. AWS makes the key's value; no template knows it."""
    owner, throttle = spec.common.owner, spec.throttle
    name = f"{owner.project}-{owner.stage}"
    quota = {"Limit": throttle.quota, "Period": "DAY"} if throttle.quota else None
    return {
        "ApiKey": resource(
            "AWS::ApiGateway::ApiKey",
            {
                "Name": name,
                "Description": f"Calls the API of {owner.project}, stage {owner.stage}",
                "Enabled": True,
                "Tags": tags(spec.common, spec.version),
            },
        ),
        "UsagePlan": resource(
            "AWS::ApiGateway::UsagePlan",
            {
                "UsagePlanName": name,
                "ApiStages": [{"ApiId": ref(API), "Stage": ref(STAGE)}],
                "Throttle": {"RateLimit": throttle.rate, "BurstLimit": throttle.burst},
                "Quota": quota,
                "Tags": tags(spec.common, spec.version),
            },
        ),
        "UsagePlanKey": resource(
            "AWS::ApiGateway::UsagePlanKey",
            {"KeyId": ref("ApiKey"), "KeyType": "API_KEY", "UsagePlanId": ref("UsagePlan")},
        ),
    }


def _ancestry(path: str) -> Iterator[str]:
    """``/a``, ``/a/b`` of ``/a/b``."""
    parts = path.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:count])


def _path_ref(path: str) -> Json:
    """The resource of a path; the root is there with the API."""
    return ref(_path_id(path)) if path.strip("/") else attribute(API, "RootResourceId")


def _path_id(path: str) -> str:
    return f"Path{digest(path)[:8]}"


def _method_id(path: str, method: str) -> str:
    return f"Method{method.capitalize()}{digest(path)[:8]}"

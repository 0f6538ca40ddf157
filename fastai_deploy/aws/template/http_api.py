"""An HTTP API: cheaper and simpler, for who is authorized by IAM or a token, or for everybody.

It has no API keys, and what it refuses itself it says in its own words, not the contract's.
"""

from __future__ import annotations

from fastai_deploy.aws.specs import ApiSpec, Route
from fastai_deploy.aws.template.access_log import ACCESS_LOG, access_log_format
from fastai_deploy.aws.template.function import FUNCTION, permission
from fastai_deploy.aws.template.intrinsics import (
    Json,
    Resource,
    Resources,
    attribute,
    digest,
    ref,
    resource,
    sub,
    tag_map,
)

API = "Api"
STAGE = "ApiStage"
_INTEGRATION, _AUTHORIZER = "Integration", "TokenAuthorizer"
_CORS_SECONDS = 600


def http_api(spec: ApiSpec) -> Resources:
    """The resources of the API."""
    resources: Resources = {
        API: resource(
            "AWS::ApiGatewayV2::Api",
            {
                "Name": f"{spec.common.owner.project}-{spec.common.owner.stage}",
                "Description": f"Asks the endpoint {spec.endpoint} (fdeploy)",
                "ProtocolType": "HTTP",
                "CorsConfiguration": _cors(spec),
                "Tags": tag_map(spec.common, spec.version),
            },
        ),
        _INTEGRATION: resource(
            "AWS::ApiGatewayV2::Integration",
            {
                "ApiId": ref(API),
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": attribute(FUNCTION, "Arn"),
                "PayloadFormatVersion": "2.0",
                "TimeoutInMillis": spec.function.timeout * 1_000,
            },
        ),
        STAGE: _stage(spec),
        "ApiPermission": permission(
            sub(
                "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:"
                f"${{{API}}}/*"
            )
        ),
    }
    # Any other method the Lambda answers with 405, to whoever may ask it at all.
    others = [Route("ANY", route.path, route.protected) for route in spec.routes]
    for route in (*spec.routes, *others):
        resources[f"Route{digest([route.method, route.path])[:8]}"] = _route(spec, route)
    if spec.jwt:
        resources[_AUTHORIZER] = resource(
            "AWS::ApiGatewayV2::Authorizer",
            {
                "ApiId": ref(API),
                "Name": "tokens",
                "AuthorizerType": "JWT",
                "IdentitySource": ["$request.header.Authorization"],
                "JwtConfiguration": {
                    "Issuer": spec.jwt.issuer,
                    "Audience": list(spec.jwt.audience),
                },
            },
        )
    return resources


def http_url(path: str) -> Json:
    """The URL of a path."""
    return sub(f"https://${{{API}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}{path}")


def _route(spec: ApiSpec, route: Route) -> Resource:
    kind = {"iam": "AWS_IAM", "jwt": "JWT"}.get(spec.auth, "NONE") if route.protected else "NONE"
    return resource(
        "AWS::ApiGatewayV2::Route",
        {
            "ApiId": ref(API),
            "RouteKey": f"{route.method} {route.path}",
            "Target": sub(f"integrations/${{{_INTEGRATION}}}"),
            "AuthorizationType": kind,
            "AuthorizerId": ref(_AUTHORIZER) if kind == "JWT" else None,
        },
    )


def _stage(spec: ApiSpec) -> Resource:
    log = None
    if spec.access_logs:
        destination = attribute(ACCESS_LOG, "Arn")
        log = {"DestinationArn": destination, "Format": access_log_format("http")}
    return resource(
        "AWS::ApiGatewayV2::Stage",
        {
            "ApiId": ref(API),
            "StageName": "$default",
            "AutoDeploy": True,
            "AccessLogSettings": log,
            "DefaultRouteSettings": {
                "ThrottlingRateLimit": spec.throttle.rate,
                "ThrottlingBurstLimit": spec.throttle.burst,
                "DetailedMetricsEnabled": True,
            },
            "Tags": tag_map(spec.common, spec.version),
        },
    )


def _cors(spec: ApiSpec) -> Json:
    if not spec.origins:
        return None
    return {
        "AllowOrigins": list(spec.origins),
        "AllowMethods": sorted({route.method for route in spec.routes} | {"HEAD", "OPTIONS"}),
        "AllowHeaders": ["authorization", "content-type", "x-api-key"],
        "ExposeHeaders": ["retry-after", "x-request-id"],
        "MaxAge": _CORS_SECONDS,
    }

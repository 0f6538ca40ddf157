"""The stack ``<project>-<stage>-api``: the Lambda and the API Gateway before it.

client ── Api (key, IAM or token; throttle) ── Function ── the endpoint, by its name
"""

from __future__ import annotations

from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.aws.template.access_log import access_log
from fastai_deploy.aws.template.alarms import api_alarms
from fastai_deploy.aws.template.custom_domain import DOMAIN, domain_resources
from fastai_deploy.aws.template.function import function_resources
from fastai_deploy.aws.template.http_api import http_api, http_url
from fastai_deploy.aws.template.intrinsics import Json, Resources, attribute, ref, template
from fastai_deploy.aws.template.rest_api import API, STAGE, rest_api, rest_url
from fastai_deploy.naming import function_log_group
from fastai_deploy.runtime.contract import OPENAPI, PAGE


def api_template(spec: ApiSpec) -> Json:
    """The template of an API's stack."""
    owner = spec.common.owner
    resources: Resources = {
        **function_resources(spec),
        **access_log(spec),
        **(rest_api(spec) if spec.type == "rest" else http_api(spec)),
        **domain_resources(spec, API, STAGE),
        **api_alarms(spec, ref(API)),
    }
    outputs = {
        **{name: _url(spec, path) for name, path in _paths(spec)},
        "ApiId": ref(API),
        "ApiType": spec.type,
        "Auth": spec.auth,
        "EndpointName": spec.endpoint,
        "FunctionName": spec.function.name,
        "FunctionLogGroupName": function_log_group(spec.function.name),
        "Version": spec.version,
    }
    if spec.auth == "key":
        outputs |= {"ApiKeyId": ref("ApiKey"), "UsagePlanId": ref("UsagePlan")}
    if spec.domain:
        posted = next(route.path for route in spec.routes if route.protected)
        outputs |= {
            "DomainUrl": f"https://{spec.domain.name}{posted}",
            "DomainTarget": attribute(DOMAIN, "RegionalDomainName"),
        }
    if spec.access_logs:
        outputs["AccessLogGroupName"] = ref("AccessLogGroup")
    return template(f"fdeploy: the API of {owner.project}, stage {owner.stage}", resources, outputs)


def _paths(spec: ApiSpec) -> list[tuple[str, str]]:
    """The outputs that are URLs: the route to call, whether the API is up, what it is."""
    posted = next(route.path for route in spec.routes if route.protected)
    health = next(route.path for route in spec.routes if not route.protected)
    documents = {OPENAPI: "DocumentUrl", PAGE: "PageUrl"}
    shown = [
        (documents[route.path], route.path) for route in spec.routes if route.path in documents
    ]
    return [("Url", posted), ("HealthUrl", health), *shown]


def _url(spec: ApiSpec, path: str) -> Json:
    return rest_url(spec, path) if spec.type == "rest" else http_url(path)

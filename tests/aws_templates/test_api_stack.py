"""What the API's stack promises: who may call, how it refuses, and that it calls one endpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.aws.template.api_stack import api_template
from fastai_deploy.aws.template.rest_api import KEY_SERIAL, with_key_serial
from fastai_deploy.runtime.gateway import error_responses
from tests.aws_templates.scenarios import APIS, CERTIFICATE, api_of, of_type, section, settings_of

Json = Any
CONTRACT = (Path(__file__).parents[2] / "docs/contract.md").read_text(encoding="utf-8")


def spec_of(toml: str) -> ApiSpec:
    return api_of(settings_of(section("api", toml)))


def template(name: str) -> Json:
    return api_template(spec_of(APIS[name]))


def methods(document: Json) -> dict[tuple[str, str], Json]:
    """The methods of a REST API by path and method."""
    resources = document["Resources"]

    def path(ref: Json) -> str:
        if "Ref" not in ref:
            return ""
        properties = resources[ref["Ref"]]["Properties"]
        return f"{path(properties['ParentId'])}/{properties['PathPart']}"

    return {
        (path(item["Properties"]["ResourceId"]), item["Properties"]["HttpMethod"]): item[
            "Properties"
        ]
        for item in of_type(document, "AWS::ApiGateway::Method")
    }


def test_the_routes_and_who_may_call_them() -> None:
    by_key = {
        where: (item["ApiKeyRequired"], item["AuthorizationType"])
        for where, item in methods(template("rest-key")).items()
    }
    assert by_key == {
        ("/classify", "POST"): (True, "NONE"),
        ("/classify", "ANY"): (True, "NONE"),
        ("/health", "GET"): (False, "NONE"),
        ("/health", "ANY"): (False, "NONE"),
        ("/openapi.json", "GET"): (False, "NONE"),
        ("/openapi.json", "ANY"): (False, "NONE"),
    }
    by_iam = methods(template("rest-iam"))
    assert by_iam["/classify", "POST"]["AuthorizationType"] == "AWS_IAM"
    assert by_iam["/classify", "OPTIONS"]["AuthorizationType"] == "NONE", "browsers do not sign"
    assert not any(item["ApiKeyRequired"] for item in methods(template("rest-none")).values())


def test_a_page_stands_at_the_root_when_it_is_asked_for() -> None:
    document = template("rest-page")
    root = {"Fn::GetAtt": ["Api", "RootResourceId"]}
    at_root = [
        item["Properties"]
        for item in of_type(document, "AWS::ApiGateway::Method")
        if item["Properties"]["ResourceId"] == root
    ]
    assert {item["HttpMethod"] for item in at_root} == {"GET", "ANY"}
    assert not any(item["ApiKeyRequired"] for item in at_root)
    assert document["Outputs"]["PageUrl"]["Value"]["Fn::Sub"].endswith("/dev/")
    assert "PageUrl" not in template("rest-key")["Outputs"]
    routes = of_type(template("http-jwt"), "AWS::ApiGatewayV2::Route")
    kinds = {
        route["Properties"]["RouteKey"]: route["Properties"]["AuthorizationType"]
        for route in routes
    }
    assert kinds["GET /"] == kinds["GET /openapi.json"] == "NONE"


def test_a_deep_route_and_its_preflight() -> None:
    found = methods(template("rest-full"))
    assert ("/v1/classify", "POST") in found
    assert ("/v1/classify", "OPTIONS") in found
    assert ("/v1", "POST") not in found


def test_a_key_has_a_plan_and_its_value_is_nowhere() -> None:
    document = template("rest-full")
    (plan,) = of_type(document, "AWS::ApiGateway::UsagePlan")
    assert plan["Properties"]["Throttle"] == {"RateLimit": 10, "BurstLimit": 20}
    assert plan["Properties"]["Quota"] == {"Limit": 5000, "Period": "DAY"}
    (key,) = of_type(document, "AWS::ApiGateway::ApiKey")
    assert "Value" not in key["Properties"]
    assert document["Outputs"]["ApiKeyId"]["Value"] == {"Ref": "ApiKey"}
    assert "ApiKeyId" not in template("rest-iam")["Outputs"]


def test_a_key_is_replaced_by_one_of_another_name() -> None:
    before = template("rest-full")
    first = with_key_serial(before, "20261125150000")
    second = with_key_serial(first, "20261126150000")
    names = [
        of_type(document, "AWS::ApiGateway::ApiKey")[0]["Properties"]["Name"]
        for document in (before, first, second)
    ]
    assert names == ["demo-dev", "demo-dev.20261125150000", "demo-dev.20261126150000"]
    assert second["Outputs"][KEY_SERIAL]["Value"] == "20261126150000"
    changed = {
        name
        for name in before["Resources"]
        if before["Resources"][name] != second["Resources"][name]
    }
    assert changed == {"ApiKey"}
    assert before == template("rest-full"), "the old template is as it was"


def test_the_stage_throttles_too() -> None:
    (stage,) = of_type(template("rest-none"), "AWS::ApiGateway::Stage")
    (settings,) = stage["Properties"]["MethodSettings"]
    assert (settings["ThrottlingRateLimit"], settings["ThrottlingBurstLimit"]) == (50.0, 100)
    assert settings["DataTraceEnabled"] is False, "which would log the users' texts"


def test_the_lambda_may_ask_one_endpoint() -> None:
    (role,) = of_type(template("rest-key"), "AWS::IAM::Role")
    (policy,) = role["Properties"]["Policies"]
    allowed = {item["Sid"]: item for item in policy["PolicyDocument"]["Statement"]}
    assert set(allowed) == {"Invoke", "Logs"}
    assert allowed["Invoke"]["Action"] == ["sagemaker:InvokeEndpoint"]
    assert allowed["Invoke"]["Resource"]["Fn::Sub"].endswith(":endpoint/demo-dev")


def test_only_this_api_may_call_the_lambda() -> None:
    (rest,) = of_type(template("rest-key"), "AWS::Lambda::Permission")
    assert rest["Properties"]["SourceArn"]["Fn::Sub"].endswith(":${Api}/dev/*")
    (http,) = of_type(template("http-iam"), "AWS::Lambda::Permission")
    assert http["Properties"]["SourceArn"]["Fn::Sub"].endswith(":${Api}/*")


def test_the_lambda_is_arm_and_reserves_what_is_asked() -> None:
    (function,) = of_type(template("rest-full"), "AWS::Lambda::Function")
    assert function["Properties"]["Architectures"] == ["arm64"]
    assert function["Properties"]["ReservedConcurrentExecutions"] == 5
    assert function["Properties"]["Timeout"] == 13
    (plain,) = of_type(template("rest-key"), "AWS::Lambda::Function")
    assert "ReservedConcurrentExecutions" not in plain["Properties"]


# What the gateway refuses itself


def answers(document: Json) -> dict[str, tuple[int | None, dict[str, str], dict[str, str]]]:
    """Gateway responses by type: status, error, headers."""
    found = {}
    for item in of_type(document, "AWS::ApiGateway::GatewayResponse"):
        properties = item["Properties"]
        body = json.loads(properties["ResponseTemplates"]["application/json"])
        status = int(properties["StatusCode"]) if "StatusCode" in properties else None
        headers = {
            name.removeprefix("gatewayresponse.header."): value
            for name, value in properties["ResponseParameters"].items()
        }
        found[properties["ResponseType"]] = (status, body["error"], headers)
    return found


@pytest.mark.parametrize("name", [name for name in APIS if name.startswith("rest")])
def test_every_refusal_is_in_the_contract(name: str) -> None:
    for kind, (status, error, headers) in answers(template(name)).items():
        assert set(error) == {"code", "message", "hint"}
        assert all(error.values())
        assert "$" not in json.dumps(error), "nothing of the request is repeated"
        assert headers["x-request-id"] == "context.requestId"
        if status is not None:
            assert re.search(rf"^\| {status} \|.*`{error['code']}`", CONTRACT, re.MULTILINE), kind


def test_refusals_are_those_of_the_local_gateway() -> None:
    found = answers(template("rest-key"))
    unknown = error_responses.not_found("/classify")
    assert found["MISSING_AUTHENTICATION_TOKEN"][0] == unknown.status
    assert found["MISSING_AUTHENTICATION_TOKEN"][1] == unknown.body()["error"]
    assert found["INVALID_API_KEY"][1]["message"] == "the request has no valid API key"
    assert found["THROTTLED"][2]["retry-after"] == "'1'"
    assert answers(template("rest-iam"))["MISSING_AUTHENTICATION_TOKEN"][0] == 403


def test_refusals_can_be_read_by_the_pages_that_may_call() -> None:
    name = "access-control-allow-origin"
    assert all(name not in headers for *_, headers in answers(template("rest-key")).values())
    (one,) = {headers[name] for *_, headers in answers(template("rest-iam")).values()}
    assert one == "'https://a.example'"
    (several,) = {headers[name] for *_, headers in answers(template("rest-full")).values()}
    assert several == "'*'"


def test_what_is_no_json_is_refused_and_all_json_is_let_through() -> None:
    document = template("rest-key")
    (validator,) = of_type(document, "AWS::ApiGateway::RequestValidator")
    assert validator["Properties"]["ValidateRequestBody"] is True
    post = methods(document)["/classify", "POST"]
    assert post["RequestModels"] == {"application/json": {"Ref": "AnyJson"}}
    (model,) = of_type(document, "AWS::ApiGateway::Model")
    assert len(model["Properties"]["Schema"]["type"]) == 7


# Deployments


def deployment(toml: str) -> str:
    document = api_template(spec_of(toml))
    (name,) = [str(name) for name in document["Resources"] if name.startswith("Deployment")]
    (stage,) = of_type(document, "AWS::ApiGateway::Stage")
    assert stage["Properties"]["DeploymentId"] == {"Ref": name}
    needs = set(document["Resources"][name]["DependsOn"])
    made = {
        name
        for name, item in document["Resources"].items()
        if item["Type"] in {"AWS::ApiGateway::Method", "AWS::ApiGateway::GatewayResponse"}
    }
    assert made <= needs, "a deployment is a snapshot of what is there"
    return name


@pytest.mark.parametrize(
    ("toml", "changes"),
    [
        ('route = "/ask"\n', True),
        ('auth = "none"\n', True),
        ('cors_origins = ["https://a"]\n', True),
        ("timeout = 5\n", True),
        ("rate = 1\n", False),
        ("quota = 7\n", False),
        ("memory = 1024\n", False),
    ],
)
def test_a_changed_api_is_deployed_anew_and_an_unchanged_one_is_not(
    toml: str,
    changes: bool,  # noqa: FBT001
) -> None:
    assert (deployment(toml) != deployment("")) is changes


def test_tags_deploy_nothing() -> None:
    tagged = section("api", "").replace("[project]\n", "[project]\ntags = {team = 'nlp'}\n")
    names = [
        {
            name
            for name in api_template(api_of(settings_of(toml)))["Resources"]
            if "Deployment" in name
        }
        for toml in (section("api", ""), tagged)
    ]
    assert names[0] == names[1]


# HTTP APIs


def test_an_http_api_takes_tokens_or_signatures() -> None:
    def kinds(name: str) -> set[tuple[str, str]]:
        return {
            (route["Properties"]["RouteKey"], route["Properties"]["AuthorizationType"])
            for route in of_type(template(name), "AWS::ApiGatewayV2::Route")
        }

    assert ("POST /classify", "JWT") in kinds("http-jwt")
    assert ("POST /classify", "AWS_IAM") in kinds("http-iam")
    assert ("GET /health", "NONE") in kinds("http-jwt")
    (authorizer,) = of_type(template("http-jwt"), "AWS::ApiGatewayV2::Authorizer")
    assert authorizer["Properties"]["JwtConfiguration"] == {
        "Issuer": "https://id.example/pool",
        "Audience": ["demo"],
    }


def test_an_http_api_throttles_and_answers_preflights() -> None:
    (stage,) = of_type(template("http-jwt"), "AWS::ApiGatewayV2::Stage")
    assert stage["Properties"]["DefaultRouteSettings"]["ThrottlingBurstLimit"] == 100
    (api,) = of_type(template("http-jwt"), "AWS::ApiGatewayV2::Api")
    assert api["Properties"]["CorsConfiguration"]["AllowOrigins"] == ["*"]
    (closed,) = of_type(template("http-iam"), "AWS::ApiGatewayV2::Api")
    assert "CorsConfiguration" not in closed["Properties"]


@pytest.mark.parametrize("name", APIS)
def test_access_logs_hold_nothing_that_a_user_sent(name: str) -> None:
    for kind, key in (
        ("AWS::ApiGateway::Stage", "AccessLogSetting"),
        ("AWS::ApiGatewayV2::Stage", "AccessLogSettings"),
    ):
        for stage in of_type(template(name), kind):
            log = stage["Properties"].get(key)
            assert (log is None) is (name == "rest-iam")
            for word in ("sourceIp", "userAgent", "requestOverride", "querystring", 'path"'):
                assert log is None or word not in log["Format"]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("rest-key", "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/dev/classify"),
        (
            "rest-full",
            "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/dev/v1/classify",
        ),
        ("http-jwt", "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/classify"),
    ],
)
def test_the_url(name: str, url: str) -> None:
    assert template(name)["Outputs"]["Url"]["Value"] == {"Fn::Sub": url}


@pytest.mark.parametrize("name", ["rest-domain", "http-domain"])
def test_a_domain_leads_to_the_api(name: str) -> None:
    document = template(name)
    family = "ApiGateway" if name.startswith("rest") else "ApiGatewayV2"
    (domain,) = of_type(document, f"AWS::{family}::DomainName")
    assert "TLS_1_2" in json.dumps(domain)
    assert CERTIFICATE in json.dumps(domain)
    kind = "BasePathMapping" if name.startswith("rest") else "ApiMapping"
    (mapping,) = of_type(document, f"AWS::{family}::{kind}")
    assert mapping["Properties"]["Stage"] == {"Ref": "ApiStage"}
    assert mapping["Properties"]["DomainName"] == {"Ref": "Domain"}
    url = document["Outputs"]["DomainUrl"]["Value"]
    assert re.fullmatch(r"https://(api\.example\.com|a\.b\.co)/classify", url)
    assert document["Outputs"]["DomainTarget"]["Value"] == {
        "Fn::GetAtt": ["Domain", "RegionalDomainName"]
    }
    assert not of_type(template("rest-key"), "AWS::ApiGateway::DomainName")


@pytest.mark.parametrize("name", APIS)
def test_alarms_measure_this_api(name: str) -> None:
    alarms = of_type(template(name), "AWS::CloudWatch::Alarm")
    assert len(alarms) == 3
    for alarm in alarms:
        names = {item["Name"] for item in alarm["Properties"]["Dimensions"]}
        assert names == ({"ApiName", "Stage"} if name.startswith("rest") else {"ApiId", "Stage"})

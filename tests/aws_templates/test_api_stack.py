"""The API's stack: who may call, how it refuses, and that it can call only one endpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from fastai_deploy.api_docs import openapi
from fastai_deploy.api_docs.openapi import ApiDescription
from fastai_deploy.aws.specs import ApiSpec
from fastai_deploy.aws.templates import render
from fastai_deploy.aws.templates.update import KEY_SERIAL, with_key_serial
from fastai_deploy.packaging.lambda_zip import HANDLER
from fastai_deploy.runtime import error_responses
from tests.aws_templates.scenarios import APIS, CERTIFICATE, api_of, of_type, section, settings_of

Json = Any
CONTRACT = (Path(__file__).parents[2] / "docs/contract.md").read_text(encoding="utf-8")


def spec_of(toml: str) -> ApiSpec:
    return api_of(settings_of(section("api", toml)))


def api_template(spec: ApiSpec) -> Json:
    """The stack of a spec, as a template without parameters."""
    return render.api_template(spec).evaluated()


# A function URL has no gateway; test_function_stack.py has what it has.
GATEWAYS = [name for name in APIS if not name.startswith("url")]
IN_FUNCTION = {"rest-lambda", "http-lambda"}


def asked_by(name: str) -> str:
    """The function that an API asks: its own, or the alias of the model's."""
    arn = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function"
    return f"{arn}:demo-dev-lambda:live" if name in IN_FUNCTION else "${Function.Arn}"


@pytest.mark.parametrize("name", sorted(IN_FUNCTION))
def test_the_model_in_a_function_needs_no_second_one(name: str) -> None:
    made = template(name)
    kinds = {item["Type"] for item in made["Resources"].values()}
    assert not kinds & {"AWS::Lambda::Function", "AWS::IAM::Role"}
    (permission,) = of_type(made, "AWS::Lambda::Permission")
    assert permission["Properties"]["FunctionName"] == {"Fn::Sub": asked_by(name)}


def template(name: str) -> Json:
    return api_template(spec_of(APIS[name]))


def body(document: Json) -> Json:
    """The OpenAPI document that the API is imported from, with its functions as texts."""
    return plain(document["Resources"]["Api"]["Properties"]["Body"])


def plain(value: Json) -> Json:
    if isinstance(value, dict):
        return value.get("Fn::Sub") or {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def methods(document: Json) -> dict[tuple[str, str], Json]:
    """The operations of an API by path and method."""
    return {
        (path, method.removeprefix("x-amazon-apigateway-").upper()): operation
        for path, item in body(document)["paths"].items()
        for method, operation in item.items()
    }


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_body_is_an_openapi_document(name: str) -> None:
    found = body(template(name))
    assert found["openapi"].startswith("3.0."), "API Gateway imports no later one"
    validate(found)
    assert "null" not in json.dumps(found), "which a template may not hold"


@pytest.mark.parametrize("name", GATEWAYS)
def test_every_operation_asks_the_function(name: str) -> None:
    version = "2.0" if name.startswith("http") else None
    for operation in methods(template(name)).values():
        integration = operation["x-amazon-apigateway-integration"]
        assert integration["type"] == "aws_proxy"
        assert integration["uri"].endswith(
            f":lambda:path/2015-03-31/functions/{asked_by(name)}/invocations"
        )
        assert integration.get("payloadFormatVersion") == version


@pytest.mark.parametrize("name", GATEWAYS)
def test_callers_are_given_the_same_description(name: str) -> None:
    spec = spec_of(APIS[name])
    face = ApiDescription("", spec.route, spec.auth, spec.max_body, page=spec.page)
    described = openapi.document(face)["paths"]
    found = body(template(name))["paths"]
    assert set(found) == set(described)
    for path, item in described.items():
        for method, operation in item.items():
            assert found[path][method]["operationId"] == operation["operationId"]
            assert found[path][method]["security"] == operation["security"]
            assert set(found[path][method]["responses"]) == set(operation["responses"])


def test_the_routes_and_who_may_call_them() -> None:
    by_key = {where: item["security"] for where, item in methods(template("rest-key")).items()}
    assert by_key == {
        ("/classify", "POST"): [{"key": []}],
        ("/classify", "ANY-METHOD"): [{"key": []}],
        ("/health", "GET"): [],
        ("/health", "ANY-METHOD"): [],
        ("/openapi.json", "GET"): [],
        ("/openapi.json", "ANY-METHOD"): [],
    }
    key = body(template("rest-key"))["components"]["securitySchemes"]["key"]
    assert key == {"type": "apiKey", "in": "header", "name": "x-api-key"}
    by_iam = methods(template("rest-iam"))
    assert by_iam["/classify", "POST"]["security"] == [{"signature": []}]
    assert by_iam["/classify", "OPTIONS"]["security"] == [], "browsers do not sign"
    signed = body(template("rest-iam"))["components"]["securitySchemes"]["signature"]
    assert signed["x-amazon-apigateway-authtype"] == "awsSigv4"
    assert not any(item["security"] for item in methods(template("rest-none")).values())


def test_a_page_stands_at_the_root_when_it_is_asked_for() -> None:
    document = template("rest-page")
    at_root = {method: item for (path, method), item in methods(document).items() if path == "/"}
    assert set(at_root) == {"GET", "ANY-METHOD"}
    assert not any(item["security"] for item in at_root.values())
    assert document["Outputs"]["PageUrl"]["Value"]["Fn::Sub"].endswith("/dev/")
    assert "PageUrl" not in template("rest-key")["Outputs"]
    http = methods(template("http-jwt"))
    assert http["/", "GET"]["security"] == http["/openapi.json", "GET"]["security"] == []


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
    before = render.api_template(spec_of(APIS["rest-full"]))
    first = with_key_serial(before, "20261125150000")
    second = with_key_serial(first, "20261126150000")
    names = [
        of_type(each.evaluated(), "AWS::ApiGateway::ApiKey")[0]["Properties"]["Name"]
        for each in (before, first, second)
    ]
    assert names == ["demo-dev", "demo-dev.20261125150000", "demo-dev.20261126150000"]
    assert second.evaluated()["Outputs"][KEY_SERIAL]["Value"] == "20261126150000"
    assert KEY_SERIAL not in before.evaluated()["Outputs"]
    old, new = before.evaluated()["Resources"], second.evaluated()["Resources"]
    assert {name for name in old if old[name] != new[name]} == {"ApiKey"}


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
    (usual,) = of_type(template("rest-key"), "AWS::Lambda::Function")
    assert "ReservedConcurrentExecutions" not in usual["Properties"]
    assert usual["Properties"]["Handler"] == HANDLER


# Errors from the gateway itself


def answers(document: Json) -> dict[str, tuple[int | None, dict[str, str], dict[str, str]]]:
    """Gateway responses by type: status, error, headers."""
    found = {}
    for kind, response in body(document)["x-amazon-apigateway-gateway-responses"].items():
        error = json.loads(response["responseTemplates"]["application/json"])["error"]
        headers = {
            name.removeprefix("gatewayresponse.header."): value
            for name, value in response["responseParameters"].items()
        }
        status = int(response["statusCode"]) if "statusCode" in response else None
        found[kind] = (status, error, headers)
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
    found = body(template("rest-key"))
    validators = found["x-amazon-apigateway-request-validators"]
    post = found["paths"]["/classify"]["post"]
    assert validators[post["x-amazon-apigateway-request-validator"]]["validateRequestBody"] is True
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/AnyJson"}
    model = found["components"]["schemas"]["AnyJson"]
    values: tuple[Json, ...] = ({}, [], "text", 1.5, True, None, {"text": 1})
    for value in values:
        assert jsonschema.Draft4Validator(model).is_valid(value)


# Deployments


def deployment(toml: str) -> str:
    document = api_template(spec_of(toml))
    (name,) = [str(name) for name in document["Resources"] if name.startswith("Deployment")]
    (stage,) = of_type(document, "AWS::ApiGateway::Stage")
    assert stage["Properties"]["DeploymentId"] == {"Ref": name}
    made_of = document["Resources"][name]["Properties"]
    assert made_of == {"RestApiId": {"Ref": "Api"}}, "so that it is made when the API is imported"
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
    found = body(template("http-jwt"))
    assert found["paths"]["/classify"]["post"]["security"] == [{"token": []}]
    authorizer = found["components"]["securitySchemes"]["token"]["x-amazon-apigateway-authorizer"]
    assert authorizer == {
        "type": "jwt",
        "identitySource": "$request.header.Authorization",
        "jwtConfiguration": {"issuer": "https://id.example/pool", "audience": ["demo"]},
    }
    found = body(template("http-iam"))
    assert found["paths"]["/classify"]["post"]["security"] == [{"signature": []}]
    assert found["paths"]["/health"]["get"]["security"] == []


def test_an_http_api_throttles_and_answers_preflights() -> None:
    (stage,) = of_type(template("http-jwt"), "AWS::ApiGatewayV2::Stage")
    assert stage["Properties"]["DefaultRouteSettings"]["ThrottlingBurstLimit"] == 100
    (api,) = of_type(template("http-jwt"), "AWS::ApiGatewayV2::Api")
    properties = api["Properties"]["CorsConfiguration"]
    assert properties["AllowOrigins"] == ["*"]
    imported = body(template("http-jwt"))["x-amazon-apigateway-cors"]
    assert {key[0].lower() + key[1:]: value for key, value in properties.items()} == imported
    (closed,) = of_type(template("http-iam"), "AWS::ApiGatewayV2::Api")
    assert "CorsConfiguration" not in closed["Properties"]
    assert "x-amazon-apigateway-cors" not in body(template("http-iam"))


@pytest.mark.parametrize("name", GATEWAYS)
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


@pytest.mark.parametrize("name", GATEWAYS)
def test_alarms_measure_this_api(name: str) -> None:
    alarms = [
        alarm
        for alarm in of_type(template(name), "AWS::CloudWatch::Alarm")
        if alarm["Properties"]["Namespace"] == "AWS/ApiGateway"
    ]
    assert len(alarms) == 3
    for alarm in alarms:
        names = {item["Name"] for item in alarm["Properties"]["Dimensions"]}
        assert names == ({"ApiName", "Stage"} if name.startswith("rest") else {"ApiId", "Stage"})


@pytest.mark.parametrize("name", sorted({*GATEWAYS} - IN_FUNCTION))
def test_a_crash_and_a_throttle_of_the_lambda_are_alarms(name: str) -> None:
    alarms = of_type(template(name), "AWS::CloudWatch::Alarm")
    own = {
        item["Properties"]["MetricName"]: item["Properties"]
        for item in alarms
        if item["Properties"]["Namespace"] == "AWS/Lambda"
    }
    assert set(own) == {"Errors", "Throttles"}
    for alarm in own.values():
        assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": "demo-dev-api"}]


def test_a_server_error_of_the_gateway_keeps_its_status() -> None:
    """API Gateway counts a response with another status as 4XXError."""
    own = {
        name: status
        for name, (status, _, _) in answers(template("rest-key")).items()
        if name.startswith("INTEGRATION") or name == "DEFAULT_5XX"
    }
    assert own == dict.fromkeys(("INTEGRATION_TIMEOUT", "INTEGRATION_FAILURE", "DEFAULT_5XX"))


def test_detailed_metrics_which_cost_extra_are_off() -> None:
    (rest,) = of_type(template("rest-key"), "AWS::ApiGateway::Stage")
    assert rest["Properties"]["MethodSettings"][0]["MetricsEnabled"] is False
    (http,) = of_type(template("http-iam"), "AWS::ApiGatewayV2::Stage")
    assert http["Properties"]["DefaultRouteSettings"]["DetailedMetricsEnabled"] is False

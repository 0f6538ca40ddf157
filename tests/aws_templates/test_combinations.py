"""Conflicting settings are refused when they are read, with a hint."""

from __future__ import annotations

import json

import pytest

from fastai_deploy.aws.templates.render import api_template
from fastai_deploy.errors import SettingsError
from fastai_deploy.settings import load_settings
from fastai_deploy.settings.constraints import RULES, environment_bytes
from tests.aws_templates.scenarios import (
    CERTIFICATE,
    KMS_KEY,
    api_of,
    of_type,
    section,
    settings_of,
)

SERVERLESS = 'kind = "serverless"\n'
FUNCTION = 'kind = "lambda"\n'
URL = '[api]\ntype = "function-url"\n'
MANY_ORIGINS = [f"https://{number:02}.{'a' * 60}.example.com" for number in range(50)]


@pytest.mark.parametrize(
    ("name", "toml", "message", "hint"),
    [
        (
            "endpoint",
            f'{SERVERLESS}subnets = ["subnet-1"]\nsecurity_groups = ["sg-1"]\n',
            "cannot join a VPC",
            "real-time",
        ),
        ("endpoint", f"{SERVERLESS}data_capture = 5\n", "cannot capture", "data_capture = 0"),
        ("endpoint", f"{SERVERLESS}canary = true\ninstance_count = 2\n", "at once", "canary"),
        ("endpoint", f"{SERVERLESS}provisioned_concurrency = 11\n", "kept warm", "concurrency"),
        ("endpoint", f"{SERVERLESS}[api]\nmax_body = 5000000\n", "4 MB", "max_body"),
        ("endpoint", 'subnets = ["subnet-1"]\n', "both subnets and security", "both"),
        ("endpoint", 'security_groups = ["sg-1"]\n', "both subnets and security", "both"),
        (
            "endpoint",
            "instance_count = 3\nmax_instances = 2\n",
            "less than instance_count",
            "instance_count",
        ),
        ("endpoint", "scale_to_zero = true\n", "only an async endpoint", "async"),
        ("endpoint", "canary = true\n", "at least two instances", "2"),
        ("endpoint", "rolling = true\n", "at least two instances", "rolling = false"),
        (
            "endpoint",
            "rolling = true\ncanary = true\ninstance_count = 2\n",
            "instead of a canary",
            "canary = false",
        ),
        ("endpoint", f"{SERVERLESS}rolling = true\ninstance_count = 2\n", "no instances", "real"),
        ("endpoint", f'{FUNCTION}[model]\nruntime = "learner"\n', "do not fit into", "onnx"),
        ("endpoint", f"{FUNCTION}data_capture = 5\n", "cannot capture", "data_capture = 0"),
        ("endpoint", f"{FUNCTION}rolling = true\ninstance_count = 2\n", "no instances", "rolling"),
        (
            "endpoint",
            f'{FUNCTION}image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/a:1"\n',
            "in no image",
            "remove image",
        ),
        ("endpoint", f"{FUNCTION}max_instances = 2\n", "scales by itself", "concurrency"),
        (
            "endpoint",
            f"{FUNCTION}[endpoint.function]\nsnapstart = true\nprovisioned_concurrency = 1\n",
            "exclude each other",
            "one of the two",
        ),
        (
            "endpoint",
            f"{FUNCTION}[endpoint.function]\nsnapstart = true\nstorage = 1024\n",
            "512 MB of /tmp",
            "one of the two",
        ),
        (
            "endpoint",
            f"{FUNCTION}[endpoint.function]\nconcurrency = 1\nprovisioned_concurrency = 2\n",
            "kept warm",
            "at most concurrency",
        ),
        ("endpoint", f"{FUNCTION}[endpoint.function]\ntimeout = 20\n", "would end before", "more"),
        (
            "endpoint",
            f"{FUNCTION}canary = true\n[endpoint.function]\nprovisioned_concurrency = 2\n",
            "has one version",
            "canary = false",
        ),
        ("endpoint", f'instance_count = 1\n{URL}auth = "iam"\n', "URL of its own", "lambda"),
        ("endpoint", f"{FUNCTION}{URL}", "neither API keys", "iam"),
        (
            "endpoint",
            (
                f'{FUNCTION}{URL}auth = "iam"\ndomain = "a.example.com"\n'
                f'certificate = "{CERTIFICATE}"\n'
            ),
            "no domain of your own",
            "rest or http",
        ),
        ("project", "name = 'demo'\nttl = '4h'\nprotect = true\n", "protected", "ttl"),
        ("api", 'type = "http"\n', "no API keys", "iam"),
        ("api", 'auth = "jwt"\n', "no JWT", "http"),
        ("api", 'auth = "jwt"\ntype = "http"\njwt_issuer = "https://a"\n', "audience", "jwt_"),
        ("api", 'domain = "api.example.com"\n', "must be set together", "both"),
        ("api", 'auth = "iam"\npage = true\n', "browser", "page = false"),
        ("api", 'auth = "none"\nquota = 5\n', "counted per API key", "quota"),
        ("api", 'route = "/health"\n', "health check", "another route"),
        ("api", f"cors_origins = {MANY_ORIGINS}\n", "do not fit", "fewer or shorter"),
    ],
)
def test_an_impossible_combination(name: str, toml: str, message: str, hint: str) -> None:
    text = f"[project]\n{toml}" if name == "project" else section(name, toml)
    with pytest.raises(SettingsError, match=message) as caught:
        settings_of(text)
    assert "fdeploy.toml:" in caught.value.message, "says where it stands"
    assert hint in f"{caught.value.message} {caught.value.hint}", "several are told in one error"


def test_every_rule_is_tried_here() -> None:
    assert len(RULES) == 34


def test_the_largest_environment_of_a_lambda_is_counted() -> None:
    project = f"[project]\nname = '{'p' * 30}'\n[stages.{'s' * 16}]\n"
    toml = f"max_body = 6000000\ncors_origins = {MANY_ORIGINS[:40]}\nroute = '/{'r' * 127}'\n"
    settings = settings_of(f"{project}[api]\n{toml}[endpoint]\nkind='real-time'", stage="s" * 16)
    (function,) = of_type(api_template(api_of(settings)).evaluated(), "AWS::Lambda::Function")
    variables = function["Properties"]["Environment"]["Variables"]
    written = json.dumps({name: str(value) for name, value in variables.items()})
    longer = len("-serverless")  # the longest kind of endpoint
    counted = environment_bytes(settings.sections)
    assert len(written) + longer <= counted <= len(written) + longer + 60


@pytest.mark.parametrize(
    ("name", "toml", "message"),
    [
        ("project", "tags = {'aws:x' = 'y'}\n", "project.tags.aws:x"),
        ("project", "tags = {'fdeploy:stage' = 'y'}\n", "project.tags.fdeploy:stage"),
        ("project", "tags = {team = ''}\n", "project.tags.team"),
        ("project", "ttl = '4 hours'\n", "project.ttl"),
        ("project", "kms_key = 'alias/x'\n", "project.kms_key"),
        ("project", "bucket = 'Has_Capitals'\n", "project.bucket"),
        ("project", "log_retention = 31\n", "project.log_retention"),
        ("endpoint.serverless", "memory = 1000\n", "endpoint.serverless.memory"),
        ("endpoint", "image = 'docker.io/x:latest'\n", "endpoint.image"),
        ("endpoint", "subnets = ['net-1']\n", "endpoint.subnets"),
        ("api", 'cors_origins = ["https://a\'"]\n', "api.cors_origins"),
        ("api", "cors_origins = ['https://a/path']\n", "api.cors_origins"),
        ("api", "jwt_issuer = 'http://a'\n", "api.jwt_issuer"),
        ("api", "timeout = 29.1\n", "api.timeout"),
    ],
)
def test_a_value_that_aws_would_refuse(name: str, toml: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_of(f"[{name}]\n{toml}")


def test_tables_numbers_and_lists_come_from_variables_too(tmp_path: object) -> None:
    settings = load_settings(
        folder=tmp_path,  # type: ignore[arg-type]
        environ={
            "FDEPLOY_PROJECT_TAGS": "team=nlp,cost-centre=42",
            "FDEPLOY_PROJECT_LOG_RETENTION": "90",
            "FDEPLOY_PROJECT_KMS_KEY": KMS_KEY,
            "FDEPLOY_ENDPOINT_SUBNETS": "subnet-1,subnet-2",
            "FDEPLOY_ENDPOINT_SECURITY_GROUPS": "sg-1",
            "FDEPLOY_ENDPOINT_KIND": "async",
        },
    )
    assert settings.sections.project.tags == {"team": "nlp", "cost-centre": "42"}
    assert settings.sections.project.log_retention == 90
    assert settings.sections.endpoint.subnets == ("subnet-1", "subnet-2")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FDEPLOY_PROJECT_TAGS", "aws:x=y"), ("FDEPLOY_PROJECT_LOG_RETENTION", "31")],
)
def test_a_wrong_variable_is_named(tmp_path: object, variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load_settings(folder=tmp_path, environ={variable: value})  # type: ignore[arg-type]


def test_a_stage_may_be_another_kind_of_endpoint() -> None:
    toml = section(
        "endpoint",
        'instance = "ml.m5.large"\nmax_instances = 3\n'
        '[stages.small.endpoint]\nkind = "serverless"\n',
    )
    assert settings_of(toml, stage="small").sections.endpoint.kind == "serverless"

"""All valid settings give valid templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings, strategies
from hypothesis.strategies import DrawFn, SearchStrategy, booleans, integers, sampled_from

from fastai_deploy.aws.templates.render import api_template, endpoint_template
from fastai_deploy.errors import SettingsError
from fastai_deploy.settings import Settings, load_settings
from tests.aws_templates.linting import findings
from tests.aws_templates.scenarios import KMS_KEY, TOPIC, api_of, endpoint_of

Choices = dict[str, SearchStrategy[Any]]
MAX_BODY = 51_200  # bytes of a template that is sent as it is

PROJECT: Choices = {
    "region": sampled_from(["eu-central-1"]),
    "name": sampled_from(["a", "demo", "p" * 30]),
    "kms_key": sampled_from([None, KMS_KEY]),
    "alarm_topic": sampled_from([None, TOPIC]),
    "log_retention": sampled_from([1, 30, 545]),
    "dashboard": booleans(),
    "tags": sampled_from([{}, {"team": "nlp"}, {f"{n:02}": "x" * 256 for n in range(46)}]),
}
ENDPOINT: Choices = {
    "startup_timeout": sampled_from([1.0, 60.5, 3_600.0]),
    "download_timeout": sampled_from([60, 3_600]),
    "network_isolation": booleans(),
    "bake": sampled_from([0, 180, 3_600]),
    "alarm_errors": sampled_from([0.001, 1.0]),
    "alarm_latency": sampled_from([1, 60_000]),
    "alarm_idle": sampled_from([0, 1, 168]),
}
INSTANCES: Choices = {
    "kind": sampled_from(["real-time", "async"]),
    "instance": sampled_from(
        [None, "ml.m5.large", "ml.c7g.large", "ml.g5.xlarge", "ml.p2.xlarge", "ml.c5d.large"]
    ),
    "server": sampled_from(["auto", "torchserve"]),
    "instance_count": integers(2, 3),
    "max_instances": sampled_from([None, 3, 9]),
    "scaling_target": sampled_from([None, 0.5, 7_000.0]),
    "subnets": sampled_from([("subnet-0a1b2c3d",), ("subnet-0a1b2c3d", "subnet-4e5f6a7b")]),
    "security_groups": sampled_from([("sg-0123abcd",)]),
    "data_capture": sampled_from([0, 100]),
    "canary": booleans(),
}
SERVERLESS: Choices = {
    "kind": sampled_from(["serverless"]),
    "serverless_memory": sampled_from([1024, 6144]),
    "serverless_concurrency": sampled_from([2, 200]),
    "provisioned_concurrency": sampled_from([None, 1, 2]),
}
API: Choices = {
    "route": sampled_from(["/classify", "/v1/a_b/c-d", "/" + "r" * 127]),
    "rate": sampled_from([0.1, 10_000.0]),
    "burst": sampled_from([1, 5_000]),
    "timeout": sampled_from([0.1, 12.5, 29.0]),
    "cors_origins": sampled_from(
        [(), ("*",), ("https://a.example",), tuple(f"https://a{n}.example" for n in range(50))]
    ),
    "memory": sampled_from([128, 10_240]),
    "concurrency": sampled_from([None, 1]),
    "access_logs": booleans(),
}
REST: Choices = {
    "auth": sampled_from(["key", "iam", "none"]),
}
HTTP: Choices = {
    "type": sampled_from(["http"]),
    "auth": sampled_from(["iam", "jwt", "none"]),
    "jwt_issuer": sampled_from(["https://id.example/pool"]),
    "jwt_audience": sampled_from([("a", "b")]),
}


@strategies.composite
def some_settings(draw: DrawFn) -> Settings:
    """Settings with a given kind of endpoint and of API, otherwise random."""
    sections = {
        "project": PROJECT,
        "endpoint": ENDPOINT | draw(sampled_from([INSTANCES, INSTANCES, SERVERLESS])),
        "api": API | draw(sampled_from([REST, REST, HTTP])),
    }
    flags = {
        (section, key): ("--flag", draw(choice))
        for section, choices in sections.items()
        for key, choice in choices.items()
    }
    try:
        return load_settings(folder=Path(), environ={}, flags=flags)
    except SettingsError:
        assume(condition=False)
        raise


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_settings())
def test_the_endpoint_of_any_valid_settings(found: Settings) -> None:
    template = endpoint_template(endpoint_of(found))
    assert findings(template.evaluated()) == []
    assert len(template.text.encode()) < MAX_BODY
    assert template == endpoint_template(endpoint_of(found))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_settings())
def test_the_api_of_any_valid_settings(found: Settings) -> None:
    assume(found.sections.endpoint.kind != "async")
    template = api_template(api_of(found))
    assert findings(template.evaluated()) == []
    assert template == api_template(api_of(found))

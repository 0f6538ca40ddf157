"""From settings to the specifications of the stacks."""

from __future__ import annotations

from typing import Any

import pytest

from fastai_deploy.aws.capacity import Instance
from fastai_deploy.aws.images import choose_image
from fastai_deploy.aws.pricing import instance_price
from fastai_deploy.aws.specs import ApiSpec, Instances, Location, Serverless
from fastai_deploy.aws.templates.api_body import api_body
from fastai_deploy.aws.templates.render import api_template, endpoint_template
from fastai_deploy.aws.wanted import check_region, endpoint_spec, region_warnings, wanted_instance
from fastai_deploy.errors import SettingsError
from fastai_deploy.records import StoredArtifact
from fastai_deploy.runtime.gateway.endpoint import GatewaySettings, TimeBudget
from fastai_deploy.runtime.telemetry import SWITCHES
from fastai_deploy.targets.aws.stacks import chosen_image
from tests.aws_templates.scenarios import (
    BUCKET,
    CODE_SHA256,
    KMS_KEY,
    KNOWN,
    SHA256,
    TABLES,
    api_of,
    endpoint_of,
    of_type,
    section,
    settings_of,
)


def endpoint(toml: str, **options: str) -> Any:
    return endpoint_of(settings_of(section("endpoint", toml)), **options)


def environment(toml: str, **options: str) -> Any:
    template = endpoint_template(endpoint(toml, **options))
    (model,) = of_type(template.evaluated(), "AWS::SageMaker::Model")
    return model["Properties"]["PrimaryContainer"]["Environment"]


def told_to(spec: ApiSpec) -> dict[str, str]:
    """The environment of the Lambda, whose values are texts."""
    (function,) = of_type(api_template(spec).evaluated(), "AWS::Lambda::Function")
    variables = function["Properties"]["Environment"]["Variables"]
    return {name: str(value) for name, value in variables.items()}


def api(toml: str, **options: Any) -> Any:
    return api_of(settings_of(section("api", toml)), **options)


def test_what_aws_gets_when_only_a_region_is_named() -> None:
    spec = endpoint_of(settings_of("[project]\nname = 'demo'\nregion = 'eu-central-1'\n"))
    assert spec.capacity == Instances("ml.m5.large", 1, 300, 600, encrypts_volume=False)
    assert (spec.name, spec.kind, spec.version) == ("demo-dev", "real-time", SHA256[:12])
    assert spec.model.isolated
    assert (spec.scaling, spec.capture, spec.output, spec.model.vpc) == (None, None, None, None)
    assert spec.warnings == ()


def test_the_container_is_told_its_version_and_its_time() -> None:
    ray = environment("")
    version = {"FDEPLOY_VERSION": SHA256[:12], "RAYSERVE_BACKEND_TIMEOUT": "60"}
    own_server = {
        "RAYSERVE_BACKEND_URL": "http://127.0.0.1:8001",
        "RAY_worker_niceness": "0",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
    }
    assert ray == {**version, **SWITCHES, **own_server}
    assert environment("", backend_url="") == {**version, **SWITCHES}
    torchserve = environment('server = "torchserve"\n')
    assert "RAYSERVE_BACKEND_URL" not in torchserve
    assert torchserve["SAGEMAKER_PROGRAM"] == "inference.py"
    assert torchserve["SAGEMAKER_MODEL_SERVER_WORKERS"] == "1"
    assert torchserve["JAVA_TOOL_OPTIONS"] == "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    hour = environment('kind = "async"\n')
    assert hour["RAYSERVE_BACKEND_TIMEOUT"] == hour["FDEPLOY_TIMEOUT"] == "3600"


def test_serverless_is_not_isolated_and_says_what_it_does_not_use() -> None:
    spec = endpoint('kind = "serverless"\ninstance = "ml.c5.large"\nmax_instances = 3\n')
    assert spec.capacity == Serverless(3072, 10, None)
    assert not spec.model.isolated
    assert spec.scaling is None
    assert "ml.c5.large" in " ".join(spec.warnings)
    assert "max_instances" in " ".join(spec.warnings)
    assert "cpu" in spec.model.image


def test_each_kind_of_endpoint_has_a_name_of_its_own() -> None:
    names = {endpoint(f'kind = "{kind}"\n').name for kind in ("real-time", "serverless", "async")}
    assert names == {"demo-dev", "demo-dev-serverless", "demo-dev-async"}


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        ('kind = "serverless"\ninstance = "ml.g5.xlarge"\n', "has no gpu", "real-time"),
        ('instance = "ml.t2.medium"\nmax_instances = 2\n', "burstable", "max_instances"),
        ('instance = "ml.m5.larg"\n', "no instance type", "ml.m5.large"),
    ],
)
def test_what_no_endpoint_can_be_is_refused(toml: str, message: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        wanted_instance(settings_of(section("endpoint", toml)), KNOWN)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("toml", "scaling"),
    [
        ("", None),
        ("instance_count = 2\nmax_instances = 2\n", None),
        ("max_instances = 4\n", (1, 4, 1_000.0)),
        ("max_instances = 4\nscaling_target = 300\n", (1, 4, 300.0)),
        ('kind = "async"\nscale_to_zero = true\n', (0, 1, 5.0)),
        ('kind = "async"\nscale_to_zero = true\nmax_instances = 3\n', (0, 3, 5.0)),
    ],
)
def test_autoscaling(toml: str, scaling: tuple[int, int, float] | None) -> None:
    found = endpoint(toml).scaling
    assert (found and (found.minimum, found.maximum, found.target)) == scaling


@pytest.mark.parametrize(
    ("name", "encrypts"),
    [
        ("ml.m5.large", True),
        ("ml.p2.xlarge", True),
        ("ml.m5d.large", False),
        ("ml.g5.xlarge", False),
    ],
)
def test_only_a_volume_takes_the_users_key(name: str, encrypts: bool) -> None:  # noqa: FBT001
    toml = section("endpoint", f'instance = "{name}"\n').replace(
        "[project]\n", f"[project]\nkms_key = '{KMS_KEY}'\n"
    )
    assert endpoint_of(settings_of(toml)).capacity.encrypts_volume is encrypts  # type: ignore[union-attr]


def test_an_endpoint_starts_within_what_sagemaker_allows() -> None:
    assert endpoint("startup_timeout = 5\n").capacity.startup_timeout == 60
    assert endpoint("startup_timeout = 90.2\n").capacity.startup_timeout == 91


def test_an_artifact_that_is_not_in_s3_is_refused() -> None:
    settings = settings_of(section("endpoint", ""))
    on = Instance("ml.m5.large")
    image = choose_image(TABLES, on, region="eu-central-1")
    for uri in ("/home/model.tar.gz", "s3://bucket", "https://x/y"):
        with pytest.raises(SettingsError, match="not in S3"):
            endpoint_spec(settings, StoredArtifact("aws", uri, SHA256, 1, SHA256), image, on)


@pytest.mark.parametrize("seconds", [0.2, 1.0, 12.5, 28.3, 29.0])
def test_the_time_out_chain_client_lambda_gateway_sagemaker(seconds: float) -> None:
    spec = api(f"timeout = {seconds}\n")
    told = GatewaySettings.from_environment(told_to(spec))
    budget = TimeBudget.of(told.timeout_ms)
    client = budget.retry_until + budget.connect + budget.read
    paths = api_body(spec)["paths"].values()
    (gateway,) = {
        operation["x-amazon-apigateway-integration"]["timeoutInMillis"]
        for item in paths
        for operation in item.values()
    }
    sagemaker = int(environment("")["RAYSERVE_BACKEND_TIMEOUT"])
    assert client <= seconds <= spec.function.timeout <= gateway / 1_000 <= sagemaker


def test_the_lambda_understands_what_it_is_told() -> None:
    spec = api(
        'route = "/v1/ask"\nmax_body = 5000\ncors_origins = ["https://a", "https://b:8080"]\n'
        "timeout = 7\n"
    )
    assert GatewaySettings.from_environment(told_to(spec)) == GatewaySettings(
        endpoint="demo-dev",
        route="/v1/ask",
        max_body=5_000,
        cors_origins=("https://a", "https://b:8080"),
        timeout_ms=7_000,
    )
    assert spec.function.code == Location(BUCKET, f"fdeploy/demo/lambda/{CODE_SHA256}.zip")


def test_the_api_asks_the_endpoint_of_its_kind() -> None:
    spec = api_of(settings_of(section("endpoint", 'kind = "serverless"\n')))
    assert spec.endpoint == told_to(spec)["FDEPLOY_ENDPOINT"]
    assert spec.endpoint == "demo-dev-serverless"
    with pytest.raises(SettingsError, match="asynchronous"):
        api_of(settings_of(section("endpoint", 'kind = "async"\n')))


def test_a_rest_api_logs_where_the_account_lets_it() -> None:
    assert api("").access_logs
    without = api("", gateway_logs=False)
    assert not without.access_logs
    assert "CloudWatch log role" in without.warnings[0]
    assert api('type = "http"\nauth = "iam"\n', gateway_logs=False).access_logs
    assert api("access_logs = false\n", gateway_logs=False).warnings == ()


def test_an_open_api_is_warned_about() -> None:
    (warning,) = api('auth = "none"\n').warnings
    assert "open to everybody" in warning
    assert "every web page" in api('cors_origins = ["*"]\n').warnings[0]


def test_a_serverless_endpoint_is_refused_where_aws_has_none() -> None:
    settings = settings_of(section("endpoint", 'kind = "serverless"\n'))
    check_region(settings, "eu-central-1")
    for region in ("cn-north-1", "us-gov-west-1"):
        with pytest.raises(SettingsError, match=region) as refused:
            check_region(settings, region)
        assert "eu-central-1" in refused.value.hint
        check_region(settings_of(section("endpoint", "")), region)


def test_a_region_that_may_have_no_serverless_endpoints_is_warned_about() -> None:
    settings = settings_of(section("endpoint", 'kind = "serverless"\n'))
    assert region_warnings(settings, "eu-central-1") == ()
    (warning,) = region_warnings(settings, "ap-southeast-7")
    assert "ap-southeast-7" in warning
    assert region_warnings(settings_of(section("endpoint", "")), "ap-southeast-7") == ()


def test_a_serverless_endpoint_has_an_image_that_starts_there() -> None:
    serverless = 'kind = "serverless"\n'
    _, image = chosen_image(settings_of(section("endpoint", serverless)), "eu-central-1", None)
    assert image.family == "torchserve"
    assert "29 s of API Gateway" in " ".join(endpoint(serverless).warnings)
    warm = f"{serverless}provisioned_concurrency = 1\nserver = 'ray-serve'\n"
    warnings = " ".join(endpoint(warm).warnings)
    assert "29 s" not in warnings
    assert "shared memory" in warnings


def test_govcloud_has_no_price_list() -> None:
    def none(**_parameters: Any) -> Any:
        raise AssertionError("was asked")

    price = instance_price(none, "ml.m5.large", "us-gov-west-1")
    assert (price.per_hour, price.reason) == (None, "GovCloud has no price list API")

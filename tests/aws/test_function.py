"""The model in a Lambda function, against the double: the real template, zip and handler."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.cli import reports
from fastai_deploy.errors import AwsQuota, DeployError, InvocationError, ParityError
from fastai_deploy.naming import code_key
from fastai_deploy.packaging.wheels import FUNCTION
from fastai_deploy.records import FunctionCode
from fastai_deploy.targets.aws.operations import AwsOperations
from tests.aws.fault_table import calls_of_up, disturbed
from tests.aws.functions import NAME, aliased, bring, deploy, up, versions
from tests.aws.permission_table import Deployer
from tests.aws.table_page import IN_FUNCTION
from tests.aws.world import World
from tests.aws_double.process import Double
from tests.packaged import Model, write_model
from tests.runtime.bundles import GOLDEN_TEXTS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("models"), "first", container=FUNCTION)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder, "second", container=FUNCTION, layers=3)


@pytest.fixture
def world(world: World) -> World:
    world.flags["endpoint", "kind"] = "lambda"
    return world


def test_a_model_becomes_a_function_with_an_api_and_nothing_again(
    world: World, model: Model
) -> None:
    endpoint, api = up(world, model)
    assert (endpoint.name, endpoint.version) == (NAME, model.artifact.version)
    answer = world.target().invoke(endpoint, {"texts": ["a great film", "no"]})
    assert [each["model"]["version"] for each in answer] == [endpoint.version] * 2
    assert world.target().call_api(api, {"text": "a great film"}) == answer[0]

    functions = world.client("lambda").list_functions()["Functions"]
    assert [each["FunctionName"] for each in functions] == [NAME], "there is no second function"
    (function,) = functions
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["x86_64"])
    assert function["MemorySize"] == 1_769
    assert aliased(world)["FunctionVersion"] == "1"
    assert world.client("sagemaker").list_endpoints()["Endpoints"] == []
    role = world.client("iam").list_roles()["Roles"][0]["RoleName"]
    (name,) = world.client("iam").list_role_policies(RoleName=role)["PolicyNames"]
    policy = world.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    assert [each["Sid"] for each in policy["Statement"]] == ["Logs"], "the model is in the package"

    proof = world.target().teardown(artifacts=True)
    assert proof.left == ()
    assert {f"function {NAME}", "stack demo-dev-function", "stack demo-dev-api"} <= set(proof.found)
    assert world.everything() == []
    assert not Path(api.key_file).exists()


def test_an_unchanged_deploy_changes_nothing(world: World, model: Model) -> None:
    first = up(world, model)
    assert up(world, model) == first
    assert versions(world) == ["1"]
    assert "demo-dev-function is up to date" in world.said
    assert "demo-dev-api is up to date" in world.said


def test_the_alias_moves_when_the_new_version_has_answered(
    world: World, model: Model, other_model: Model
) -> None:
    deploy(world, model)
    asked: list[str] = []

    def verify(invoke: Any) -> None:
        asked.append(aliased(world)["FunctionVersion"])
        other_model.verify(invoke)

    bring(world, other_model)
    target = world.target()
    endpoint = target.deploy(target.upload(other_model.artifact), verify)
    assert asked == ["1"], "nobody but the goldens asked the new version"
    assert aliased(world)["FunctionVersion"] == "2"
    answer = world.target().invoke(endpoint, {"text": "no"})
    assert answer["model"]["version"] == other_model.artifact.version
    assert versions(world) == ["1", "2"], "the version before stays for a rollback"


def test_a_version_that_fails_is_taken_back_and_the_alias_stays(
    world: World, model: Model, other_model: Model
) -> None:
    def differs(invoke: Any) -> None:
        other_model.verify(invoke)
        raise ParityError("the answers differ", hint="none")

    endpoint = deploy(world, model)
    bring(world, other_model)
    target = world.target()
    with pytest.raises(ParityError, match="the answers differ"):
        target.deploy(target.upload(other_model.artifact), differs)
    assert aliased(world)["FunctionVersion"] == "1"
    assert versions(world) == ["1"]
    model.verify(lambda request: world.target().invoke(endpoint, request))
    assert AwsOperations(world.target()).live_version() == model.artifact.version


def test_an_alias_that_was_moved_or_deleted_by_hand_is_no_success(
    world: World, model: Model, other_model: Model
) -> None:
    deploy(world, model)
    deploy(world, other_model)
    lambda_ = world.client("lambda")
    lambda_.update_alias(FunctionName=NAME, Name="live", FunctionVersion="1")
    with pytest.raises(DeployError, match="serves version 1 instead of 2"):
        deploy(world, other_model)
    lambda_.delete_alias(FunctionName=NAME, Name="live")
    with pytest.raises(DeployError, match="its alias live is gone") as gone:
        deploy(world, other_model)
    assert "fdeploy teardown" in gone.value.hint
    checks = AwsOperations(world.target()).doctor(model.artifact).checks
    (stack,) = [check for check in checks if check.name == "stack demo-dev-function"]
    assert (stack.outcome, f"alias {NAME}:live" in stack.message) == ("failed", True)
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


def test_rollback_moves_the_alias_back_without_a_new_version(
    world: World, model: Model, other_model: Model
) -> None:
    deploy(world, model)
    deploy(world, other_model)
    operations = AwsOperations(world.target())
    assert [(each.version, each.live) for each in operations.versions()] == [
        (other_model.artifact.version, True),
        (model.artifact.version, False),
    ]
    endpoint = operations.rollback(None)
    assert endpoint.version == model.artifact.version
    assert aliased(world)["FunctionVersion"] == "1"
    assert versions(world) == ["1", "2"]
    model.verify(lambda request: world.target().invoke(endpoint, request))
    assert AwsOperations(world.target()).live_version() == model.artifact.version


def test_a_rollback_downloads_what_this_machine_no_longer_has(
    world: World, model: Model, other_model: Model
) -> None:
    deploy(world, model)
    deploy(world, other_model)
    packages = [
        item["Key"]
        for item in world.client("s3").list_objects_v2(Bucket=bucket_of(world))["Contents"]
        if "/lambda/" in item["Key"]
    ]
    for key in packages:
        world.client("s3").delete_object(Bucket=bucket_of(world), Key=key)
    (world.root / "model.tar.gz").unlink()
    endpoint = AwsOperations(world.target()).rollback(None)
    model.verify(lambda request: world.target().invoke(endpoint, request))
    assert versions(world) == ["1", "2"], "the same artifact is the same version"


def bucket_of(world: World) -> str:
    (bucket,) = world.client("s3").list_buckets()["Buckets"]
    return str(bucket["Name"])


def test_versions_that_nobody_needs_are_deleted(
    world: World, model: Model, other_model: Model
) -> None:
    deploy(world, model)
    deploy(world, other_model)
    world.flags["endpoint.function", "memory"] = 2_000
    deploy(world, other_model)
    assert versions(world) == ["2", "3"]


def test_what_is_wrong_with_a_request_is_said_in_the_models_words(
    world: World, model: Model
) -> None:
    endpoint, api = up(world, model)
    with pytest.raises(InvocationError, match="422 invalid_request") as direct:
        world.target().invoke(endpoint, {"txt": "a"})
    assert "text" in direct.value.hint
    with pytest.raises(InvocationError, match="422 invalid_request"):
        world.target().call_api(api, {"txt": "a"})


def test_changed_settings_of_the_api_reach_the_function(world: World, model: Model) -> None:
    endpoint, api = up(world, model)
    world.flags["api", "route"] = "/judge"
    moved = world.target().create_api(endpoint, model.verify)
    assert moved.url == api.url.replace("/classify", "/judge")
    assert world.target().call_api(moved, {"text": "no"})["label"]


def test_a_stage_changes_its_kind_and_back_behind_the_same_api(
    world: World, model: Model, tmp_path: Path
) -> None:
    for_sagemaker = write_model(tmp_path, "first")
    del world.flags["endpoint", "kind"]
    bring(world, for_sagemaker)
    target = world.target()
    before = target.create_api(
        target.deploy(target.upload(for_sagemaker.artifact), for_sagemaker.verify),
        for_sagemaker.verify,
    )
    key = Path(before.key_file).read_text()

    world.flags["endpoint", "kind"] = "lambda"
    endpoint = deploy(world, model)
    assert "stays and costs until then" in world.said
    sagemaker = world.client("sagemaker")
    assert len(sagemaker.list_endpoints()["Endpoints"]) == 1, "the API still asks it"
    assert world.target().call_api(before, {"text": "no"})
    after = world.target().create_api(endpoint, model.verify)
    assert (after.url, Path(after.key_file).read_text()) == (before.url, key)
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert [f["FunctionName"] for f in world.client("lambda").list_functions()["Functions"]] == [
        NAME
    ]

    del world.flags["endpoint", "kind"]
    bring(world, for_sagemaker)
    target = world.target()
    back = target.create_api(
        target.deploy(target.upload(for_sagemaker.artifact), for_sagemaker.verify),
        for_sagemaker.verify,
    )
    assert (back.url, Path(back.key_file).read_text()) == (before.url, key)
    functions = [f["FunctionName"] for f in world.client("lambda").list_functions()["Functions"]]
    assert functions == ["demo-dev-api"]
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


def test_another_kind_without_an_api_goes_at_once(
    world: World, model: Model, tmp_path: Path
) -> None:
    deploy(world, model)
    del world.flags["endpoint", "kind"]
    for_sagemaker = write_model(tmp_path, "first")
    bring(world, for_sagemaker)
    target = world.target()
    target.deploy(target.upload(for_sagemaker.artifact), for_sagemaker.verify)
    assert world.client("lambda").list_functions()["Functions"] == []


def test_status_plan_doctor_logs_and_templates_know_the_function(
    world: World, model: Model, other_model: Model
) -> None:
    bring(world, model)
    before = AwsOperations(world.target()).plan(model.artifact)
    added = {change.type for change in before.changes if change.action == "add"}
    assert {"Lambda::Function", "Lambda::Version", "Lambda::Alias", "ApiGateway::RestApi"} <= added
    assert str(before.cost).startswith("billed by usage, nothing when idle: about")
    assert "with 1,769 MB, which is less than an instance below" in before.cost.note

    up(world, model)
    operations = AwsOperations(world.target())
    assert not operations.plan(model.artifact).changed
    status = operations.status()
    assert (status.endpoint, status.endpoint_status) == (NAME, "Active")
    assert status.version == model.artifact.version
    shown = list(reports.status(status))
    assert f"endpoint    {NAME}, Active" in shown
    assert "price       a function of 1,769 MB, billed by usage" in shown
    checks = {check.name: check for check in operations.doctor(model.artifact).checks}
    assert "functions at once here" in checks["concurrency"].message
    assert checks["artifact"].outcome != "failed"
    assert "a function of 1,769 MB" in checks["memory"].message
    assert "a text of 20 words takes about" in checks["speed"].message
    assert "USD per million" in checks["speed"].message
    assert checks["runtime"].message == "Lambda has Python 3.13 in eu-central-1"
    lines = [
        line.message for line in operations.logs(api=True, since=timedelta(hours=1), follow=False)
    ]
    assert any('"event": "ready"' in line for line in lines)
    stacks = operations.template(model.artifact).stacks
    assert list(stacks) == ["demo-dev-function", "demo-dev-api"]
    bring(world, other_model)
    changed = AwsOperations(world.target()).plan(other_model.artifact)
    assert "Lambda::Version" in {change.type for change in changed.changes}


def test_more_than_the_account_can_reserve_is_refused_before_anything_is_made(
    world: World, model: Model
) -> None:
    world.flags["endpoint.function", "concurrency"] = 950
    with pytest.raises(AwsQuota, match="the settings reserve 950"):
        deploy(world, model)
    assert world.client("lambda").list_functions()["Functions"] == []


def test_a_canary_gets_a_share_and_then_all(world: World, model: Model, other_model: Model) -> None:
    world.flags["endpoint", "canary"] = True
    world.flags["endpoint", "bake"] = 0
    deploy(world, model)
    deploy(world, other_model)
    assert f"sending 10% of the requests to {other_model.artifact.version} for 0 s" in world.said
    assert aliased(world)["FunctionVersion"] == "2"
    assert not aliased(world).get("RoutingConfig", {}).get("AdditionalVersionWeights")


def test_an_alarm_ends_a_canary(world: World, model: Model, other_model: Model) -> None:
    world.flags["endpoint", "canary"] = True
    endpoint = deploy(world, model)
    bring(world, other_model)

    def verify(invoke: Any) -> None:
        other_model.verify(invoke)
        world.client("cloudwatch").set_alarm_state(
            AlarmName="demo-dev-function-errors", StateValue="ALARM", StateReason="a test"
        )

    target = world.target()
    with pytest.raises(DeployError, match="demo-dev-function-errors"):
        target.deploy(target.upload(other_model.artifact), verify)
    assert aliased(world)["FunctionVersion"] == "1"
    assert not aliased(world).get("RoutingConfig", {}).get("AdditionalVersionWeights")
    model.verify(lambda request: world.target().invoke(endpoint, request))


def test_a_model_that_does_not_load_is_no_deploy(world: World, model: Model) -> None:
    world.flags["endpoint.function", "memory"] = 128
    deploy(world, model)  # a tiny model fits
    stored = world.target().upload(model.artifact)
    broken = replace(stored, function=FunctionCode(empty_package(world, stored.uri), reads=False))
    with pytest.raises((DeployError, InvocationError)):
        world.target().deploy(broken, model.verify)
    assert aliased(world)["FunctionVersion"] == "1"


def empty_package(world: World, uri: str) -> str:
    """A package without a model, in the bucket; its SHA-256."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("fdeploy_runtime/__init__.py", "")
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    bucket = uri.removeprefix("s3://").partition("/")[0]
    key = code_key("demo", digest)
    world.client("s3").put_object(Bucket=bucket, Key=key, Body=packed.getvalue())
    return digest


def test_a_stage_with_a_function_deletes_itself(world: World, model: Model) -> None:
    world.flags["project", "ttl"] = "4h"
    up(world, model)
    schedules = world.client("scheduler").list_schedules()["Schedules"]
    assert len(schedules) == 2
    later = datetime.now(timezone.utc) + timedelta(hours=5)
    deleted = world.double.run_schedules(world.account, later)
    assert deleted == ["demo-dev-api", "demo-dev-function"]


@pytest.mark.parametrize("auth", ["iam", "none"])
def test_a_function_has_a_url_of_its_own(world: World, model: Model, auth: str) -> None:
    world.flags["api", "type"] = "function-url"
    world.flags["api", "auth"] = auth
    _, api = up(world, model)
    assert ".lambda-url." in api.url
    assert api.url.endswith("/classify")
    answer = world.target().call_api(api, {"text": GOLDEN_TEXTS[0]})
    assert answer["model"]["version"] == model.artifact.version
    assert world.client("apigateway").get_rest_apis()["items"] == []
    assert ("open to everybody" in world.said) is (auth == "none")
    assert "no rate limit" in world.said
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


def test_the_printed_policies_are_enough(world: World, model: Model, other_model: Model) -> None:
    Deployer(world, model)
    up(world, model)
    deploy(world, other_model)
    AwsOperations(world.target()).status()
    AwsOperations(world.target()).rollback(None)
    assert world.target().teardown(artifacts=True).left == ()
    asked = world.double.actions(world.account)
    assert {"lambda:PublishVersion", "lambda:InvokeFunction", "lambda:UpdateAlias"} <= set(asked)
    assert "sagemaker:CreateEndpoint" not in asked


def test_a_large_body_and_a_crash_are_answers(world: World, model: Model) -> None:
    endpoint, api = up(world, model)
    with pytest.raises(InvocationError, match="too_large"):
        world.target().call_api(api, {"text": "a" * 6_000_000})
    world.client("lambda").update_function_configuration(
        FunctionName=NAME, Handler="fdeploy_runtime.nothing.handler"
    )
    model.verify(lambda request: world.target().invoke(endpoint, request))
    assert aliased(world)["FunctionVersion"] == "1", "a version is not the function that is edited"


@pytest.fixture(scope="module")
def calls(double: Double, model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return calls_of_up(double, model, tmp_path_factory.mktemp("calls"), IN_FUNCTION)


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("lost", "cloudformation ExecuteChangeSet"),
        ("lost", "s3 PUT object"),
        ("reset", "/invocations"),
        ("throttle", "/invocations"),
        ("deny", "/invocations"),
        ("server error", "cloudformation CreateChangeSet"),
    ],
)
def test_a_call_that_failed_is_made_up_for_by_the_next_run(
    *, double: Double, model: Model, calls: list[str], tmp_path: Path, kind: str, operation: str
) -> None:
    number = next(at for at, call in enumerate(calls, start=1) if operation in call)
    row = disturbed(double, model, tmp_path, kind, number, flags=IN_FUNCTION)
    assert row is not None
    assert row.good, row


@pytest.fixture(scope="module")
def calls_of_update(
    double: Double, model: Model, other_model: Model, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    folder = tmp_path_factory.mktemp("calls")
    return calls_of_up(double, model, folder, IN_FUNCTION, earlier=other_model)


@pytest.mark.parametrize(
    ("kind", "operation", "which"),
    [
        ("lost", "cloudformation ExecuteChangeSet", 0),  # publishes the version
        ("reset", "/invocations", 0),  # asks it
        ("lost", "cloudformation ExecuteChangeSet", 1),  # moves the alias
        ("server error", "cloudformation CreateChangeSet", 1),
    ],
)
def test_a_failed_update_of_a_function_that_serves_leaves_it_answering(
    *,
    double: Double,
    model: Model,
    other_model: Model,
    calls_of_update: list[str],
    tmp_path: Path,
    kind: str,
    operation: str,
    which: int,
) -> None:
    """As the old version or as the new one; the next run completes it."""
    found = [at for at, call in enumerate(calls_of_update, start=1) if operation in call]
    number = found[which]
    row = disturbed(double, model, tmp_path, kind, number, flags=IN_FUNCTION, earlier=other_model)
    assert row is not None
    assert row.good, row

"""The printed policies, enforced: they are enough, and what is missing is named and made up for.

`make permission-table` takes every action away in turn; here are a few.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastai_deploy.errors import AwsError, AwsMissing, SettingsError
from fastai_deploy.targets.aws.operations import AwsOperations
from tests.aws.permission_table import Deployer, asked, lacking
from tests.aws.stage import Open, Stage
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import REGION, Double
from tests.packaged import Model

PROJECT = "project"


def test_the_printed_policies_are_enough(double: Double, model: Model, tmp_path: Path) -> None:
    """Also for autoscaling and an end; what CloudFormation does is only allowed through it."""
    actions = asked(double, model, tmp_path)
    for action in (
        "cloudformation:ExecuteChangeSet",  # of fdeploy itself
        "sagemaker:CreateEndpoint",  # of a handler
        "cloudwatch:PutMetricAlarm",  # also of target tracking
        "scheduler:CreateSchedule",
    ):
        assert action in actions


def test_the_printed_policies_are_enough_to_adopt_a_log_group(world: World, model: Model) -> None:
    logs = world.client("logs")
    logs.create_log_group(logGroupName="/aws/sagemaker/Endpoints/demo-dev")
    deployer = Deployer(world, model)
    outcome = deployer.up()
    assert not outcome.failed, outcome
    assert "adopting the log group /aws/sagemaker/Endpoints/demo-dev" in world.said
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/aws/sagemaker/")["logGroups"]
    assert group["retentionInDays"] == 30
    assert not deployer.teardown().failed


def test_without_cloudformation_in_between_nothing_can_be_made(world: World, model: Model) -> None:
    Deployer(world, model)
    with pytest.raises(AwsError) as refused:
        world.aws().call(
            "sagemaker",
            "create_model",
            ModelName="demo-dev-mine",
            ExecutionRoleArn="arn:aws:iam::123456789012:role/x",
        )
    assert "sagemaker:CreateModel" in refused.value.hint


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("s3:PutObject", "AwsDenied"),
        ("iam:PassRole", "StackFailed"),
        ("apigateway:DELETE", "succeeded"),
    ],
)
def test_one_action_is_missing(
    double: Double, model: Model, tmp_path: Path, action: str, error: str
) -> None:
    row = lacking(double, model, tmp_path, action)
    assert row.good, row
    assert row.up.ended == error
    if row.up.failed:
        assert row.names(row.up)
        assert f"ask an administrator to allow {action}" in row.up.said
    if row.teardown.failed:
        assert row.names(row.teardown)


@pytest.fixture
def limited(opened: Open, model: Model) -> tuple[Stage, Deployer]:
    """A project for the real command, whose caller has the printed policies."""
    stage = opened(model, "")
    world = World(stage.double, stage.folder, account=stage.account)
    return stage, Deployer(world, model)


def test_the_command_names_the_action_and_loses_nothing(limited: tuple[Stage, Deployer]) -> None:
    stage, deployer = limited
    stage.run.ok("upload", "--region", REGION)
    deployer.allow(without="sagemaker:CreateEndpoint")
    failed = stage.run("deploy", "--json")
    error = failed.error
    assert error["code"] == "stack-failed"
    assert "lacks the permission sagemaker:CreateEndpoint" in error["message"]
    assert "ask an administrator to allow sagemaker:CreateEndpoint" in error["hint"]
    deployer.allow()
    stage.run.ok("deploy")
    deployer.allow(without="sagemaker:DeleteEndpoint")
    stuck = stage.run("teardown", "--artifacts")
    assert stuck.status == 11
    assert "lacks the permission sagemaker:DeleteEndpoint" in stuck.stderr, stuck.stderr
    assert "endpoint demo-dev InService" in stage.everything()
    deployer.allow()
    stage.run.ok("teardown", "--artifacts")
    assert stage.everything() == []


def test_credentials_that_expire_in_mid_deploy(opened: Open, model: Model) -> None:
    """AWS goes on; the next command follows it, and a teardown leaves nothing."""
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    stage.double.do_wrong(stage.account, Fault("expire", after="ExecuteChangeSet"))
    failed = stage.run("deploy", "--json")
    error = failed.error
    assert error["code"] == "aws-credentials"
    assert "have expired" in error["message"]
    assert "aws sso login" in error["hint"]
    assert "AWS continues the operation in the background" in failed.stderr
    stage.double.do_wrong(stage.account)
    stage.run.ok("deploy")
    stage.run.ok("teardown", "--artifacts")
    assert stage.everything() == []


# Accounts that demand their own roles


@pytest.fixture
def demanding(world: World) -> dict[str, str]:
    """Roles and a boundary that somebody has made, as settings; no policies yet."""
    iam = world.client("iam")
    found = {}
    for setting, service in (
        ("execution_role", "sagemaker"),
        ("lambda_role", "lambda"),
        ("cloudformation_role", "cloudformation"),
    ):
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": f"{service}.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        role = iam.create_role(
            RoleName=setting, Path="/own/", AssumeRolePolicyDocument=json.dumps(trust)
        )
        found[setting] = role["Role"]["Arn"]
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = iam.create_policy(
        PolicyName="boundary",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [everything]}),
    )
    found["permissions_boundary"] = policy["Policy"]["Arn"]
    return found


def choose(world: World, settings: dict[str, str], *names: str) -> None:
    world.flags = {(PROJECT, name): settings[name] for name in names}


def test_with_roles_of_ones_own_none_is_made(
    world: World, model: Model, demanding: dict[str, str]
) -> None:
    choose(world, demanding, "execution_role", "lambda_role", "cloudformation_role")
    printed = AwsOperations(world.target()).policies().documents
    assert {"execution-role", "lambda-role"} < set(printed)
    iam = world.client("iam")
    for name, document in printed.items():
        if name.startswith("cloudformation-role"):
            iam.put_role_policy(
                RoleName="cloudformation_role",
                PolicyName=name,
                PolicyDocument=json.dumps(document),
            )
    deployer = Deployer(world, model)
    for _once_more in range(2):
        outcome = deployer.up()
        assert not outcome.failed, outcome
    assert "iam:CreateRole" not in world.double.actions(world.account)
    roles = {each for each in world.everything() if each.startswith("role ")}
    assert roles == {"role execution_role", "role lambda_role", "role cloudformation_role"}
    function = world.client("lambda").get_function(FunctionName="demo-dev-api")
    assert function["Configuration"]["Role"] == demanding["lambda_role"]
    assert not deployer.teardown().failed
    assert {*world.everything()} == {*roles, "policy boundary"}


def test_what_roles_of_ones_own_must_allow_is_printed(
    world: World, demanding: dict[str, str]
) -> None:
    choose(world, demanding, *demanding)
    printed = AwsOperations(world.target()).policies().documents
    execution = {item["Sid"]: item for item in printed["execution-role"]["Statement"]}
    bucket = f"fdeploy-{world.account}-{REGION}"
    # Of any version: the role outlives them.
    expected = f"arn:aws:s3:::{bucket}/fdeploy/demo/models/*/model.tar.gz"
    assert execution["Artifact"]["Resource"] == expected
    (invoke, *_logs) = printed["lambda-role"]["Statement"]
    assert invoke["Resource"].endswith(f":{REGION}:{world.account}:endpoint/demo-dev")
    assert "boundary" in printed
    assert "Fn::" not in json.dumps(printed)


def test_a_boundary_is_that_of_every_role(
    world: World, model: Model, demanding: dict[str, str]
) -> None:
    choose(world, demanding, "permissions_boundary")
    deployer = Deployer(world, model)
    outcome = deployer.up()
    assert not outcome.failed, outcome
    iam = world.client("iam")
    made = iam.list_roles(PathPrefix="/fdeploy/")["Roles"]
    assert len(made) == 2
    for role in made:
        found = iam.get_role(RoleName=role["RoleName"])["Role"]["PermissionsBoundary"]
        assert found["PermissionsBoundaryArn"] == demanding["permissions_boundary"]
    # Without the setting, the same caller may create no role.
    choose(world, demanding)
    outcome = deployer.up()
    assert outcome.failed
    assert "lacks the permission iam:CreateRole" in outcome.said
    choose(world, demanding, "permissions_boundary")
    assert not deployer.up().failed
    assert not deployer.teardown().failed


def test_a_stage_moves_to_roles_of_ones_own(
    world: World, model: Model, demanding: dict[str, str]
) -> None:
    """The endpoint and the API stay what they are."""
    deployer = Deployer(world, model)
    assert not deployer.up().failed
    sagemaker = world.client("sagemaker")
    before = sagemaker.describe_endpoint(EndpointName="demo-dev")["CreationTime"]
    gateway = world.client("apigateway")
    (api,) = gateway.get_rest_apis()["items"]
    world.double.behave(world.account, enforces=False)
    choose(world, demanding, "execution_role", "lambda_role")
    assert not deployer.up().failed
    assert sagemaker.describe_endpoint(EndpointName="demo-dev")["CreationTime"] == before
    assert [each["id"] for each in gateway.get_rest_apis()["items"]] == [api["id"]]
    assert world.client("iam").list_roles(PathPrefix="/fdeploy/")["Roles"] == []


@pytest.mark.parametrize(
    "setting", ["execution_role", "lambda_role", "cloudformation_role", "permissions_boundary"]
)
def test_a_role_that_cannot_be_used_is_refused_before_anything_is_made(
    world: World, model: Model, demanding: dict[str, str], setting: str
) -> None:
    kind = "policy" if setting == "permissions_boundary" else "role"
    elsewhere = f"arn:aws:iam::123456789012:{kind}/other"
    for arn, kind_of_error in (
        (elsewhere, SettingsError),
        (elsewhere.replace("123456789012", world.account), AwsMissing),
    ):
        choose(world, {**demanding, setting: arn}, setting)
        target = world.target()
        stored = target.upload(model.artifact)
        with pytest.raises(kind_of_error) as refused:
            target.deploy(stored, model.verify)
        assert setting in refused.value.message or "other" in refused.value.message
        assert world.client("sagemaker").list_models()["Models"] == []
    assert not [each for each in world.everything() if each.startswith("stack ")]


def test_a_role_of_another_service_is_refused(world: World, demanding: dict[str, str]) -> None:
    wrong = {**demanding, "execution_role": demanding["lambda_role"]}
    choose(world, wrong, "execution_role")
    checkup = AwsOperations(world.target()).doctor(None)
    (check,) = [each for each in checkup.checks if each.name == "roles"]
    assert check.outcome == "failed"
    assert "sagemaker.amazonaws.com may not assume" in check.message
    choose(world, demanding, *demanding)
    checkup = AwsOperations(world.target()).doctor(None)
    (check,) = [each for each in checkup.checks if each.name == "roles"]
    assert check.outcome == "passed", check


def test_that_roles_can_be_made_is_said(world: World, demanding: dict[str, str]) -> None:
    AwsOperations(world.target()).policies()
    assert "become an administrator of the account" in world.said
    world.events.clear()
    choose(world, demanding, "permissions_boundary")
    AwsOperations(world.target()).policies()
    assert world.said == ""

"""The double refuses what AWS refuses; where it differs from ministack, it follows AWS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.strict import check_strictly
from tests.packaged import Model

TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "sagemaker.amazonaws.com"},
    "Action": "sts:AssumeRole",
}
ROLE = {
    "Type": "AWS::IAM::Role",
    "Properties": {
        "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [TRUST]},
    },
}


def create(world: World, resources: dict[str, Any], **options: Any) -> list[str]:
    """Create a stack, wait for it, and return the reasons of its failures."""
    formation = world.client("cloudformation")
    body = json.dumps({"Resources": resources})
    formation.create_stack(StackName="a-stack", TemplateBody=body, **options)
    while formation.describe_stacks()["Stacks"][0]["StackStatus"].endswith("IN_PROGRESS"):
        pass
    events = formation.describe_stack_events(StackName="a-stack")["StackEvents"]
    return [
        event["ResourceStatusReason"]
        for event in events
        if event["ResourceStatus"].endswith("_FAILED")
    ]


def test_an_unused_account_is_empty(world: World) -> None:
    assert world.everything() == []


def test_roles_need_an_acknowledgement(world: World) -> None:
    with pytest.raises(ClientError, match="Requires capabilities"):
        create(world, {"Role": ROLE})
    assert create(world, {"Role": ROLE}, Capabilities=["CAPABILITY_IAM"]) == []


def test_unknown_types_are_refused(world: World) -> None:
    with pytest.raises(ClientError, match="AWS::SageMaker::NoSuchThing"):
        create(world, {"Thing": {"Type": "AWS::SageMaker::NoSuchThing"}})


def model_of(url: str) -> dict[str, Any]:
    return {
        "Type": "AWS::SageMaker::Model",
        "Properties": {
            "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
            "PrimaryContainer": {"Image": "image", "ModelDataUrl": url},
        },
    }


def test_a_model_needs_its_artifact(world: World) -> None:
    resources = {"Role": ROLE, "Model": model_of("s3://nowhere/model.tar.gz")}
    (reason,) = create(world, resources, Capabilities=["CAPABILITY_IAM"])
    assert reason == "Could not find model data at s3://nowhere/model.tar.gz."


def test_a_function_needs_its_package(world: World) -> None:
    function = {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Code": {"S3Bucket": "nowhere", "S3Key": "code.zip"},
            "Handler": "a.b",
            "Runtime": "python3.12",
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        },
    }
    resources = {"Role": ROLE, "Function": function}
    (reason,) = create(world, resources, Capabilities=["CAPABILITY_IAM"])
    assert "NoSuchKey" in reason


def test_an_instance_type_must_be_one(world: World) -> None:
    config = {
        "Type": "AWS::SageMaker::EndpointConfig",
        "Properties": {
            "ProductionVariants": [
                {
                    "VariantName": "main",
                    "ModelName": "none",
                    "InstanceType": "ml.none.large",
                    "InitialInstanceCount": 1,
                    "InitialVariantWeight": 1,
                }
            ]
        },
    }
    (reason,) = create(world, {"Config": config})
    assert "'ml.none.large' at 'ProductionVariants.1.member.InstanceType'" in reason


def test_an_endpoint_in_the_making_cannot_be_deleted(world: World, model: Model) -> None:
    target = world.target()
    target.deploy(target.upload(model.artifact), model.verify)
    sagemaker = world.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName="demo-dev")["EndpointConfigName"]
    world.double.behave(world.account, hold=True)
    sagemaker.create_endpoint(EndpointName="second", EndpointConfigName=config)
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName="second")
    with pytest.raises(ClientError, match="Cannot create already existing endpoint"):
        sagemaker.create_endpoint(EndpointName="second", EndpointConfigName=config)
    world.double.behave(world.account, hold=False)


def test_calls_are_counted_once_however_often_they_are_sent(world: World) -> None:
    world.double.do_wrong(world.account, Fault("reset", call=2, attempts=1))
    aws = world.aws()
    aws.call("s3", "list_buckets")
    aws.call("cloudformation", "describe_stacks")
    calls = world.double.calls(world.account)
    assert [(c["service"], c["operation"], c["attempts"], c["fault"]) for c in calls] == [
        ("s3", "GET bucket", 1, ""),
        ("cloudformation", "DescribeStacks", 2, "reset"),
    ]


def test_strict_checks_see_what_botocore_lets_through(world: World) -> None:
    session = world.double.session(world.account, world.region)
    check_strictly(session)
    make: Any = session.client
    with pytest.raises(AssertionError, match="none of"):
        make("cloudformation").create_change_set(
            StackName="a", ChangeSetName="b", ChangeSetType="NEW", TemplateBody="{}"
        )
    with pytest.raises(AssertionError, match="does not match"):
        make("sagemaker").describe_endpoint(EndpointName="not a name")
    with pytest.raises(AssertionError, match="above"):
        make("cloudformation").create_change_set(
            StackName="a", ChangeSetName="b", ClientToken="t" * 200, TemplateBody="{}"
        )


def test_the_real_commands_are_checked_as_strictly(world: World) -> None:
    """By botocore's variable for plugins; botocore ignores a missing plugin silently."""
    call = "boto3.client('sagemaker').describe_endpoint(EndpointName='not a name')"
    done = subprocess.run(
        [sys.executable, "-c", f"import boto3; {call}"],
        env={**os.environ, **world.double.environment(world.account)},
        cwd=world.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "AssertionError: DescribeEndpoint" in done.stderr
    assert "'not a name' does not match" in done.stderr


def test_a_change_set_lists_only_what_its_conditions_let_exist(world: World) -> None:
    formation = world.client("cloudformation")
    group = {"Type": "AWS::Logs::LogGroup", "Condition": "IsWanted"}
    template = {
        "Parameters": {"Wanted": {"Type": "String"}},
        "Conditions": {"IsWanted": {"Fn::Equals": [{"Ref": "Wanted"}, "yes"]}},
        "Resources": {"Always": {"Type": "AWS::Logs::LogGroup"}, "Sometimes": group},
    }

    def changes(kind: str, wanted: str) -> dict[str, str]:
        name = f"set-{kind}-{wanted}"
        formation.create_change_set(
            StackName="a-stack",
            ChangeSetName=name,
            ChangeSetType=kind,
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": "Wanted", "ParameterValue": wanted}],
        )
        made = {"StackName": "a-stack", "ChangeSetName": name}
        soon = {"Delay": 0.1, "MaxAttempts": 300}
        formation.get_waiter("change_set_create_complete").wait(**made, WaiterConfig=soon)
        found = formation.describe_change_set(**made)["Changes"]
        formation.execute_change_set(**made)
        ended = formation.get_waiter(f"stack_{kind.lower()}_complete")
        ended.wait(StackName="a-stack", WaiterConfig=soon)
        each = [change["ResourceChange"] for change in found]
        return {change["LogicalResourceId"]: change["Action"] for change in each}

    assert changes("CREATE", "no") == {"Always": "Add"}
    assert changes("UPDATE", "yes") == {"Sometimes": "Add"}
    assert changes("UPDATE", "no") == {"Sometimes": "Remove"}

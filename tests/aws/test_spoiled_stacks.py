"""The real commands on a stage whose stack is in a state that no deploy leaves: they repair it, or
say what to type.

CloudFormation itself creates these states, from templates with the stage's tags.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastai_deploy.aws.ownership import Owner
from tests.aws.stage import Open, Stage
from tests.aws_double.process import REGION
from tests.packaged import Model

NAME = "demo-dev-endpoint"
TAGS = [{"Key": key, "Value": value} for key, value in Owner("demo", "dev").tags.items()]
GROUP = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/demo/dev"}}
BROKEN = {
    "Type": "AWS::SageMaker::Endpoint",
    "Properties": {"EndpointName": "demo-dev", "EndpointConfigName": "there-is-none"},
}
HANDLE = {"Type": "AWS::CloudFormation::WaitConditionHandle"}


def waiting(seconds: int, **more: Any) -> dict[str, Any]:
    """A resource that takes ``seconds`` and then fails."""
    properties = {"Handle": {"Ref": "Handle"}, "Timeout": f"{seconds}"}
    return {"Type": "AWS::CloudFormation::WaitCondition", "Properties": properties, **more}


def body(**resources: Any) -> str:
    return json.dumps({"Resources": {"Group": GROUP, **resources}})


def create(stage: Stage, template: str) -> None:
    stage.client("cloudformation").create_stack(StackName=NAME, TemplateBody=template, Tags=TAGS)


def wait_until(stage: Stage, wanted: str) -> None:
    while f"stack {NAME} {wanted}" not in stage.everything():
        pass


@pytest.fixture
def stage(opened: Open, model: Model) -> Stage:
    stored = opened(model, "")
    stored.double.behave(stored.account, quota={"ml.m5.large": 2})
    stored.run.ok("upload", "--region", REGION)
    return stored


def of_stack(stage: Stage) -> dict[str, Any]:
    """The doctor's check of the stack."""
    checks = stage.run("doctor", "--json").json["checks"]
    (check,) = [check for check in checks if check["name"] == f"stack {NAME}"]
    return dict(check)


def test_one_that_was_rolled_back(stage: Stage) -> None:
    create(stage, body(Endpoint=BROKEN))
    wait_until(stage, "ROLLBACK_COMPLETE")
    assert [part["state"] for part in stage.run.ok("status", "--json").json["parts"]] == [
        "ROLLBACK_COMPLETE"
    ]
    assert of_stack(stage)["hint"] == "the next deploy cleans it up"
    deployed = stage.run.ok("deploy", "--json")
    assert deployed.json["name"] == "demo-dev"
    assert f"stack {NAME} CREATE_COMPLETE" in stage.everything()


def test_one_whose_change_set_was_never_executed(stage: Stage) -> None:
    stage.client("cloudformation").create_change_set(
        StackName=NAME,
        ChangeSetName="fdeploy-left",
        ChangeSetType="CREATE",
        TemplateBody=body(),
        Tags=TAGS,
    )
    wait_until(stage, "REVIEW_IN_PROGRESS")
    assert of_stack(stage)["outcome"] == "passed"
    assert stage.run("plan").status == 15
    assert stage.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert stage.everything() == []


def test_one_that_could_not_be_deleted(stage: Stage) -> None:
    bucket = f"stuck-{stage.account}"
    create(stage, body(Bucket={"Type": "AWS::S3::Bucket", "Properties": {"BucketName": bucket}}))
    wait_until(stage, "CREATE_COMPLETE")
    stage.client("s3").put_object(Bucket=bucket, Key="file", Body=b"")
    stage.client("cloudformation").delete_stack(StackName=NAME)
    wait_until(stage, "DELETE_FAILED")
    error = stage.run("deploy", "--json").error
    assert error["code"] == "stack-failed"
    assert "DELETE_FAILED" in error["message"]
    assert "not empty" in error["message"]
    assert "then run fdeploy deploy --json again" in error["hint"]
    stage.client("s3").delete_object(Bucket=bucket, Key="file")
    stage.run.ok("deploy")
    assert f"stack {NAME} CREATE_COMPLETE" in stage.everything()


def test_one_whose_rollback_aws_gave_up(stage: Stage) -> None:
    """A changed resource was deleted by hand, so that the rollback cannot change it back."""

    def api(name: str) -> dict[str, Any]:
        return {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": name}}

    create(stage, body(Api=api("before")))
    wait_until(stage, "CREATE_COMPLETE")
    stage.client("cloudformation").update_stack(
        StackName=NAME,
        TemplateBody=body(Api=api("after"), Wait=waiting(2, DependsOn="Api"), Handle=HANDLE),
        Tags=TAGS,
    )
    gateway = stage.client("apigateway")
    while gateway.get_rest_apis()["items"][0]["name"] != "after":
        pass
    gateway.delete_rest_api(restApiId=gateway.get_rest_apis()["items"][0]["id"])
    wait_until(stage, "UPDATE_ROLLBACK_FAILED")
    failed = stage.run("deploy", "--json")
    assert "rolling back to the previous state" in failed.stderr
    assert failed.error["code"] == "stack-failed"
    assert "UPDATE_ROLLBACK_FAILED" in failed.error["message"]
    assert stage.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert stage.everything() == []


def test_one_that_somebody_else_is_creating(stage: Stage) -> None:
    """By hand, from the stage's own template: fdeploy waits only for what it has started."""
    stage.double.behave(stage.account, hold=True)
    template = stage.run.ok("template", "--json").json[NAME]
    stage.client("cloudformation").create_stack(
        StackName=NAME,
        TemplateBody=template,
        Tags=TAGS,
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    wait_until(stage, "CREATE_IN_PROGRESS")
    assert of_stack(stage)["hint"] == "wait for it to finish"
    for command in ("plan", "deploy", "teardown"):
        error = stage.run(command, "--json").error
        assert error["code"] == "stack-busy"
        assert "someone (not through fdeploy) is changing the stack" in error["message"]
        assert error["hint"]
    assert stage.run.ok("status", "--json").json["parts"][0]["state"] == "CREATE_IN_PROGRESS"
    stage.double.behave(stage.account, hold=False)
    wait_until(stage, "CREATE_COMPLETE")
    stage.run.ok("deploy")

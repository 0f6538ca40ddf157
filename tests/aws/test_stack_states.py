"""Deploys that find a stack in an unfinished state, or someone else changing it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from fastai_deploy.aws.change_sets import StackRequest
from fastai_deploy.aws.deployment import Applied, Deployment
from fastai_deploy.aws.ownership import Operator
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.errors import NotOurs, StackBusy, StackFailed
from fastai_deploy.progress import Event, Reporter
from tests.aws.world import World
from tests.packaged import Model

NAME = "demo-dev-endpoint"


def log_group(retention: int = 30, **more: Any) -> dict[str, Any]:
    properties = {"LogGroupName": "/demo/dev", "RetentionInDays": retention}
    return {"Type": "AWS::Logs::LogGroup", "Properties": properties, **more}


def request(world: World, *, retention: int = 30, **resources: Any) -> StackRequest:
    """A stack with one log group, and further resources."""
    template = {"Resources": {"Group": log_group(retention), **resources}}
    return StackRequest(NAME, Template(json.dumps(template)), world.owner.tags)


BROKEN = {
    "Type": "AWS::SageMaker::Endpoint",
    "Properties": {"EndpointName": "demo-dev", "EndpointConfigName": "there-is-none"},
}


def deployment(world: World) -> Deployment:
    return world.target().context.deployment()


def status(world: World) -> str:
    found = world.client("cloudformation").list_stacks()["StackSummaries"]
    return next((s["StackStatus"] for s in found if s["StackStatus"] != "DELETE_COMPLETE"), "")


def test_nothing_changes_without_a_change(world: World) -> None:
    assert deployment(world).apply(request(world)).changed
    assert not deployment(world).apply(request(world)).changed
    assert deployment(world).apply(request(world, retention=7)).changed


def test_a_plan_leaves_nothing_behind(world: World) -> None:
    plan = deployment(world).plan(request(world))
    assert plan.stack is None
    assert plan.changes is not None
    assert [(c.action, c.type) for c in plan.changes.changes] == [("Add", "AWS::Logs::LogGroup")]
    assert status(world) == ""
    deployment(world).apply(request(world))
    assert deployment(world).plan(request(world)).changes is None
    plan = deployment(world).plan(request(world, retention=7))
    assert plan.changes is not None
    assert plan.changes.changes[0].properties == ("RetentionInDays",)
    left = world.client("cloudformation").list_change_sets(StackName=NAME)["Summaries"]
    assert "AVAILABLE" not in [item["ExecutionStatus"] for item in left]


def test_a_plan_that_was_left_is_no_obstacle(world: World) -> None:
    """fdeploy was interrupted after it had created the change set of a new stack."""
    world.client("cloudformation").create_change_set(
        StackName=NAME,
        ChangeSetName="fdeploy-left",
        ChangeSetType="CREATE",
        TemplateBody=request(world).template.text,
        Tags=[{"Key": key, "Value": value} for key, value in world.owner.tags.items()],
    )
    assert status(world) == "REVIEW_IN_PROGRESS"
    assert deployment(world).apply(request(world)).stack.status == "CREATE_COMPLETE"


def test_a_rolled_back_stack_is_deleted_first(world: World) -> None:
    with pytest.raises(StackFailed, match="Could not find endpoint configuration") as failed:
        deployment(world).apply(request(world, Endpoint=BROKEN))
    assert "AWS::SageMaker::Endpoint Endpoint" in failed.value.message
    assert status(world) == "ROLLBACK_COMPLETE"
    assert deployment(world).apply(request(world)).changed
    assert status(world) == "CREATE_COMPLETE"


def test_a_failed_update_can_be_updated(world: World) -> None:
    deployment(world).apply(request(world))
    with pytest.raises(StackFailed, match="UPDATE_ROLLBACK_COMPLETE"):
        deployment(world).apply(request(world, Endpoint=BROKEN))
    assert not deployment(world).apply(request(world)).changed


def test_a_stack_that_could_not_be_deleted_is_deleted_again(world: World) -> None:
    stick(world)
    with pytest.raises(StackFailed, match="DELETE_FAILED"):
        deployment(world).remove(NAME)
    unstick(world)
    assert deployment(world).apply(request(world)).changed


def stick(world: World) -> None:
    """A stack with a bucket that cannot be deleted, because someone put a file into it."""
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": f"stuck-{world.account}"}}
    deployment(world).apply(request(world, Bucket=bucket))
    world.client("s3").put_object(Bucket=f"stuck-{world.account}", Key="file", Body=b"")


def unstick(world: World) -> None:
    world.client("s3").delete_object(Bucket=f"stuck-{world.account}", Key="file")


def test_what_cannot_be_deleted_is_let_go_at_last(world: World) -> None:
    stick(world)
    with pytest.raises(StackFailed):
        deployment(world).remove(NAME)
    assert deployment(world).remove(NAME, retain_stuck=True)
    assert status(world) == ""
    assert deployment(world).remove(NAME) is False


def test_switched_off_rollback_is_rolled_back(world: World) -> None:
    deployment(world).apply(request(world))
    formation = world.client("cloudformation")
    formation.update_stack(
        StackName=NAME,
        TemplateBody=request(world, Endpoint=BROKEN).template.text,
        Tags=[{"Key": key, "Value": value} for key, value in world.owner.tags.items()],
        DisableRollback=True,
    )
    wait_until(world, "UPDATE_FAILED")
    assert not deployment(world).apply(request(world)).changed


def wait_until(world: World, wanted: str) -> None:
    while status(world) != wanted:
        pass


def test_a_rollback_that_aws_gave_up_is_gone_on_with(world: World) -> None:
    deployment(world).apply(request(world, Api=rest_api("before")))
    formation = world.client("cloudformation")
    wait = {
        "Type": "AWS::CloudFormation::WaitCondition",
        "DependsOn": "Api",
        "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "2"},
    }
    handle = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
    wanted = request(world, Api=rest_api("after"), Wait=wait, Handle=handle)
    formation.update_stack(
        StackName=NAME,
        TemplateBody=wanted.template.text,
        Tags=[{"Key": key, "Value": value} for key, value in world.owner.tags.items()],
    )
    gateway = world.client("apigateway")
    while gateway.get_rest_apis()["items"][0]["name"] != "after":
        pass
    # A changed resource is deleted by hand, so it cannot be changed back.
    gateway.delete_rest_api(restApiId=gateway.get_rest_apis()["items"][0]["id"])
    wait_until(world, "UPDATE_ROLLBACK_FAILED")
    with pytest.raises(StackFailed, match="UPDATE_ROLLBACK_FAILED"):
        deployment(world).apply(request(world))
    assert "rolling back to the previous state" in world.said
    assert deployment(world).remove(NAME)


def rest_api(name: str) -> dict[str, Any]:
    return {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": name}}


def test_somebody_elses_stack_is_refused(world: World) -> None:
    world.client("cloudformation").create_stack(
        StackName=NAME, TemplateBody=request(world).template.text
    )
    wait_until(world, "CREATE_COMPLETE")
    for refused in (
        lambda: deployment(world).apply(request(world, retention=7)),
        lambda: deployment(world).remove(NAME),
        lambda: world.target().teardown(),
    ):
        with pytest.raises(NotOurs, match="its tags do not mark it"):
            refused()
    assert status(world) == "CREATE_COMPLETE"


def test_another_stage_of_that_name_is_refused(world: World) -> None:
    """Project a-b with stage c and project a with stage b-c have stacks of the same name."""
    theirs = {**world.owner.tags, "fdeploy:project": "dem"}
    world.client("cloudformation").create_stack(
        StackName=NAME,
        TemplateBody=request(world).template.text,
        Tags=[{"Key": key, "Value": value} for key, value in theirs.items()],
    )
    with pytest.raises(NotOurs):
        deployment(world).apply(request(world))


@contextmanager
def slow_deploy(world: World, model: Model) -> Iterator[list[Applied]]:
    """A deploy by the world's operator, still in progress at AWS while the block runs.

    It ends without a result if the block has the stack deleted before it looks again.
    """
    world.double.behave(world.account, hold=True)
    target = world.target()
    stored = target.upload(model.artifact)
    definition = target.context.definitions.endpoint(stored)
    wanted = target.context.request(NAME, definition)
    done: list[Applied] = []

    def deploy() -> None:
        with suppress(StackFailed):
            done.append(target.context.deployment().apply(wanted))

    working = threading.Thread(target=deploy)
    working.start()
    try:
        wait_until(world, "CREATE_IN_PROGRESS")
        yield done
    finally:
        let_go_on(world)
        working.join()


def let_go_on(world: World) -> None:
    world.double.behave(world.account, hold=False)


def attached(world: World) -> Reporter:
    """Lets AWS continue once someone waits for it."""

    def report(event: Event) -> None:
        world.events.append(event)
        if "waiting for the running operation" in getattr(event, "message", ""):
            let_go_on(world)

    return report


def test_the_second_of_two_deploys_is_told_who_is_at_work(world: World, model: Model) -> None:
    with slow_deploy(world, model) as done:
        world.operator = Operator("eve", "desktop")
        with pytest.raises(StackBusy, match="ada on laptop is changing the stack demo-dev-end"):
            deployment(world).apply(request(world))
        with pytest.raises(StackBusy):
            deployment(world).remove(NAME)
    assert done[0].stack.status == "CREATE_COMPLETE"


def test_what_was_begun_elsewhere_is_not_fdeploys(world: World) -> None:
    deployment(world).apply(request(world))
    slow = {
        "Type": "AWS::CloudFormation::WaitCondition",
        "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "2"},
    }
    handle = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
    world.client("cloudformation").update_stack(
        StackName=NAME,
        TemplateBody=request(world, Wait=slow, Handle=handle).template.text,
        Tags=[{"Key": key, "Value": value} for key, value in world.owner.tags.items()],
    )
    with pytest.raises(StackBusy, match=r"someone \(not through fdeploy\) is changing"):
        deployment(world).apply(request(world))


def test_the_same_command_takes_up_what_it_had_begun(world: World, model: Model) -> None:
    with slow_deploy(world, model):
        target = world.target(attached(world))
        endpoint = target.deploy(target.upload(model.artifact), model.verify)
    assert endpoint.version == model.artifact.version
    assert "waiting for the running operation" in world.said
    assert "demo-dev-endpoint is up to date" in world.said


def test_a_teardown_waits_for_what_was_begun(world: World, model: Model) -> None:
    with slow_deploy(world, model):
        proof = world.target(attached(world)).teardown(artifacts=True)
    assert proof.left == ()
    assert world.everything() == []


def test_a_protected_stack_is_deleted_by_nothing_else(world: World) -> None:
    wanted = request(world)
    protected = StackRequest(wanted.name, wanted.template, wanted.tags, protected=True)
    deployment(world).apply(protected)
    formation = world.client("cloudformation")
    assert formation.describe_stacks(StackName=NAME)["Stacks"][0]["EnableTerminationProtection"]
    deployment(world).apply(wanted)
    assert not formation.describe_stacks(StackName=NAME)["Stacks"][0]["EnableTerminationProtection"]
    deployment(world).apply(protected)
    assert deployment(world).remove(NAME)

"""A teardown leaves nothing, whatever the stage's state and whatever was changed by hand."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from fastai_deploy.errors import AwsDenied, NotOurs, UsageError
from fastai_deploy.progress import Event
from fastai_deploy.records import Api, Endpoint
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.packaged import Model


def up(world: World, model: Model) -> tuple[Endpoint, Api]:
    target = world.target()
    endpoint = target.deploy(target.upload(model.artifact), model.verify)
    return endpoint, target.create_api(endpoint, model.verify)


def deploy(world: World, model: Model) -> None:
    target = world.target()
    target.deploy(target.upload(model.artifact), model.verify)


def test_of_nothing_finds_nothing(world: World) -> None:
    proof = world.target().teardown(artifacts=True)
    assert (proof.found, proof.deleted, proof.left) == ((), (), ())


def test_a_second_time_finds_nothing(world: World, model: Model) -> None:
    up(world, model)
    assert world.target().teardown(artifacts=True).left == ()
    assert world.target().teardown(artifacts=True).found == ()


def test_the_artifacts_stay_unless_they_shall_go(world: World, model: Model) -> None:
    deploy(world, model)
    proof = world.target().teardown()
    assert proof.left == ()
    assert not any("artifact" in thing for thing in proof.found)
    assert world.everything() == [f"bucket fdeploy-{world.account}-{world.region}"]
    assert "kept 1 artifact in the bucket" in world.said
    proof = world.target().teardown(artifacts=True)
    assert [thing.split()[0] for thing in proof.deleted] == ["artifact", "bucket"]
    assert world.everything() == []


def test_the_users_own_bucket_stays(world: World, model: Model) -> None:
    name = f"mine-{world.account}"
    s3 = world.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": world.region})
    theirs = ["fdeploy/demo/models/mine/model.tar.gz", "fdeploy/demo/notes.txt", "theirs"]
    for key in theirs:
        s3.put_object(Bucket=name, Key=key, Body=b"")
    world.flags = {("project", "bucket"): name}
    deploy(world, model)
    assert world.target().teardown(artifacts=True).left == ()
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=name)["Contents"]]
    assert keys == theirs


def test_what_was_deleted_by_hand_is_no_obstacle(world: World, model: Model) -> None:
    up(world, model)
    world.client("sagemaker").delete_endpoint(EndpointName="demo-dev")
    world.client("lambda").delete_function(FunctionName="demo-dev-api")
    world.client("logs").delete_log_group(logGroupName="/aws/lambda/demo-dev-api")
    world.client("cloudformation").delete_stack(StackName="demo-dev-api")
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


def test_log_groups_that_came_back_are_found_by_name(world: World, model: Model) -> None:
    """A container that stops after its log group was deleted creates a new one without tags."""
    deploy(world, model)
    world.target().teardown(artifacts=True)
    group = "/aws/sagemaker/Endpoints/demo-dev"
    world.client("logs").create_log_group(logGroupName=group)
    proof = world.target().teardown(artifacts=True)
    assert proof.deleted == (f"log group {group}",)
    assert world.everything() == []


@pytest.mark.parametrize("tags", [{"team": "payments"}, {"fdeploy:project": "other"}])
def test_log_groups_of_somebody_else_are_left_alone(
    world: World, model: Model, tags: dict[str, str]
) -> None:
    """Their names are the stage's, of a function and an endpoint that are no more."""
    logs = world.client("logs")
    names = ("/aws/lambda/demo-dev-api", "/aws/sagemaker/Endpoints/demo-dev-async",
             "/aws/apigateway/demo-dev")  # fmt: skip
    for name in names:
        logs.create_log_group(logGroupName=name, tags=tags)
    deploy(world, model)
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == sorted(f"log group {name}" for name in names)


def test_a_log_group_that_comes_back_meanwhile_goes_again(world: World, model: Model) -> None:
    deploy(world, model)
    group = "/aws/sagemaker/Endpoints/demo-dev"

    def write_last_words(event: Event) -> None:
        if "stored object" in getattr(event, "message", ""):
            world.client("logs").create_log_group(logGroupName=group)

    assert world.target(write_last_words).teardown(artifacts=True).left == ()
    assert world.everything() == []


def test_what_no_stack_holds_any_more_is_found_by_its_tags(world: World, model: Model) -> None:
    """A stack that could not delete its endpoint no longer contains it."""
    deploy(world, model)
    keep_endpoint(world)
    assert "endpoint demo-dev InService" in world.everything()
    proof = world.target().teardown(artifacts=True)
    assert "endpoint demo-dev" in proof.deleted
    assert proof.left == ()
    assert world.everything() == []


def keep_endpoint(world: World) -> None:
    """Delete the stack while its endpoint is being updated, so that the endpoint is retained."""
    sagemaker, formation = world.client("sagemaker"), world.client("cloudformation")
    world.double.behave(world.account, hold=True)
    config = sagemaker.describe_endpoint(EndpointName="demo-dev")["EndpointConfigName"]
    sagemaker.update_endpoint(EndpointName="demo-dev", EndpointConfigName=config)
    formation.delete_stack(StackName="demo-dev-endpoint")
    while stack_status(formation) != "DELETE_FAILED":
        pass
    formation.delete_stack(StackName="demo-dev-endpoint", RetainResources=["Endpoint"])
    while stack_status(formation):
        pass
    world.double.behave(world.account, hold=False)
    while sagemaker.describe_endpoint(EndpointName="demo-dev")["EndpointStatus"] == "Updating":
        pass


def live_stacks(formation: Any) -> list[str]:
    found = formation.list_stacks()["StackSummaries"]
    return [stack["StackName"] for stack in found if stack["StackStatus"] != "DELETE_COMPLETE"]


def stack_status(formation: Any) -> str:
    found = formation.list_stacks()["StackSummaries"]
    live = [stack["StackStatus"] for stack in found if stack["StackStatus"] != "DELETE_COMPLETE"]
    return live[0] if live else ""


def test_an_endpoint_in_the_making_is_waited_for(world: World, model: Model) -> None:
    """It cannot be deleted before it is in service or has failed."""
    deploy(world, model)
    world.double.behave(world.account, seconds=1.5)
    sagemaker = world.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName="demo-dev")["EndpointConfigName"]
    sagemaker.update_endpoint(EndpointName="demo-dev", EndpointConfigName=config)
    proof = world.target().teardown(artifacts=True)
    assert proof.left == ()
    assert world.everything() == []


def test_somebody_elses_endpoint_of_that_name_is_left_alone(world: World, model: Model) -> None:
    deploy(world, model)
    sagemaker = world.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName="demo-dev")["EndpointConfigName"]
    world.stage = "other"
    sagemaker.create_endpoint(EndpointName="demo-other", EndpointConfigName=config)
    while sagemaker.describe_endpoint(EndpointName="demo-other")["EndpointStatus"] == "Creating":
        pass
    assert world.target().teardown(artifacts=True).found == ()
    live = sagemaker.describe_endpoint(EndpointName="demo-other")
    assert live["EndpointStatus"] == "InService"
    assert "log group /aws/sagemaker/Endpoints/demo-other" in world.everything()


@pytest.mark.parametrize("tags", [[], [{"Key": "team", "Value": "payments"}]])
@pytest.mark.parametrize("wait", [True, False])
def test_somebody_elses_stack_among_ours_keeps_nothing_of_the_stage(
    world: World, model: Model, tags: list[dict[str, str]], *, wait: bool
) -> None:
    formation = world.client("cloudformation")
    template = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup",
                                        "Properties": {"LogGroupName": "theirs"}}}}  # fmt: skip
    formation.create_stack(StackName="demo-dev-ttl", TemplateBody=json.dumps(template), Tags=tags)
    before = world.everything()
    with pytest.raises(NotOurs):
        world.target().teardown(artifacts=True)
    target = world.target()
    with pytest.raises(NotOurs):
        target.deploy(target.upload(model.artifact), model.verify)
    formation.delete_stack(StackName="demo-dev-ttl")
    up(world, model)
    formation.create_stack(StackName="demo-dev-ttl", TemplateBody=json.dumps(template), Tags=tags)
    if not wait:
        assert world.target().teardown(wait=False).begun
        while live_stacks(formation) != ["demo-dev-ttl"]:
            pass
    world.target().claim(creates=False)
    assert world.target().teardown(artifacts=True).left == ()
    assert "left alone: the stack demo-dev-ttl exists" in world.said
    assert world.everything() == before


def test_the_roles_of_a_stage_with_the_same_names_are_not_counted(
    world: World, model: Model
) -> None:
    """Stage c of project demo-b and stage b-c of project demo have the same names and role path."""
    world.stage, world.flags = "c", {("project", "name"): "demo-b"}
    deploy(world, model)
    before = world.everything()
    world.stage, world.flags = "b-c", {}
    with pytest.raises(NotOurs, match="the stack demo-b-c-endpoint exists"):
        world.target().teardown()
    assert world.everything() == before
    world.stage, world.flags = "c", {("project", "name"): "demo-b"}
    assert world.target().teardown(artifacts=True).left == ()


def test_a_protected_stage_needs_a_word(world: World, model: Model) -> None:
    world.flags = {("project", "protect"): True}
    deploy(world, model)
    with pytest.raises(UsageError, match="is protected") as refused:
        world.target().teardown()
    assert refused.value.hint == "to delete it anyway, run fdeploy teardown --even-if-protected"
    before = world.everything()
    world.flags = {}  # as in an older fdeploy.toml, or in a pull request's
    for wait in (True, False):
        with pytest.raises(UsageError, match="demo-dev-endpoint has termination protection") as of:
            world.target().teardown(wait=wait)
        assert of.value.hint == refused.value.hint
    assert world.everything() == before
    assert world.target().teardown(artifacts=True, confirmed=True).left == ()


def test_what_cannot_be_removed_is_named(world: World, model: Model) -> None:
    """The caller may delete stacks, but not the resources that they retained."""
    deploy(world, model)
    world.target().teardown(artifacts=True)
    group = "/aws/sagemaker/Endpoints/demo-dev"
    world.client("logs").create_log_group(logGroupName=group)
    world.double.do_wrong(world.account, Fault("deny", service="logs", operation="DeleteLogGroup"))
    minutes = itertools.count()
    world.clock = lambda: 60.0 * next(minutes)
    proof = world.target().teardown(artifacts=True)
    assert proof.left == (f"log group {group}",)
    assert proof.deleted == ()
    assert "logs:DeleteLogGroup" in world.said


def test_who_may_not_look_gets_no_proof(world: World, model: Model) -> None:
    deploy(world, model)
    world.double.do_wrong(world.account, Fault("deny", service="tagging"))
    with pytest.raises(AwsDenied, match="tag:GetResources"):
        world.target().teardown(artifacts=True)
    world.double.do_wrong(world.account)
    assert world.target().teardown(artifacts=True).left == ()

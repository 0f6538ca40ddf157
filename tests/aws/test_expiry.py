"""A stage with ``ttl`` ends when its time is up, and only then; the double runs its schedules."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.status import status
from tests.aws.world import World
from tests.aws_templates.scenarios import KMS_KEY
from tests.packaged import Model

ENDPOINT = "demo-dev-endpoint"


def deploy(world: World, model: Model) -> None:
    target = world.target()
    target.deploy(target.upload(model.artifact), model.verify)


def later(**span: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(**span)


def is_overdue(world: World, now: datetime) -> bool:
    session = world.double.session(world.account)
    aws = Aws(session, region=world.region, now=lambda: now)
    return status(aws, world.owner).overdue


@pytest.mark.parametrize("key", [None, KMS_KEY])
def test_a_stage_ends_with_and_without_a_key_of_ones_own(
    world: World, model: Model, key: str | None
) -> None:
    world.flags = {("project", "ttl"): "4h", ("project", "kms_key"): key}
    deploy(world, model)
    assert world.double.run_schedules(world.account, later(hours=3)) == []
    assert world.double.run_schedules(world.account, later(hours=5)) == ["demo-dev-api", ENDPOINT]
    waiter = world.client("cloudformation").get_waiter("stack_delete_complete")
    waiter.wait(StackName=ENDPOINT, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert not any(each.startswith("endpoint") for each in world.everything())


def test_a_retried_expiry_leaves_a_stage_that_was_deployed_since(
    world: World, model: Model
) -> None:
    world.flags = {("project", "ttl"): "4h"}
    deploy(world, model)
    iam = world.client("iam")
    (role,) = (role for role in iam.list_roles()["Roles"] if "Ttl" in role["RoleName"])
    policy = iam.get_role_policy(RoleName=role["RoleName"], PolicyName="fdeploy")
    iam.delete_role_policy(RoleName=role["RoleName"], PolicyName="fdeploy")
    assert world.double.run_schedules(world.account, later(hours=5)) == [], "AWS refuses it for now"
    assert not is_overdue(world, later(hours=4))
    assert is_overdue(world, later(hours=5)), "status shows it"
    iam.put_role_policy(
        RoleName=role["RoleName"],
        PolicyName="fdeploy",
        PolicyDocument=json.dumps(policy["PolicyDocument"]),
    )

    world.flags = {("project", "ttl"): "9h"}
    deploy(world, model)
    assert world.double.run_schedules(world.account, later(hours=6)) == []
    assert len(world.double.run_schedules(world.account, later(hours=10))) == 4


def test_the_end_moves_before_the_stage_is_updated(
    world: World, model: Model, other_model: Model
) -> None:
    world.flags = {("project", "ttl"): "4h"}
    deploy(world, model)
    ends: list[str] = []

    def watch(event: object) -> None:
        if getattr(event, "stack", "") == ENDPOINT and not ends:
            stack = world.client("cloudformation").describe_stacks(StackName="demo-dev-ttl")
            ends.append(stack["Stacks"][0]["Outputs"][0]["OutputValue"])

    world.flags = {("project", "ttl"): "2d"}
    target = world.target(watch)
    target.deploy(target.upload(other_model.artifact), other_model.verify)
    assert ends[0] > f"{later(days=1):%Y-%m-%d}"

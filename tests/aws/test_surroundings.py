"""Around a stage: a wrong clock, a deleted bucket, somebody else at the same time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastai_deploy.aws.change_sets import StackRequest
from fastai_deploy.aws.deployment import Deployment
from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.stacks import find_stack
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.errors import NotOurs, UsageError
from tests.aws.stage import Open, Stage
from tests.aws.world import World
from tests.aws_double.process import REGION
from tests.packaged import Model


@pytest.fixture
def live(opened: Open, model: Model) -> Stage:
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    stage.run.ok("deploy")
    return stage


@pytest.mark.parametrize("ahead", [3_600, -3_600])
def test_a_clock_that_is_wrong_by_an_hour(opened: Open, model: Model, ahead: int) -> None:
    stage = opened(model, "")
    stage.double.behave(stage.account, clock=ahead)
    for command in ("upload", "status", "teardown"):
        error = stage.run(command, "--region", REGION, "--json").error
        assert error["code"] == "aws-credentials"
        assert "this machine's clock is wrong" in error["message"]
        assert "set the clock" in error["hint"]
    stage.double.behave(stage.account, clock=0)
    stage.run.ok("upload", "--region", REGION)
    stage.double.behave(stage.account, clock=ahead)
    assert "clock is wrong" in stage.run("deploy", "--json").error["message"]
    stage.double.behave(stage.account, clock=0)
    assert not any(each.startswith("stack") for each in stage.everything())


def delete_bucket(stage: Stage) -> str:
    s3 = stage.client("s3")
    name = f"fdeploy-{stage.account}-{REGION}"
    for found in s3.list_object_versions(Bucket=name).get("Versions", []):
        s3.delete_object(Bucket=name, Key=found["Key"], VersionId=found["VersionId"])
    s3.delete_bucket(Bucket=name)
    return name


def test_a_bucket_that_was_deleted(live: Stage) -> None:
    """What serves goes on; what needs the artifact says which command stores it again."""
    name = delete_bucket(live)
    assert live.run.ok("invoke", "a great film", "--json").json["label"]
    live.run.ok("status")
    assert live.run.ok("versions", "--json").json["versions"] == []
    gone = live.run("deploy", "--json").error
    assert (gone["code"], gone["hint"]) == ("file-missing", "run fdeploy upload")
    error = live.run("rollback", "--json").error
    assert f"the bucket {name} is gone" in error["message"]
    assert error["hint"] == "run fdeploy upload && fdeploy deploy"
    live.run.ok("create-api")
    live.run.ok("upload")
    live.run.ok("deploy")
    delete_bucket(live)
    assert live.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert live.everything() == []


def request(owner: Owner) -> StackRequest:
    body = """{"Resources": {"G": {"Type": "AWS::Logs::LogGroup"}}}"""
    return StackRequest("demo-dev-endpoint", Template(body, {}), owner.tags)


def test_two_first_deploys_at_once(world: World) -> None:
    """Who gives up does not delete what the other has made meanwhile."""
    owner = Owner("demo", "dev", "a" * 12)
    aws = world.aws()
    first = Deployment(aws, owner, Operator("ada", "laptop"), world.events.append)
    other = replace(owner, id="e" * 12)
    second = Deployment(aws, other, Operator("eve", "desk"), world.events.append)

    def meanwhile() -> None:
        first.apply(request(owner))
        raise UsageError("the answer is no", hint="")

    with pytest.raises(UsageError):
        second.apply(request(other), meanwhile)
    made = find_stack(aws, "demo-dev-endpoint")
    assert made is not None
    assert (made.status, made.tags["fdeploy:id"]) == ("CREATE_COMPLETE", "a" * 12)
    with pytest.raises(NotOurs, match="its id is aaaaaaaaaaaa"):
        second.apply(request(other))
    assert first.remove("demo-dev-endpoint")
    assert world.everything() == []

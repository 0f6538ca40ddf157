"""CloudFormation reads templates above 51,200 bytes from the bucket; none is left there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastai_deploy.aws.bucket import ensure_bucket
from fastai_deploy.aws.change_sets import StackRequest
from fastai_deploy.aws.deployment import Deployment
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.errors import AwsError, DeployError
from fastai_deploy.naming import template_key
from tests.aws.world import PROJECT, World
from tests.aws_double.faults import Fault

NAME = "demo-dev-endpoint"
GROUP = {
    "Type": "AWS::Logs::LogGroup",
    "Properties": {"LogGroupName": "/demo/dev", "RetentionInDays": 30},
}


def large(world: World) -> StackRequest:
    template = {"Metadata": {"padding": "é" * 40_000}, "Resources": {"Group": GROUP}}
    text = json.dumps(template, ensure_ascii=False)
    assert len(text.encode()) > 51_200
    return StackRequest(NAME, Template(text), world.owner.tags)


def deployment(world: World) -> Deployment:
    return Deployment(world.aws(), world.owner, world.operator, world.events.append)


def objects(world: World) -> list[str]:
    """The keys of everything in the bucket, old versions and delete markers too."""
    bucket = f"fdeploy-{world.account}-{world.region}"
    listed: Any = world.client("s3").list_object_versions(Bucket=bucket)
    return [each["Key"] for kind in ("Versions", "DeleteMarkers") for each in listed.get(kind, [])]


def test_it_is_read_from_the_bucket_and_removed(world: World) -> None:
    ensure_bucket(world.aws(), None, world.events.append)
    request = large(world)
    assert deployment(world).plan(request).changes is not None
    assert deployment(world).apply(request).changed
    assert not deployment(world).apply(request).changed
    calls = world.double.calls(world.account)
    assert len([call for call in calls if call["operation"] == "PUT object"]) == 3
    assert objects(world) == []
    live = deployment(world).live(NAME)
    assert live is not None
    assert live.template.document() == request.template.document()


def test_it_is_removed_when_cloudformation_refuses_it(world: World) -> None:
    ensure_bucket(world.aws(), None, world.events.append)
    fault = Fault("deny", service="cloudformation", operation="CreateChangeSet")
    world.double.do_wrong(world.account, fault)
    with pytest.raises(AwsError):
        deployment(world).apply(large(world))
    assert objects(world) == []


def test_without_a_bucket_it_cannot_be_planned(world: World) -> None:
    with pytest.raises(DeployError, match=r"has 80,\d+ bytes.*and there is none yet") as caught:
        deployment(world).plan(large(world))
    assert caught.value.hint == "run fdeploy upload"


def test_a_teardown_removes_what_an_interruption_left(world: World) -> None:
    ensure_bucket(world.aws(), None, world.events.append)
    bucket = f"fdeploy-{world.account}-{world.region}"
    key = template_key(PROJECT, world.stage, "0" * 64)
    world.client("s3").put_object(Bucket=bucket, Key=key, Body=b"{}")
    proof = world.target().teardown(artifacts=True)
    assert f"data s3://{bucket}/{key}" in proof.deleted
    assert proof.left == ()
    assert world.everything() == []

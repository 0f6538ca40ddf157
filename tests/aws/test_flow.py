"""The flow against the double: the real templates, the real model server, the real Lambda."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fastai_deploy.errors import InvocationError, SettingsError
from fastai_deploy.records import Api, Endpoint
from tests.aws.world import World
from tests.aws_templates.scenarios import KMS_KEY
from tests.packaged import Model


def up(world: World, model: Model) -> tuple[Endpoint, Api]:
    target = world.target()
    endpoint = target.deploy(target.upload(model.artifact), model.verify)
    return endpoint, target.create_api(endpoint, model.verify)


def test_a_model_becomes_an_api_and_nothing_again(world: World, model: Model) -> None:
    endpoint, api = up(world, model)
    assert endpoint.name == "demo-dev"
    assert endpoint.version == model.artifact.version

    live = world.client("sagemaker").describe_endpoint(EndpointName="demo-dev")
    assert live["EndpointStatus"] == "InService"
    stack = world.client("cloudformation").describe_stacks(StackName="demo-dev-endpoint")
    tags = {tag["Key"]: tag["Value"] for tag in stack["Stacks"][0]["Tags"]}
    assert tags["fdeploy:project"] == "demo"
    assert tags["fdeploy:version"] == endpoint.version

    key = Path(api.key_file)
    assert key.stat().st_mode & 0o077 == 0
    answer = world.target().call_api(api, {"texts": ["a great film", "no"]})
    assert [item["model"]["version"] for item in answer] == [endpoint.version] * 2
    assert status_without_key(world, api) == 403

    proof = world.target().teardown(artifacts=True)
    assert proof.left == ()
    assert set(proof.deleted) == set(proof.found)
    assert {"endpoint demo-dev", "function demo-dev-api", "stack demo-dev-api"} <= set(proof.found)
    assert world.everything() == []
    assert not key.exists()


def status_without_key(world: World, api: Api) -> int:
    parts = urlsplit(api.url)
    connection = http.client.HTTPConnection(urlsplit(world.double.url).netloc, timeout=30)
    try:
        connection.request("POST", parts.path, b'{"text": "a"}', {"host": parts.netloc})
        return connection.getresponse().status
    finally:
        connection.close()


def test_what_is_wrong_with_a_request_is_said_in_the_models_words(
    world: World, model: Model
) -> None:
    endpoint, api = up(world, model)
    with pytest.raises(InvocationError, match="invalid_request") as direct:
        world.target().invoke(endpoint, {"txt": "a"})
    assert "text" in direct.value.hint
    with pytest.raises(InvocationError, match="422 invalid_request"):
        world.target().call_api(api, {"txt": "a"})


def test_an_unchanged_deploy_changes_nothing(world: World, model: Model) -> None:
    first = up(world, model)
    before = inner_state(world)
    assert up(world, model) == first
    assert inner_state(world) == before
    assert "demo-dev-endpoint is up to date" in world.said
    assert "demo-dev-api is up to date" in world.said
    assert "is already stored" in world.said


def inner_state(world: World) -> dict[str, Any]:
    """State that would differ if anything had been changed."""
    formation = world.client("cloudformation")
    pages = formation.get_paginator("list_stack_resources")
    return {
        "resources": [
            (item["PhysicalResourceId"], item["LastUpdatedTimestamp"])
            for stack in ("demo-dev-endpoint", "demo-dev-api")
            for page in pages.paginate(StackName=stack)
            for item in page["StackResourceSummaries"]
        ],
        "change sets": [
            item["Status"]
            for stack in ("demo-dev-endpoint", "demo-dev-api")
            for item in formation.list_change_sets(StackName=stack)["Summaries"]
        ],
        "objects": [
            item["Key"]
            for item in world.client("s3").list_objects_v2(Bucket=bucket(world))["Contents"]
        ],
    }


def bucket(world: World) -> str:
    return f"fdeploy-{world.account}-{world.region}"


def test_an_update_never_interrupts_the_service(
    world: World, model: Model, other_model: Model
) -> None:
    endpoint, api = up(world, model)
    before = world.client("sagemaker").describe_endpoint(EndpointName="demo-dev")
    stop = threading.Event()
    versions: list[str] = []
    failures: list[str] = []

    def ask() -> None:
        target = world.target()
        try:
            while not stop.is_set():
                answer = target.invoke(endpoint, {"text": "a good film"})
                versions.append(answer["model"]["version"])
        except InvocationError as error:
            failures.append(error.message)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        updated, same_api = up(world, other_model)
    finally:
        stop.set()
        asking.join()
    assert failures == []
    assert versions[0] == endpoint.version
    assert versions[-1] == updated.version
    assert versions == sorted(versions, key=versions.index)  # once new, never old again
    assert (same_api.url, updated.name) == (api.url, endpoint.name)

    sagemaker = world.client("sagemaker")
    after = sagemaker.describe_endpoint(EndpointName="demo-dev")
    assert after["EndpointConfigName"] != before["EndpointConfigName"]
    assert len(sagemaker.list_models()["Models"]) == 1
    assert len(sagemaker.list_endpoint_configs()["EndpointConfigs"]) == 1


def test_the_users_tags_reach_what_is_in_the_stacks(world: World, model: Model) -> None:
    """They are tags of the stack; the templates have only fdeploy's own tags."""
    world.flags = {("project", "tags"): {"team": "nlp"}}
    up(world, model)
    function = world.client("lambda").get_function(FunctionName="demo-dev-api")
    assert function["Tags"].items() >= {"team": "nlp", "fdeploy:project": "demo"}.items()
    sagemaker = world.client("sagemaker")
    arn = sagemaker.describe_endpoint(EndpointName="demo-dev")["EndpointArn"]
    tags = {each["Key"]: each["Value"] for each in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
    assert tags.items() >= {"team": "nlp", "fdeploy:stage": "dev"}.items()


def test_another_instance_while_it_is_autoscaled(world: World, model: Model) -> None:
    """SageMaker refuses that, so autoscaling is paused for the update."""
    world.flags = {("endpoint", "max_instances"): 3}
    up(world, model)
    world.flags = {**world.flags, ("endpoint", "instance"): "ml.c6i.large"}
    endpoint, _ = up(world, model)
    assert "pausing autoscaling" in world.said
    config = world.client("sagemaker").list_endpoint_configs()["EndpointConfigs"][0]
    described = world.client("sagemaker").describe_endpoint_config(
        EndpointConfigName=config["EndpointConfigName"]
    )
    assert described["ProductionVariants"][0]["InstanceType"] == "ml.c6i.large"
    scaling = world.client("application-autoscaling")
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert target["MaxCapacity"] == 3
    assert target["ResourceId"] == f"endpoint/{endpoint.name}/variant/main"


def test_two_stages_stand_side_by_side(world: World, model: Model, tmp_path: Path) -> None:
    up(world, model)
    prod = World(world.double, tmp_path / "prod", account=world.account, stage="prod")
    prod.root.mkdir()
    endpoint, api = up(prod, model)
    assert endpoint.name == "demo-prod"
    assert world.target().teardown(artifacts=True).left == ()
    # The other stage still has everything it needs, and serves.
    assert prod.target().call_api(api, {"text": "no"})["model"]["version"] == endpoint.version
    target = prod.target()
    target.deploy(target.upload(model.artifact), model.verify)
    assert prod.target().teardown(artifacts=True).left == ()
    assert prod.everything() == []


KINDS: list[dict[tuple[str, str], Any]] = [
    {("endpoint", "kind"): "serverless", ("api", "type"): "http", ("api", "auth"): "none"},
    {("endpoint", "max_instances"): 3, ("endpoint", "instance"): "ml.c7g.large"},
    {("endpoint", "instance_count"): 2, ("endpoint", "canary"): True},
    {("endpoint", "instance"): "ml.p2.xlarge"},
    {("project", "ttl"): "4h", ("api", "type"): "http", ("api", "auth"): "iam"},
]


@pytest.mark.parametrize("flags", KINDS, ids=lambda flags: json.dumps(list(flags.values())))
def test_every_kind_of_stage_comes_and_goes(
    world: World, model: Model, flags: dict[tuple[str, str], Any]
) -> None:
    world.flags = flags
    _, api = up(world, model)
    answer = world.target().call_api(api, {"text": "a great film"})
    assert answer["model"]["version"] == model.artifact.version
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


@pytest.mark.parametrize(
    ("key", "arn"),
    [
        (("project", "kms_key"), KMS_KEY.replace("eu-central-1", "us-east-1")),
        (("project", "alarm_topic"), "arn:aws:sns:us-east-1:123456789012:alarms"),
        (("api", "certificate"), "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d"),
    ],
)
def test_what_is_of_another_region_is_refused_before_anything_is_made(
    world: World, model: Model, key: tuple[str, str], arn: str
) -> None:
    world.flags = {key: arn}
    if key == ("api", "certificate"):
        world.flags["api", "domain"] = "api.example.com"
    target = world.target()
    stored = target.upload(model.artifact)
    with pytest.raises(SettingsError, match=r"is in us-east-1, and the stage in eu-central-1"):
        target.create_api(target.deploy(stored, model.verify), model.verify)
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


def test_an_api_that_an_asynchronous_endpoint_leaves_behind_is_told(
    world: World, model: Model
) -> None:
    up(world, model)
    world.flags = {("endpoint", "kind"): "async"}
    target = world.target()
    target.deploy(target.upload(model.artifact), model.verify)
    assert "demo-dev-api stays, because no API can ask an asynchronous endpoint" in world.said
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


def test_an_asynchronous_endpoint_answers_through_s3(world: World, model: Model) -> None:
    world.flags = {
        ("endpoint", "kind"): "async",
        ("endpoint", "scale_to_zero"): True,
        ("endpoint", "max_instances"): 2,
        ("endpoint", "data_retention"): 5,
        ("project", "kms_key"): KMS_KEY,
    }
    target = world.target()
    endpoint = target.deploy(target.upload(model.artifact), model.verify)
    assert endpoint.name == "demo-dev-async"
    s3, folder = world.client("s3"), "fdeploy/demo/stages/dev/async"
    found = s3.list_objects_v2(Bucket=bucket(world), Prefix=f"{folder}/input/")["Contents"]
    head = s3.head_object(Bucket=bucket(world), Key=found[0]["Key"])
    assert head["SSEKMSKeyId"] == KMS_KEY
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket(world))["Rules"]
    expiry = {rule["ID"]: rule["Expiration"].get("Days") for rule in rules}
    assert expiry == {"what nobody reads any more": None, folder: 5}
    answer = target.invoke(endpoint, {"texts": ["a great film", "no"]})
    assert [item["model"]["version"] for item in answer] == [endpoint.version] * 2
    with pytest.raises(InvocationError, match="invalid_request"):
        target.invoke(endpoint, {"txt": "a"})
    proof = world.target().teardown()
    assert any(thing.startswith("data s3://") for thing in proof.deleted)
    assert proof.left == ()
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=bucket(world))["Rules"]) == 1
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []

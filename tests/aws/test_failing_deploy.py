"""Deploys that fail: the previous version still serves, and the error has the reason."""

from __future__ import annotations

from typing import Any

import pytest

from fastai_deploy.errors import (
    AwsError,
    AwsMissing,
    AwsQuota,
    DeployError,
    FileMissing,
    NoAnswer,
    ParityError,
    StackFailed,
)
from fastai_deploy.parity import Invoke
from fastai_deploy.records import Endpoint
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.packaged import Model, pack
from tests.runtime.bundles import write_bundle


@pytest.fixture(scope="module")
def sick_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with wrong goldens, so that the server's own check fails and it does not start."""
    folder = tmp_path_factory.mktemp("sick")
    bundle = write_bundle(folder / "sick", layers=1)
    wrong = {"negative": 1.0, "neutral": 0.0, "positive": 0.0}
    bundle.write_goldens([{"text": "no", "probabilities": wrong, "source": "rebuilt"}])
    return pack(bundle, folder / "sick.tar.gz")


def deploy(world: World, model: Model) -> str:
    target = world.target()
    return target.deploy(target.upload(model.artifact), model.verify).version


def stack_status(world: World) -> str:
    found = world.client("cloudformation").describe_stacks(StackName="demo-dev-endpoint")
    return str(found["Stacks"][0]["StackStatus"])


def test_a_model_that_does_not_start_tells_its_last_words(world: World, sick_model: Model) -> None:
    with pytest.raises(StackFailed) as failed:
        deploy(world, sick_model)
    message = failed.value.message
    assert "did not pass the ping health check" in message
    assert "the last lines of its log:" in message
    assert "refused" in message
    assert "likely cause: the model gives different answers" in message
    assert stack_status(world) == "ROLLBACK_COMPLETE"
    assert world.client("sagemaker").list_endpoints()["Endpoints"] == []


def test_a_failed_first_deploy_does_not_stand_in_the_way(
    world: World, sick_model: Model, model: Model
) -> None:
    with pytest.raises(StackFailed):
        deploy(world, sick_model)
    assert deploy(world, model) == model.artifact.version
    assert "deleting its remains" in world.said


def test_a_failed_update_leaves_the_version_before(
    world: World, sick_model: Model, model: Model
) -> None:
    deploy(world, model)
    with pytest.raises(StackFailed, match="ping health check"):
        deploy(world, sick_model)
    assert stack_status(world) == "UPDATE_ROLLBACK_COMPLETE"
    serves(world, model)
    assert deploy(world, model) == model.artifact.version


def test_an_update_that_fails_in_silence_is_noticed(
    world: World, sick_model: Model, model: Model
) -> None:
    deploy(world, model)
    world.double.behave(world.account, silent_update=True)
    with pytest.raises(DeployError, match="instead of"):
        deploy(world, sick_model)
    assert "restoring the previous state" in world.said
    serves(world, model)


def serves(world: World, model: Model) -> None:
    endpoint = Endpoint("aws", "demo-dev", "", "", "")
    model.verify(lambda request: world.target().invoke(endpoint, request))


def test_a_model_that_answers_otherwise_is_taken_back(
    world: World, model: Model, other_model: Model
) -> None:
    deploy(world, model)
    target = world.target()

    def content_with_nothing(_invoke: Invoke) -> None:
        raise ParityError("a golden is answered otherwise", hint="none")

    stored = target.upload(other_model.artifact)
    with pytest.raises(ParityError, match="a golden is answered otherwise"):
        target.deploy(stored, content_with_nothing)
    serves(world, model)
    tags = world.client("cloudformation").describe_stacks(StackName="demo-dev-endpoint")
    assert {"Key": "fdeploy:version", "Value": model.artifact.version} in tags["Stacks"][0]["Tags"]


def test_a_first_model_that_answers_otherwise_leaves_nothing_that_costs(
    world: World, model: Model
) -> None:
    target = world.target()
    stored = target.upload(model.artifact)

    def content_with_nothing(_invoke: Invoke) -> None:
        raise ParityError("a golden is answered otherwise", hint="none")

    with pytest.raises(ParityError):
        target.deploy(stored, content_with_nothing)
    assert all("bucket" in thing for thing in world.everything())


def test_a_lost_connection_takes_nothing_back(world: World, model: Model) -> None:
    target = world.target()
    stored = target.upload(model.artifact)
    fault = Fault("lost", service="sagemaker", operation="InvokeEndpoint")
    world.double.do_wrong(world.account, fault)
    with pytest.raises(NoAnswer):
        target.deploy(stored, model.verify)
    world.double.do_wrong(world.account)
    assert stack_status(world) == "CREATE_COMPLETE"
    assert "could not be verified" in world.said
    assert world.target().deploy(stored, model.verify).version == model.artifact.version


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        (
            {"quota": {"ml.m5.large": 1}, "used": {"ml.m5.large": 1}},
            "the account's quota for this instance type is exhausted",
        ),
        ({"no_capacity": True}, "AWS currently has no capacity"),
    ],
    ids=["quota", "capacity"],
)
def test_what_aws_does_not_give(
    world: World, model: Model, behaviour: dict[str, Any], cause: str
) -> None:
    world.double.behave(world.account, **behaviour)
    with pytest.raises(StackFailed, match=f"likely cause: {cause}"):
        deploy(world, model)


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (
            {"quota": {"ml.m5.large": 0}},
            AwsQuota,
            "is 0 .*, and the settings need 1",
        ),
        ({"missing_images": ["serve-ml-sagemaker-cpu-v1"]}, AwsMissing, "does not exist"),
    ],
    ids=["quota", "image"],
)
def test_what_can_never_be_is_not_begun(
    world: World, model: Model, behaviour: dict[str, Any], kind: type[AwsError], words: str
) -> None:
    world.double.behave(world.account, **behaviour)
    with pytest.raises(kind, match=words):
        deploy(world, model)
    assert world.everything() == [f"bucket fdeploy-{world.account}-{world.region}"]
    world.double.behave(world.account, quota={}, missing_images=[])
    assert deploy(world, model) == model.artifact.version


def test_an_artifact_that_was_deleted_is_named(world: World, model: Model) -> None:
    target = world.target()
    stored = target.upload(model.artifact)
    bucket, _, key = stored.uri.removeprefix("s3://").partition("/")
    world.client("s3").delete_object(Bucket=bucket, Key=key)
    with pytest.raises(FileMissing, match="is gone"):
        target.deploy(stored, model.verify)


def test_an_update_needs_a_quota_for_the_old_and_the_new_instances(
    world: World, model: Model, other_model: Model
) -> None:
    world.double.behave(world.account, quota={"ml.m5.large": 3})
    world.flags = {("endpoint", "instance_count"): 2}
    deploy(world, model)
    assert deploy(world, model) == model.artifact.version, "which starts no instance"
    with pytest.raises(AwsQuota, match=r"is 3 .*, 2 of them in use, .* need 2 beside") as no:
        deploy(world, other_model)
    assert "set rolling = true in [endpoint], which needs only 1 more" in no.value.hint
    more = "request-service-quota-increase --service-code sagemaker --quota-code L-"
    assert more in no.value.hint
    assert "--desired-value 4 --region eu-central-1" in no.value.hint
    assert "https://eu-central-1.console.aws.amazon.com/servicequotas/" in no.value.hint
    serves(world, model)
    world.flags[("endpoint", "rolling")] = True
    assert deploy(world, other_model) == other_model.artifact.version


GROUP = "/aws/sagemaker/Endpoints/demo-dev"
DELETE = f"aws logs delete-log-group --log-group-name {GROUP} --region eu-central-1"


def test_a_log_group_that_an_earlier_endpoint_left_is_adopted(world: World, model: Model) -> None:
    logs = world.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="from before")
    assert deploy(world, model) == model.artifact.version
    assert DELETE in world.said
    (group,) = logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]
    assert group["retentionInDays"] == 30
    streams = logs.describe_log_streams(logGroupName=GROUP)["logStreams"]
    assert "from before" in {stream["logStreamName"] for stream in streams}
    deploy(world, model)
    assert "demo-dev-endpoint is up to date" in world.said
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


@pytest.mark.parametrize("tags", [{"fdeploy:project": "other"}, {"team": "payments"}])
def test_a_log_group_of_somebody_else_is_named(
    world: World, model: Model, tags: dict[str, str]
) -> None:
    logs = world.client("logs")
    logs.create_log_group(logGroupName=GROUP, tags=tags)
    with pytest.raises(DeployError, match=r"LogGroup: .*already exists") as refused:
        deploy(world, model)
    assert DELETE in refused.value.hint

    world.double.do_wrong(world.account, Fault("deny", operation="DescribeEvents"))
    with pytest.raises(DeployError, match="EarlyValidation") as unnamed:
        deploy(world, model)
    assert "cloudformation:DescribeEvents" in unnamed.value.hint
    world.double.do_wrong(world.account)
    logs.delete_log_group(logGroupName=GROUP)
    assert deploy(world, model) == model.artifact.version

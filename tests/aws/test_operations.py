"""The operations commands: plan, status, logs, versions, rollback, doctor."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.errors import FileMissing, UsageError
from fastai_deploy.records import Endpoint
from fastai_deploy.stage_reports import Check
from fastai_deploy.targets.aws.operations import AwsOperations
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.registry import digest
from tests.packaged import Model, of_earlier_version

HOUR = timedelta(hours=1)


def care(world: World) -> AwsOperations:
    return AwsOperations(world.target())


def deploy(world: World, model: Model) -> Endpoint:
    target = world.target()
    return target.deploy(target.upload(model.artifact), model.verify)


def test_a_plan_before_anything_is_there(world: World, model: Model) -> None:
    plan = care(world).plan(model.artifact)
    assert plan.changed
    assert {change.action for change in plan.changes} == {"add"}
    assert {change.stack for change in plan.changes} == {"demo-dev-endpoint", "demo-dev-api"}
    assert not any(change.interrupts for change in plan.changes)
    assert plan.cost.least_per_hour is None  # the double has no price list, so unknown, not 0
    assert world.everything() == []


def test_a_plan_of_an_update_interrupts_nothing(
    world: World, model: Model, other_model: Model
) -> None:
    endpoint = deploy(world, model)
    target = world.target()
    target.create_api(endpoint, model.verify)
    assert care(world).plan(model.artifact).changes == ()
    plan = care(world).plan(other_model.artifact)
    actions = {change.name: change.action for change in plan.changes}
    assert actions["Model"] == actions["EndpointConfig"] == "replace"
    assert actions["Endpoint"] == "change"
    assert not any(change.interrupts for change in plan.changes)
    world.flags = {("endpoint", "kind"): "serverless"}
    moved = care(world).plan(model.artifact)
    assert [change.name for change in moved.changes if change.interrupts] == ["Endpoint"]


def test_status_says_what_is_unproven(world: World, model: Model, other_model: Model) -> None:
    unproven = replace(model, artifact=replace(model.artifact, unproven=True))
    deploy(world, unproven)
    assert care(world).status().unproven
    assert care(world).plan(unproven.artifact).changes[0].stack == "demo-dev-api"
    deploy(world, other_model)
    assert not care(world).status().unproven


def test_status(world: World, model: Model) -> None:
    empty = care(world).status()
    assert (empty.parts, empty.endpoint, empty.version, empty.url) == ((), "", "", "")
    endpoint = deploy(world, model)
    target = world.target()
    api = target.create_api(endpoint, model.verify)
    found = care(world).status()
    assert [line.name for line in found.parts] == ["demo-dev-endpoint", "demo-dev-api"]
    assert (found.endpoint, found.endpoint_status) == ("demo-dev", "InService")
    assert found.version == model.artifact.version
    assert found.instances == 1
    assert found.url == api.url
    assert found.bill.per_hour is None
    assert found.bill.note


def test_what_it_costs_is_told_where_aws_says_it(world: World, model: Model) -> None:
    # This region's price list is in eu-central-1, like the stage itself.
    world.double.behave(world.account, price={"ml.m5.large": "0.1380000000"})
    deploy(world, model)
    bill = care(world).status().bill
    assert bill.per_hour == Decimal("0.138")
    assert bill.so_far == Decimal("0.00")
    cost = care(world).plan(model.artifact).cost
    assert cost.least_per_hour == Decimal("0.138")
    assert cost.least_per_month == Decimal("100.74")


def test_the_last_hour_is_counted(world: World, model: Model) -> None:
    deploy(world, model)
    dimensions = [
        {"Name": "EndpointName", "Value": "demo-dev"},
        {"Name": "VariantName", "Value": "main"},
    ]
    values = {"Invocations": 12, "Invocation4XXErrors": 2, "ModelLatency": 8_000}
    world.client("cloudwatch").put_metric_data(
        Namespace="AWS/SageMaker",
        MetricData=[
            {"MetricName": name, "Dimensions": dimensions, "Value": value}
            for name, value in values.items()
        ],
    )
    hour = care(world).status().last_hour
    assert (hour.invocations, hour.errors) == (12, 2)
    assert hour.p95_ms == pytest.approx(8.0)


def test_logs_of_the_endpoint_and_of_the_api(world: World, model: Model) -> None:
    endpoint = deploy(world, model)
    target = world.target()
    assert list(care(world).logs(api=True, since=HOUR, follow=False)) == []
    target.create_api(endpoint, model.verify)
    lines = list(care(world).logs(api=False, since=HOUR, follow=False))
    assert any('"ready"' in line.message for line in lines)
    assert lines[0].stream.startswith("main/")
    requests = list(care(world).logs(api=True, since=HOUR, follow=False))
    assert any('"/classify"' in line.message for line in requests)
    assert [line.at for line in requests] == sorted(line.at for line in requests)


def test_following_tells_each_line_once(world: World) -> None:
    logs: Any = world.client("logs")
    group = "/aws/sagemaker/Endpoints/demo-dev"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    context = world.target().context
    now = context.aws.now()

    def write(message: str) -> None:
        event = {"timestamp": int(context.aws.now().timestamp() * 1000), "message": message}
        logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=[event])

    write("one")
    lines = care(world).logs(api=False, since=HOUR, follow=True)
    assert next(lines).message == "one"
    write("two")
    assert next(lines).message == "two"
    write("three")
    third = next(lines)
    assert third.message == "three"
    assert third.at >= now - timedelta(seconds=1)


def test_back_to_the_version_before(world: World, model: Model, other_model: Model) -> None:
    world.flags = {("project", "ttl"): "4h"}
    deploy(world, model)
    deploy(world, other_model)
    ends = care(world).status().ends
    world.flags = {}  # as if --ttl had been given to deploy only
    listed = care(world).versions()
    assert [(item.version, item.live) for item in listed] == [
        (other_model.artifact.version, True),
        (model.artifact.version, False),
    ]
    assert listed[0].by == "ada on laptop"
    endpoint = care(world).rollback(None)
    assert endpoint.version == model.artifact.version
    assert care(world).status().ends == ends != ""
    model.verify(lambda request: world.target().invoke(endpoint, request))
    assert [item.live for item in care(world).versions()] == [True, False]
    assert care(world).rollback(other_model.artifact.version[:6]).version == (
        other_model.artifact.version
    )


def test_back_to_an_artifact_of_an_earlier_version(
    world: World, model: Model, other_model: Model, tmp_path: Path
) -> None:
    """AWS's adapter must not be sent to a server that the old artifact does not start."""
    old = of_earlier_version(other_model, tmp_path / "old.tar.gz")
    deploy(world, old)
    deploy(world, model)
    endpoint = care(world).rollback(None)
    assert endpoint.version == old.artifact.version
    old.verify(lambda request: world.target().invoke(endpoint, request))
    assert care(world).rollback(None).version == model.artifact.version


def test_rollbacks_that_cannot_be(world: World, model: Model, other_model: Model) -> None:
    with pytest.raises(UsageError, match="nothing is deployed"):
        care(world).rollback(None)
    endpoint = deploy(world, model)
    with pytest.raises(UsageError, match=f"no version to go back to: only {endpoint.version}"):
        care(world).rollback(None)
    with pytest.raises(UsageError, match="version ffff was never deployed") as refused:
        care(world).rollback("ffff")
    assert endpoint.version in refused.value.hint
    deploy(world, other_model)
    bucket = f"fdeploy-{world.account}-{world.region}"
    key = f"fdeploy/demo/models/{model.artifact.sha256}/model.tar.gz"
    world.client("s3").delete_object(Bucket=bucket, Key=key)
    with pytest.raises(FileMissing, match="is gone"):
        care(world).rollback(None)


def examined(world: World, model: Model) -> dict[str, Check]:
    return {check.name: check for check in care(world).doctor(model.artifact).checks}


def test_a_doctor_without_findings(world: World, model: Model) -> None:
    checks = examined(world, model)
    assert checks["credentials"].outcome == "passed"
    assert world.account in checks["credentials"].message
    assert checks["bucket"].message.startswith("the first upload will create")
    assert checks["stack demo-dev-endpoint"].outcome == "passed"
    assert world.everything() == []


def test_the_policies_name_the_bucket(world: World) -> None:
    documents = care(world).policies().documents
    assert f"fdeploy-{world.account}-{world.region}" in json.dumps(documents)


def test_what_a_doctor_finds(world: World, model: Model) -> None:
    world.double.behave(world.account, quota={"ml.m5.large": 0})
    world.flags = {("project", "bucket"): f"none-{world.account}"}
    world.client("cloudformation").create_stack(
        StackName="demo-dev-api",
        TemplateBody='{"Resources": {"G": {"Type": "AWS::Logs::LogGroup"}}}',
    )
    checks = examined(world, model)
    assert checks["bucket"].outcome == "failed"
    assert checks["stack demo-dev-api"].outcome == "failed"
    assert "its tags do not mark it" in checks["stack demo-dev-api"].message
    assert checks["quota"].outcome == "failed"
    assert "quota is 0 ml.m5.large" in checks["quota"].message


def test_instances_that_autoscaling_leaves_are_planned_priced_and_set(
    world: World, model: Model
) -> None:
    world.double.behave(world.account, price={"ml.m5.large": "0.1"})
    world.flags = {("endpoint.scaling", "max_instances"): 6}
    deploy(world, model)
    sagemaker = world.client("sagemaker")
    sagemaker.update_endpoint_weights_and_capacities(  # as autoscaling does
        EndpointName="demo-dev",
        DesiredWeightsAndCapacities=[{"VariantName": "main", "DesiredInstanceCount": 4}],
    )

    def instances() -> int:
        (variant,) = sagemaker.describe_endpoint(EndpointName="demo-dev")["ProductionVariants"]
        return int(variant["CurrentInstanceCount"])

    deploy(world, model)
    assert instances() == 4, "autoscaling decides"
    world.flags = {}
    plan = care(world).plan(model.artifact)
    assert ("instances: 4 to 1",) in [change.properties for change in plan.changes]
    now = plan.cost.extras[0]
    assert (now.what, now.per_month) == ("now", Decimal(292))
    deploy(world, model)
    assert instances() == 1
    assert care(world).plan(model.artifact).cost.extras[0].what != "now"


def test_the_image_is_the_build_that_was_proven(
    world: World, model: Model, other_model: Model
) -> None:
    tag = "serve-ml-sagemaker-cpu-v1"
    first, second = (digest("ray", tag, patch) for patch in (0, 1))

    def image() -> str:
        stack = world.client("cloudformation").describe_stacks(StackName="demo-dev-endpoint")
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Stacks"][0]["Outputs"]}
        return str(outputs["Image"])

    deploy(world, model)
    assert image() == f"763104351884.dkr.ecr.eu-central-1.amazonaws.com/ray@{first}"
    plan = care(world).plan(model.artifact)
    assert {change.stack for change in plan.changes} == {"demo-dev-api"}
    world.double.behave(world.account, image_patch=1)
    patched = care(world).plan(model.artifact)
    assert "SageMaker::Model" in {change.type for change in patched.changes}
    assert not any(change.interrupts for change in patched.changes)
    assert f"AWS has patched the image since: {second} instead of {first}" in world.said

    deploy(world, other_model)
    assert image().endswith(second)
    care(world).rollback(None)
    assert image().endswith(first), "as the version before was proven"


def test_an_image_whose_digest_may_not_be_read_is_named_by_its_tag(
    world: World, model: Model
) -> None:
    world.double.do_wrong(world.account, Fault("deny", service="ecr", operation="BatchGetImage"))
    deploy(world, model)
    assert "the image is named by its tag" in world.said
    stack = world.client("cloudformation").describe_stacks(StackName="demo-dev-endpoint")
    assert any(
        each["OutputValue"].endswith("/ray:serve-ml-sagemaker-cpu-v1")
        for each in stack["Stacks"][0]["Outputs"]
    )

"""The endpoint's stack: least privilege, no interruption, no leftovers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastai_deploy.aws.specs import EndpointSpec, Location
from fastai_deploy.aws.templates import render
from tests.aws_templates.scenarios import (
    BUCKET,
    ENDPOINTS,
    endpoint_of,
    of_type,
    section,
    settings_of,
)

Json = Any


def spec_of(toml: str) -> EndpointSpec:
    return endpoint_of(settings_of(section("endpoint", toml)))


def endpoint_template(spec: EndpointSpec) -> Json:
    """The stack of a spec, as a template without parameters."""
    return render.endpoint_template(spec).evaluated()


def template(name: str) -> Json:
    return endpoint_template(spec_of(ENDPOINTS[name]))


def only(document: Json, kind: str) -> Json:
    (found,) = of_type(document, kind)
    return found["Properties"]


def statements(document: Json) -> dict[str, Json]:
    (policy,) = only(document, "AWS::IAM::Role")["Policies"]
    return {item["Sid"]: item for item in policy["PolicyDocument"]["Statement"]}


def text(arn: Json) -> str:
    return str(arn["Fn::Sub"]) if isinstance(arn, dict) else str(arn)


def test_the_role_reads_this_artifact_and_this_image_and_no_other() -> None:
    allowed = statements(template("real-time-cpu"))
    assert set(allowed) == {"Artifact", "Image", "Registry", "Logs", "Metrics", "Rollback"}
    assert allowed["Artifact"]["Action"] == ["s3:GetObject"]
    spec = spec_of("")
    assert text(allowed["Artifact"]["Resource"]) == (
        f"arn:${{AWS::Partition}}:s3:::{BUCKET}/{spec.model.artifact.key}"
    )
    assert text(allowed["Image"]["Resource"]).endswith(":763104351884:repository/ray")
    assert text(allowed["Logs"]["Resource"]).endswith(":/aws/sagemaker/Endpoints/demo-dev:*")
    everywhere = [sid for sid, item in allowed.items() if item["Resource"] == "*"]
    assert everywhere == ["Registry", "Metrics"], "for which AWS knows no narrower resource"


@pytest.mark.parametrize("name", ENDPOINTS)
def test_no_permission_is_wider_than_it_must_be(name: str) -> None:
    for sid, item in statements(template(name)).items():
        assert not any("*" in action for action in item["Action"]), sid
        wide = item["Resource"] == "*" and not item.get("Condition")
        assert not wide or sid in {"Registry", "SeeVpc"}, sid


def test_only_sagemaker_of_this_account_becomes_the_role() -> None:
    (trust,) = only(template("real-time-cpu"), "AWS::IAM::Role")["AssumeRolePolicyDocument"][
        "Statement"
    ]
    assert trust["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    source = text(trust["Condition"]["ArnLike"]["aws:SourceArn"])
    assert "${AWS::AccountId}" in source


def test_writing_is_allowed_only_where_data_is_kept() -> None:
    assert "s3:PutObject" not in str(statements(template("real-time-cpu")))
    capture = statements(template("vpc-kms"))["Capture"]
    assert text(capture["Resource"]).endswith("/fdeploy/demo/stages/dev/captured/*")
    queue = statements(template("async"))["Queue"]
    assert text(queue["Resource"]).endswith("/fdeploy/demo/stages/dev/async/*")


def test_the_model_runs_without_a_network() -> None:
    for name in ENDPOINTS:
        isolated = only(template(name), "AWS::SageMaker::Model")["EnableNetworkIsolation"]
        assert isolated is (name != "serverless"), "which does not support it"
    assert not only(
        endpoint_template(spec_of("network_isolation = false\n")), "AWS::SageMaker::Model"
    )["EnableNetworkIsolation"]


def test_a_key_of_the_users_is_used_for_all_that_is_kept() -> None:
    document = template("vpc-kms")
    key = spec_of(ENDPOINTS["vpc-kms"]).common.kms_key
    config = only(document, "AWS::SageMaker::EndpointConfig")
    assert config["KmsKeyId"] == config["DataCaptureConfig"]["KmsKeyId"] == key
    assert only(document, "AWS::Logs::LogGroup")["KmsKeyId"] == key
    assert {item["Resource"] for item in statements(document).values() if "Key" in item["Sid"]} == {
        key
    }


def test_gpu_and_kinds_reach_the_variant() -> None:
    def variant(name: str) -> Json:
        return only(template(name), "AWS::SageMaker::EndpointConfig")["ProductionVariants"][0]

    assert variant("real-time-gpu")["InferenceAmiVersion"].endswith("gpu-3-1")
    assert "InferenceAmiVersion" not in variant("real-time-cpu")
    assert "InferenceAmiVersion" not in variant("p2")
    assert variant("serverless")["ServerlessConfig"] == {
        "MemorySizeInMB": 4096,
        "MaxConcurrency": 10,
        "ProvisionedConcurrency": 2,
    }
    assert "InstanceType" not in variant("serverless")
    assert variant("vpc-kms")["ContainerStartupHealthCheckTimeoutInSeconds"] == 900
    queue = only(template("async"), "AWS::SageMaker::EndpointConfig")["AsyncInferenceConfig"]
    assert queue["OutputConfig"]["S3OutputPath"] == (
        f"s3://{BUCKET}/fdeploy/demo/stages/dev/async/output"
    )


# Updates without interruption


def versions() -> tuple[Json, Json]:
    before = spec_of("")
    model = replace(before.model, artifact=Location(BUCKET, "another"))
    return endpoint_template(before), endpoint_template(replace(before, model=model, version="2"))


def test_another_artifact_makes_new_parts_and_keeps_the_endpoint() -> None:
    before, after = versions()
    for kind, name in (("Model", "ModelName"), ("EndpointConfig", "EndpointConfigName")):
        names = {only(one, f"AWS::SageMaker::{kind}")[name] for one in (before, after)}
        assert len(names) == 2, "so that the new one can be made while the old one is there"
    paths = {only(one, "AWS::IAM::Role")["Path"] for one in (before, after)}
    assert len(paths) == 2, "so that what runs may go on reading its own artifact"
    names = {only(one, "AWS::SageMaker::Endpoint")["EndpointName"] for one in (before, after)}
    assert len(names) == 1


@pytest.mark.parametrize(
    ("toml", "model", "config"),
    [
        ('instance = "ml.m5.xlarge"\n', False, True),
        ("startup_timeout = 900\n", False, True),
        ('server = "torchserve"\n', True, True),
        ("network_isolation = false\n", True, True),
        ("alarm_latency = 100\n", False, False),
        ("bake = 0\n", False, False),
    ],
)
def test_what_cannot_change_gets_a_new_name_when_it_does(
    toml: str,
    model: bool,  # noqa: FBT001
    config: bool,  # noqa: FBT001
) -> None:
    before, after = endpoint_template(spec_of("")), endpoint_template(spec_of(toml))
    for kind, changes in (("Model", model), ("EndpointConfig", config)):
        names = {one["Outputs"][f"{kind}Name"]["Value"] for one in (before, after)}
        assert (len(names) == 2) is changes, kind


def test_tags_change_no_names() -> None:
    before = spec_of("")
    after = replace(before, common=replace(before.common, tags=(("team", "nlp"),)))
    outputs = [endpoint_template(one)["Outputs"] for one in (before, after)]
    assert outputs[0]["EndpointConfigName"] == outputs[1]["EndpointConfigName"]


def test_an_update_is_blue_green_and_goes_back_by_itself() -> None:
    document = template("real-time-cpu")
    deployment = only(document, "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    assert deployment["BlueGreenUpdatePolicy"] == {
        "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE"},
        "TerminationWaitInSeconds": 180,
    }
    watched = [alarm["AlarmName"] for alarm in deployment["AutoRollbackConfiguration"]["Alarms"]]
    assert watched == [{"Ref": "NewErrorsAlarm"}, {"Ref": "NewLatencyAlarm"}]


def test_the_alarms_that_take_back_look_at_the_new_version_alone() -> None:
    """Otherwise a version in alarm could never be replaced."""
    before, after = versions()
    names = set()
    for document in (before, after):
        config = document["Outputs"]["EndpointConfigName"]["Value"]
        for logical in ("NewErrorsAlarm", "NewLatencyAlarm"):
            alarm = document["Resources"][logical]["Properties"]
            names.add(alarm["AlarmName"])
            assert {"Name": "EndpointConfigName", "Value": config} in alarm["Dimensions"]
            assert alarm["TreatMissingData"] == "notBreaching"
    assert len(names) == 4, "a new alarm, which has not been on yet"


def test_a_canary_and_nobody_watching() -> None:
    canary = only(template("vpc-kms"), "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    routing = canary["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["CanarySize"] == {"Type": "INSTANCE_COUNT", "Value": 1}
    unwatched = template("autoscaling")
    config = only(unwatched, "AWS::SageMaker::Endpoint")["DeploymentConfig"]
    assert "AutoRollbackConfiguration" not in config
    assert "NewErrorsAlarm" not in unwatched["Resources"]
    assert "DeploymentConfig" not in only(template("serverless"), "AWS::SageMaker::Endpoint")


# Order, alarms, logs


def test_what_is_needed_is_made_first_and_removed_last() -> None:
    resources = template("autoscaling")["Resources"]
    assert resources["EndpointConfig"]["DependsOn"] == ["Model"]
    assert resources["Endpoint"]["DependsOn"] == ["EndpointConfig", "LogGroup"]
    assert resources["ScalableTarget"]["DependsOn"] == ["Endpoint"]
    assert resources["LogGroup"]["DeletionPolicy"] == "Delete"


@pytest.mark.parametrize("name", ENDPOINTS)
def test_alarms_ask_for_metrics_that_the_kind_has(name: str) -> None:
    document = template(name)
    kind = document["Outputs"]["Kind"]["Value"]
    alarms = of_type(document, "AWS::CloudWatch::Alarm")
    measured = {alarm["Properties"]["MetricName"] for alarm in alarms}
    assert {"Invocation5XXErrors", "ModelLatency"} <= measured
    assert ("Invocations" in measured) is (kind == "real-time")
    assert ("HasBacklogWithoutCapacity" in measured) is (kind == "async")
    for alarm in alarms:
        dimensions = {item["Name"] for item in alarm["Properties"]["Dimensions"]}
        assert "VariantName" in dimensions or kind == "async"


def test_a_forgotten_endpoint_is_told_of_by_silence() -> None:
    alarm = template("real-time-cpu")["Resources"]["IdleAlarm"]["Properties"]
    assert (alarm["Period"], alarm["EvaluationPeriods"]) == (3_600, 24)
    assert alarm["TreatMissingData"] == "breaching"
    assert alarm["WarmUpConfiguration"] == {"WarmUpPeriodDurationInMinutes": 60}
    assert "IdleAlarm" not in endpoint_template(spec_of("alarm_idle = 0\n"))["Resources"]


def test_an_alarm_never_looks_back_longer_than_cloudwatch_can() -> None:
    """EvaluationPeriods times Period: a day, or 7 days with periods of an hour or more."""
    document = endpoint_template(spec_of("alarm_idle = 168\n"))
    for alarm in of_type(document, "AWS::CloudWatch::Alarm"):
        period = alarm["Properties"]["Period"]
        seconds = period * alarm["Properties"]["EvaluationPeriods"]
        assert seconds <= (7 * 86_400 if period >= 3_600 else 86_400)


def test_alarms_tell_the_topic_that_is_named() -> None:
    for alarm in of_type(template("vpc-kms"), "AWS::CloudWatch::Alarm"):
        assert alarm["Properties"]["AlarmActions"] == alarm["Properties"]["OKActions"]
    for alarm in of_type(template("real-time-cpu"), "AWS::CloudWatch::Alarm"):
        assert "AlarmActions" not in alarm["Properties"]


def test_a_scaled_to_zero_endpoint_wakes_up() -> None:
    document = template("async")
    assert only(document, "AWS::ApplicationAutoScaling::ScalableTarget")["MinCapacity"] == 0
    alarm = document["Resources"]["WakeUpAlarm"]["Properties"]
    assert alarm["AlarmActions"] == [{"Ref": "WakeUpPolicy"}]

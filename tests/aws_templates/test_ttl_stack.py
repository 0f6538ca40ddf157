"""The stage deletes itself on time, with a role that may delete nothing else."""

from __future__ import annotations

import json
from typing import Any

from fastai_deploy.aws.templates.render import expiry_template
from fastai_deploy.aws.wanted import ttl_spec
from tests.aws_templates.linting import schema
from tests.aws_templates.scenarios import (
    ENDS,
    KMS_KEY,
    SHA256,
    TOPIC,
    goldens,
    of_type,
    settings_of,
)

Json = Any
# What a handler may call besides, for properties that the templates do not use.
UNUSED = {
    "ec2:DescribeNetworkInterfaces": "the function is in no VPC",
    "iam:TagRole": "a role is not tagged while it is deleted",
    "iam:UntagRole": "likewise",
    "logs:DeleteDataProtectionPolicy": "the log groups have none",
}


def template(more: str = "") -> Json:
    settings = settings_of(f"[project]\nname = 'demo'\nregion = 'eu-central-1'\nttl = '4h'\n{more}")
    return expiry_template(ttl_spec(settings, version=SHA256, ends=ENDS)).evaluated()


def statements(more: str = "") -> dict[str, Json]:
    (role,) = of_type(template(more), "AWS::IAM::Role")
    (policy,) = role["Properties"]["Policies"]
    return {item["Sid"]: item for item in policy["PolicyDocument"]["Statement"]}


def test_both_stacks_are_deleted_at_the_time() -> None:
    schedules = [item["Properties"] for item in of_type(template(), "AWS::Scheduler::Schedule")]
    assert {item["ScheduleExpression"] for item in schedules} == {"at(2026-11-22T16:00:00)"}
    assert {item["ScheduleExpressionTimezone"] for item in schedules} == {"UTC"}
    stacks = {json.loads(item["Target"]["Input"])["StackName"] for item in schedules}
    assert stacks == {"demo-dev-api", "demo-dev-endpoint"}
    assert {item["Target"]["Arn"]["Fn::Sub"] for item in schedules} == {
        "arn:${AWS::Partition}:scheduler:::aws-sdk:cloudformation:deleteStack"
    }
    assert template()["Outputs"]["Ends"]["Value"] == "2026-11-22T16:00:00Z"


def test_the_role_deletes_these_two_stacks_and_only_through_them_what_is_in_them() -> None:
    allowed = statements()
    assert [arn["Fn::Sub"].rpartition(":stack/")[2] for arn in allowed["Stacks"]["Resource"]] == [
        "demo-dev-api/*",
        "demo-dev-endpoint/*",
    ]
    for sid, item in allowed.items():
        if sid == "Stacks":
            # Not before a minute before its time, so that a retry cannot end a later deploy.
            assert item["Condition"] == {
                "DateGreaterThan": {"aws:CurrentTime": "2026-11-22T15:59:00Z"}
            }
        else:
            called = item["Condition"]["ForAnyValue:StringEquals"]["aws:CalledVia"]
            assert called == "cloudformation.amazonaws.com"
        assert not any("*" in action for action in item["Action"])


def test_a_schedule_with_a_key_of_ones_own_is_read_by_its_role() -> None:
    assert "Key" not in statements()
    key = statements(f"kms_key = '{KMS_KEY}'\n")["Key"]
    assert (key["Action"], key["Resource"]) == (["kms:Decrypt"], KMS_KEY)


def test_an_invocation_that_scheduler_gives_up_is_an_alarm() -> None:
    (alarm,) = of_type(template(f"alarm_topic = '{TOPIC}'\n"), "AWS::CloudWatch::Alarm")
    assert alarm["Properties"]["MetricName"] == "InvocationDroppedCount"
    assert alarm["Properties"]["AlarmActions"] == [TOPIC]


def test_only_the_schedules_of_this_stage_become_the_role() -> None:
    (role,) = of_type(template(), "AWS::IAM::Role")
    (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    source = trust["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"]
    assert source.endswith(":schedule-group/demo-dev-ttl")


def test_the_role_may_do_all_that_cloudformation_does_to_delete_the_stacks() -> None:
    """By the permissions of the delete handlers in CloudFormation's registry."""
    granted = {action for item in statements().values() for action in item["Action"]}
    for golden in goldens():
        if not golden.name.startswith(("endpoint-", "api-")):
            continue
        for kind in {item["Type"] for item in golden.document["Resources"].values()}:
            needed = set(schema(kind).get("handlers", {}).get("delete", {}).get("permissions", []))
            assert needed - granted - set(UNUSED) - {"s3:getObject"} == set(), kind

"""The stack ``<project>-<stage>-ttl``: when its time is up, the other two delete themselves.

EventBridge Scheduler calls DeleteStack with a role that may delete those two stacks, and with them
what is in them and nothing else. It is a stack of its own because a role cannot delete itself; it
costs nothing, and teardown removes it.

Sources: "Using universal targets" and "Confused deputy prevention" in the EventBridge Scheduler
user guide; the permissions are those of the ``delete`` handlers in CloudFormation's registry.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from fastai_deploy.aws.template.intrinsics import (
    Json,
    Resource,
    Resources,
    arn,
    attribute,
    ref,
    resource,
    sub,
    tags,
    template,
)
from fastai_deploy.aws.template.roles import service_role, statement
from fastai_deploy.aws.template.spec import TtlSpec
from fastai_deploy.naming import (
    access_log_group,
    alarm_name,
    api_stack,
    endpoint_log_group,
    endpoint_stack,
    function_log_group,
    function_name,
    role_path,
    ttl_stack,
)

_ROLE, _GROUP = "TtlRole", "TtlGroup"
_RETRIES = 20
_RETRY_SECONDS = 21_600  # a stack that is being updated refuses to be deleted until it is done


def ttl_template(spec: TtlSpec) -> Json:
    """The template of the stack that ends a stage."""
    owner = spec.common.owner
    group = ttl_stack(owner.project, owner.stage)
    stacks = {
        "EndApi": api_stack(owner.project, owner.stage),
        "EndEndpoint": endpoint_stack(owner.project, owner.stage),
    }
    resources: Resources = {
        _GROUP: resource(
            "AWS::Scheduler::ScheduleGroup",
            {"Name": group, "Tags": tags(spec.common, spec.version)},
        ),
        _ROLE: service_role(
            spec.common,
            spec.version,
            service="scheduler.amazonaws.com",
            source=arn("scheduler", f"schedule-group/{group}"),
            statements=_statements(spec, list(stacks.values())),
            description=f"Deletes the stacks of {owner.project}, stage {owner.stage}",
        ),
        **{name: _schedule(spec, stack) for name, stack in stacks.items()},
    }
    return template(
        f"fdeploy: the end of {owner.project}, stage {owner.stage}",
        resources,
        {"Ends": f"{spec.ends:%Y-%m-%dT%H:%M:%SZ}", "ScheduleGroupName": group},
    )


def _schedule(spec: TtlSpec, stack: str) -> Resource:
    return resource(
        "AWS::Scheduler::Schedule",
        {
            "Name": stack,
            "GroupName": ref(_GROUP),
            "Description": f"Deletes the stack {stack}",
            "ScheduleExpression": f"at({spec.ends:%Y-%m-%dT%H:%M:%S})",
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "KmsKeyArn": spec.common.kms_key,
            "Target": {
                "Arn": sub("arn:${AWS::Partition}:scheduler:::aws-sdk:cloudformation:deleteStack"),
                "RoleArn": attribute(_ROLE, "Arn"),
                "Input": json.dumps({"StackName": stack}),
                "RetryPolicy": {
                    "MaximumRetryAttempts": _RETRIES,
                    "MaximumEventAgeInSeconds": _RETRY_SECONDS,
                },
            },
        },
    )


def _statements(spec: TtlSpec, stacks: Sequence[str]) -> list[Json]:
    """CloudFormation deletes with the permissions of who asks it to."""
    project, stage = spec.common.owner.project, spec.common.owner.stage
    through_stacks = {"ForAnyValue:StringEquals": {"aws:CalledVia": "cloudformation.amazonaws.com"}}
    name = f"{project}-{stage}"
    groups = [
        endpoint_log_group(spec.endpoint),
        function_log_group(function_name(project, stage)),
        access_log_group(project, stage),
    ]
    own_alarms = arn("cloudwatch", f"alarm:{alarm_name(project, stage, '*')}")
    parts: list[tuple[str, list[str], Json]] = [
        (
            "Endpoint",
            ["sagemaker:DeleteEndpoint", "sagemaker:DescribeEndpoint"],
            arn("sagemaker", f"endpoint/{spec.endpoint}"),
        ),
        (
            "Configs",
            ["sagemaker:DeleteEndpointConfig", "sagemaker:DescribeEndpointConfig"],
            arn("sagemaker", f"endpoint-config/{name}-*"),
        ),
        (
            "Models",
            ["sagemaker:DeleteModel", "sagemaker:DescribeModel"],
            arn("sagemaker", f"model/{name}-*"),
        ),
        (
            "Roles",
            [
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
            ],
            arn("iam", f"role{role_path(project, stage)}*", region=""),
        ),
        (
            "Logs",
            ["logs:DeleteLogGroup"],
            [arn("logs", f"log-group:{group}:*") for group in groups],
        ),
        ("Alarms", ["cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms"], own_alarms),
        (
            "Dashboard",
            ["cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard"],
            arn("cloudwatch", f"dashboard/{name}", region=""),
        ),
        (
            "Function",
            ["lambda:DeleteFunction", "lambda:GetFunction", "lambda:RemovePermission"],
            arn("lambda", f"function:{function_name(project, stage)}"),
        ),
        (
            "Api",
            [
                "apigateway:DELETE",
                "apigateway:GET",
                "apigateway:PATCH",
                "apigateway:RemoveCertificateFromDomain",
            ],
            [
                sub(f"arn:${{AWS::Partition}}:apigateway:${{AWS::Region}}::/{path}")
                for path in ("apikeys/*", "apis/*", "domainnames/*", "restapis/*", "usageplans/*")
            ],
        ),
        (
            "Scaling",
            [
                "application-autoscaling:DeleteScalingPolicy",
                "application-autoscaling:DeregisterScalableTarget",
            ],
            arn("application-autoscaling", "scalable-target/*"),
        ),
        (
            "Look",
            [
                "application-autoscaling:DescribeScalableTargets",
                "application-autoscaling:DescribeScalingPolicies",
                "logs:DescribeLogGroups",
            ],
            "*",
        ),
    ]
    stack_arns = [arn("cloudformation", f"stack/{stack}/*") for stack in stacks]
    return [
        statement("Stacks", ["cloudformation:DeleteStack"], stack_arns),
        *(statement(sid, actions, what, through_stacks) for sid, actions, what in parts),
    ]

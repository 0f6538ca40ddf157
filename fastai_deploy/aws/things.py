"""What an inventory counts: a kind and a name, the same whether found by name, tag or stack."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastai_deploy.aws.stacks import Resource

_ARN = re.compile(r"arn:[^:]+:([^:]*):[^:]*:[^:]*:(.+)")
# The resource part of an ARN, by service: what it is, and where its name stands.
# Source: "Actions, resources, and condition keys" of each service.
_PARTS: tuple[tuple[str, str, str], ...] = (
    ("sagemaker", r"endpoint/(.+)", "endpoint"),
    ("sagemaker", r"endpoint-config/(.+)", "endpoint configuration"),
    ("sagemaker", r"model/(.+)", "model"),
    ("lambda", r"function:([^:]+)(?::.*)?", "function"),
    ("logs", r"log-group:(.+?)(?::\*)?", "log group"),
    ("apigateway", r"/restapis/([^/]+)", "REST API"),
    ("apigateway", r"/restapis/([^/]+/stages/.+)", "API stage"),
    ("apigateway", r"/apis/([^/]+)", "HTTP API"),
    ("apigateway", r"/apis/([^/]+/stages/.+)", "API stage"),
    ("apigateway", r"/apikeys/(.+)", "API key"),
    ("apigateway", r"/usageplans/(.+)", "usage plan"),
    ("apigateway", r"/domainnames/([^/]+)", "domain name"),
    ("cloudwatch", r"alarm:(.+)", "alarm"),
    ("cloudwatch", r"dashboard/(.+)", "dashboard"),
    ("cloudformation", r"stack/([^/]+)/.+", "stack"),
    ("iam", r"role/(?:.+/)?([^/]+)", "role"),
    ("scheduler", r"schedule/(.+)", "schedule"),
    ("scheduler", r"schedule-group/(.+)", "schedule group"),
    ("s3", r"([^/]+)", "bucket"),
)
_TYPES = {
    "AWS::ApiGateway::ApiKey": "API key",
    "AWS::ApiGateway::DomainName": "domain name",
    "AWS::ApiGateway::RestApi": "REST API",
    "AWS::ApiGateway::UsagePlan": "usage plan",
    "AWS::ApiGatewayV2::Api": "HTTP API",
    "AWS::ApiGatewayV2::DomainName": "domain name",
    "AWS::CloudFormation::Stack": "stack",
    "AWS::CloudWatch::Alarm": "alarm",
    "AWS::CloudWatch::Dashboard": "dashboard",
    "AWS::IAM::Role": "role",
    "AWS::Lambda::Function": "function",
    "AWS::Logs::LogGroup": "log group",
    "AWS::SageMaker::Endpoint": "endpoint",
    "AWS::SageMaker::EndpointConfig": "endpoint configuration",
    "AWS::SageMaker::Model": "model",
    "AWS::Scheduler::Schedule": "schedule",
    "AWS::Scheduler::ScheduleGroup": "schedule group",
}


@dataclass(frozen=True, order=True)
class Thing:
    """Something that exists in the account."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def of_arn(arn: str) -> Thing:
    """The thing of an ARN; one of an unknown kind is named by its ARN."""
    match = _ARN.fullmatch(arn)
    if match:
        service, resource = match.groups()
        for of_service, pattern, kind in _PARTS:
            found = re.fullmatch(pattern, resource) if of_service == service else None
            if found:
                return Thing(kind, found[1])
    return Thing("resource", arn)


def of_resource(resource: Resource) -> Thing:
    """The thing of a stack's resource."""
    if resource.physical_id.startswith("arn:"):
        found = of_arn(resource.physical_id)
        if found.kind != "resource":
            return found
    kind = _TYPES.get(resource.type, resource.type.removeprefix("AWS::"))
    return Thing(kind, resource.physical_id)

"""Everything in an account of the double, according to the services' own lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3

SCALING = "sagemaker"


def everything(session: boto3.Session) -> list[str]:
    """The account's resources, one line each; an unused account has none."""
    return sorted(_everything(session))


def _everything(session: Any) -> Iterator[str]:
    for stack in session.client("cloudformation").list_stacks()["StackSummaries"]:
        if stack["StackStatus"] != "DELETE_COMPLETE":
            yield f"stack {stack['StackName']} {stack['StackStatus']}"
    yield from _stored(session)
    yield from _served(session.client("sagemaker"))
    yield from _called(session)
    yield from _watched(session)
    scaling = session.client("application-autoscaling")
    for target in scaling.describe_scalable_targets(ServiceNamespace=SCALING)["ScalableTargets"]:
        yield f"scalable target {target['ResourceId']}"
    for policy in scaling.describe_scaling_policies(ServiceNamespace=SCALING)["ScalingPolicies"]:
        yield f"scaling policy {policy['PolicyName']}"
    iam = session.client("iam")
    for role in iam.list_roles()["Roles"]:
        yield f"role {role['RoleName']}"
    for policy in iam.list_policies(Scope="Local")["Policies"]:
        yield f"policy {policy['PolicyName']}"
    scheduler = session.client("scheduler")
    for schedule in scheduler.list_schedules()["Schedules"]:
        yield f"schedule {schedule['Name']}"
    for group in scheduler.list_schedule_groups()["ScheduleGroups"]:
        if group["Name"] != "default":  # every account has that one
            yield f"schedule group {group['Name']}"


def _stored(session: Any) -> Iterator[str]:
    for repository in session.client("ecr").describe_repositories()["repositories"]:
        yield f"repository {repository['repositoryName']}"
    s3 = session.client("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        yield f"bucket {bucket['Name']}"
        for upload in s3.list_multipart_uploads(Bucket=bucket["Name"]).get("Uploads", []):
            yield f"unfinished upload {upload['Key']}"


def _served(sagemaker: Any) -> Iterator[str]:
    for endpoint in sagemaker.list_endpoints()["Endpoints"]:
        yield f"endpoint {endpoint['EndpointName']} {endpoint['EndpointStatus']}"
    for config in sagemaker.list_endpoint_configs()["EndpointConfigs"]:
        yield f"endpoint configuration {config['EndpointConfigName']}"
    for model in sagemaker.list_models()["Models"]:
        yield f"model {model['ModelName']}"


def _called(session: Any) -> Iterator[str]:
    for function in session.client("lambda").list_functions()["Functions"]:
        yield f"function {function['FunctionName']}"
    gateway = session.client("apigateway")
    for api in gateway.get_rest_apis()["items"]:
        yield f"REST API {api['name']}"
    for key in gateway.get_api_keys()["items"]:
        yield f"API key {key['id']}"
    for domain in gateway.get_domain_names()["items"]:
        yield f"domain name {domain['domainName']}"
    for plan in gateway.get_usage_plans()["items"]:
        yield f"usage plan {plan['id']}"
    for api in session.client("apigatewayv2").get_apis()["Items"]:
        yield f"HTTP API {api['Name']}"


def _watched(session: Any) -> Iterator[str]:
    for group in session.client("logs").describe_log_groups()["logGroups"]:
        yield f"log group {group['logGroupName']}"
    watch = session.client("cloudwatch")
    for alarm in watch.describe_alarms()["MetricAlarms"]:
        yield f"alarm {alarm['AlarmName']}"
    for dashboard in watch.list_dashboards()["DashboardEntries"]:
        yield f"dashboard {dashboard['DashboardName']}"

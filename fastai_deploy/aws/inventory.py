"""Finds the AWS resources of a stage by stack, name and tag."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastai_deploy import naming
from fastai_deploy.aws.bucket import Bucket, object_versions
from fastai_deploy.aws.log_groups import log_group_tags
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import (
    Resource,
    Stack,
    find_stack,
    first_of,
    is_of,
    resources,
)
from fastai_deploy.errors import AwsDenied, AwsError, AwsMissing, DeployError
from fastai_deploy.naming import project_folder, stage_folder

_REGION = re.compile(r"arn:[^:\"]+:[^:\"]+:([a-z0-9-]+):")  # the region in an ARN
_ARN = re.compile(r"arn:[^:]+:([^:]*):[^:]*:[^:]*:(.+)")
# Patterns for the resource part of an ARN, by service, with the kind; the group is the name.
# Source: "Actions, resources, and condition keys" of each service.
_PARTS: tuple[tuple[str, str, str], ...] = (
    ("sagemaker", r"endpoint/(.+)", "endpoint"),
    ("sagemaker", r"endpoint-config/(.+)", "endpoint configuration"),
    ("sagemaker", r"model/(.+)", "model"),
    ("sagemaker", r"transform-job/(.+)", "transform job"),
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
    "AWS::Lambda::Alias": "function",
    "AWS::Lambda::Function": "function",
    "AWS::Lambda::Url": "function URL",
    "AWS::Lambda::Version": "function",
    "AWS::Logs::LogGroup": "log group",
    "AWS::SageMaker::Endpoint": "endpoint",
    "AWS::SageMaker::EndpointConfig": "endpoint configuration",
    "AWS::SageMaker::Model": "model",
    "AWS::Scheduler::Schedule": "schedule",
    "AWS::Scheduler::ScheduleGroup": "schedule group",
}


@dataclass(frozen=True, order=True)
class ResourceRef:
    """A resource that exists in the account."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def of_arn(arn: str) -> ResourceRef:
    """The resource of an ARN; one of an unknown kind is named by its ARN."""
    match = _ARN.fullmatch(arn)
    if match:
        service, resource = match.groups()
        for of_service, pattern, kind in _PARTS:
            found = re.fullmatch(pattern, resource) if of_service == service else None
            if found:
                return ResourceRef(kind, found[1])
    return ResourceRef("resource", arn)


def of_resource(resource: Resource) -> ResourceRef:
    """The reference to a stack's resource."""
    if resource.physical_id.startswith("arn:"):
        found = of_arn(resource.physical_id)
        if found.kind != "resource":
            return found
    kind = _TYPES.get(resource.type, resource.type.removeprefix("AWS::"))
    return ResourceRef(kind, resource.physical_id)


# Without one of these, a stage does not serve; anything else comes back with the next change.
_SERVING = frozenset(
    (
        *("endpoint", "endpoint configuration", "model", "function", "alias", "role"),
        *("REST API", "HTTP API", "API stage", "API key", "usage plan"),
    )
)
_API_OF_STAGE = {
    "AWS::ApiGateway::Stage": "AWS::ApiGateway::RestApi",
    "AWS::ApiGatewayV2::Stage": "AWS::ApiGatewayV2::Api",
}


def _serving(resource: Resource, stack: list[Resource]) -> ResourceRef | None:
    """A resource that its stack needs to serve, as the inventory looks for it; None for others."""
    ref = of_resource(resource)
    api = first_of(stack, _API_OF_STAGE.get(resource.type, ""))
    if api is not None:
        ref = ResourceRef("API stage", f"{api.physical_id}/stages/{resource.physical_id}")
    elif resource.type == "AWS::Lambda::Alias":
        ref = ResourceRef("alias", resource.physical_id.rpartition(":function:")[2])
    return ref if ref.kind in _SERVING and resource.physical_id else None


_VERSION = re.compile(r"/deployments/[^/]*-([0-9a-f]{12})\.json$")
_ARTIFACT = re.compile(r"/models/([0-9a-f]{12})")
# See naming.artifact_key and code_key. Nothing else there is fdeploy's.
_SHARED = re.compile(r"/(models/[0-9a-f]{64}/model\.tar\.gz|lambda/[0-9a-f]{64}\.zip)$")

RUNNING_JOBS = ("InProgress", "Stopping")
"""The states of a transform job that costs something."""

Versioned = tuple[str, str]  # an object's key and version


def data_of(aws: Aws, bucket: Bucket, owner: Owner) -> Iterator[Versioned]:
    """All objects under the stage's own prefix. Raises AwsError."""
    return object_versions(aws, bucket, stage_folder(owner.project, owner.stage))


def artifacts_of(aws: Aws, bucket: Bucket, owner: Owner) -> list[Versioned]:
    """The project's artifacts and Lambda packages that no other stage needs. Raises AwsError."""
    own = stage_folder(owner.project, owner.stage)
    stages = stage_folder(owner.project, "")[:-1]
    shared: list[Versioned] = []
    needed: set[str] = set()
    others = False
    for key, version in object_versions(aws, bucket, project_folder(owner.project)):
        if not key.startswith(stages):
            if _SHARED.search(key):
                shared.append((key, version))
        elif not key.startswith(own):
            others = True
            needed.update(_VERSION.findall(key))
    return [(key, version) for key, version in shared if not _is_needed(key, needed, others=others)]


def _is_needed(key: str, needed: set[str], *, others: bool) -> bool:
    artifact = _ARTIFACT.search(key)
    # A Lambda package is named by its hash, not a version: it is deleted with the last stage.
    return artifact[1] in needed if artifact else others


MAKE_AGAIN = "run fdeploy teardown, then fdeploy up"
"""The way out after something was deleted by hand, which CloudFormation does not notice."""
KINDS = ("real-time", "serverless", "async")  # of SageMaker


@dataclass(frozen=True)
class Names:
    """The resources of a stage whose names are known."""

    project: str
    stage: str

    @property
    def stacks(self) -> tuple[str, ...]:
        """The stacks, in the order of their deletion."""
        return (
            naming.ttl_stack(self.project, self.stage),
            naming.api_stack(self.project, self.stage),
            naming.batch_stack(self.project, self.stage),
            naming.endpoint_stack(self.project, self.stage),
            naming.function_stack(self.project, self.stage),
        )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoint of each kind."""
        return tuple(naming.endpoint_name(self.project, self.stage, kind) for kind in KINDS)


class Inventory:
    """Finds the resources of one owner."""

    def __init__(self, aws: Aws, owner: Owner) -> None:
        self._aws = aws
        self._owner = owner
        self.names = Names(owner.project, owner.stage)
        self._looks: Mapping[str, Callable[[str], Any]] = {
            "endpoint": lambda name: self._ask("sagemaker", "describe_endpoint", EndpointName=name),
            "endpoint configuration": lambda name: self._ask(
                "sagemaker", "describe_endpoint_config", EndpointConfigName=name
            ),
            "model": lambda name: self._ask("sagemaker", "describe_model", ModelName=name),
            "transform job": self._running_job,
            "function": lambda name: self._ask("lambda", "get_function", FunctionName=name),
            "alias": self._alias,
            "log group": self._log_group,
            "REST API": lambda name: self._ask("apigateway", "get_rest_api", restApiId=name),
            "HTTP API": lambda name: self._ask("apigatewayv2", "get_api", ApiId=name),
            "API stage": self._stage,
            "API key": lambda name: self._ask("apigateway", "get_api_key", apiKey=name),
            "usage plan": lambda name: self._ask("apigateway", "get_usage_plan", usagePlanId=name),
            # REST and HTTP APIs share domain names; either service lists both.
            "domain name": lambda name: self._ask("apigateway", "get_domain_name", domainName=name),
            "alarm": lambda name: self._ask("cloudwatch", "describe_alarms", AlarmNames=[name])[
                "MetricAlarms"
            ],
            "stack": lambda name: find_stack(self._aws, name),
            "schedule group": lambda name: self._ask("scheduler", "get_schedule_group", Name=name),
            "role": lambda name: self._ask("iam", "get_role", RoleName=name),
        }

    def everything(self) -> list[ResourceRef]:
        """All resources, including those of the stacks. Raises AwsError."""
        return sorted({*self._of_stacks(), *self.outside()})

    def outside(self) -> list[ResourceRef]:
        """All resources found without the stacks, to verify that nothing is left of them."""
        return sorted({*self._by_name(), *self._by_tag()})

    def gone(self, stack: Stack) -> list[ResourceRef]:
        """What a stack needs to serve and has no more, because somebody deleted it by hand.

        CloudFormation does not notice. What the caller may not look at counts as there. Raises
        AwsError.
        """
        found = resources(self._aws, stack)
        wanted = {ref for each in found if (ref := _serving(each, found))}
        return [ref for ref in sorted(wanted) if self._is_gone(ref)]

    def require_whole(self, stack: Stack) -> None:
        """Raise DeployError if something is gone that a stack needs to serve."""
        gone = self.gone(stack)
        if gone:
            raise DeployError(
                f"somebody has deleted {', '.join(map(str, gone))} of the stack {stack.name}",
                hint=MAKE_AGAIN,
            )

    def _is_gone(self, ref: ResourceRef) -> bool:
        try:
            return not self._looks[ref.kind](ref.name)
        except AwsDenied:
            return False

    def _of_stacks(self) -> Iterator[ResourceRef]:
        for name in self.names.stacks:
            stack = find_stack(self._aws, name)
            if stack is not None and self._owner.owns(stack.tags):
                for resource in resources(self._aws, stack):
                    if resource.physical_id:
                        yield of_resource(resource)

    def _by_name(self) -> Iterator[ResourceRef]:
        for name in self.names.stacks:
            stack = find_stack(self._aws, name)
            if stack is not None and is_of(self._owner, stack):
                yield ResourceRef("stack", name)
        for name in self.names.endpoints:
            yield from self._endpoint(name)
        yield from self._versioned("list_models", "Models", "Model", "model")
        yield from self._versioned(
            "list_endpoint_configs", "EndpointConfigs", "EndpointConfig", "endpoint configuration"
        )
        yield from self.running_transforms()
        yield from self._function(naming.function_name(self._owner.project, self._owner.stage))
        yield from self._function(
            naming.endpoint_name(self._owner.project, self._owner.stage, "lambda")
        )
        yield from self._log_group_of(
            naming.access_log_group(self._owner.project, self._owner.stage)
        )
        path = naming.role_path(self._owner.project, self._owner.stage)
        for page in self._aws.pages("iam", "list_roles", PathPrefix=path):
            for role in page["Roles"]:
                if self._may_own_role(role["RoleName"]) and self._is_of_this_region(
                    role["RoleName"]
                ):
                    yield ResourceRef("role", role["RoleName"])

    def _may_own_role(self, role: str) -> bool:
        """Whether a role's tags are this stage's, or tell nothing.

        Stage ``c`` of project ``a-b`` and stage ``b-c`` of project ``a`` have the same path.
        """
        found = self._ask("iam", "get_role", RoleName=role)
        tags = found["Role"].get("Tags", []) if found else []
        return self._owner.may_own({tag["Key"]: tag["Value"] for tag in tags})

    def _is_of_this_region(self, role: str) -> bool:
        """Whether a role's policies name this region's resources, or none with a region.

        Roles are global, so those of the same stage in another region have the same path. Their
        tags do not tell: CloudFormation gives a role no ``aws:cloudformation:stack-id``. Source:
        aws-cloudformation/cloudformation-coverage-roadmap, issue 1159.
        """
        regions: set[str] = set()
        try:
            for page in self._aws.pages("iam", "list_role_policies", RoleName=role):
                for name in page["PolicyNames"]:
                    policy = self._aws.call(
                        "iam", "get_role_policy", RoleName=role, PolicyName=name
                    )
                    regions.update(_REGION.findall(json.dumps(policy["PolicyDocument"])))
        except AwsMissing:  # deleted meanwhile
            return False
        return not regions or self._aws.region in regions

    def _endpoint(self, name: str) -> Iterator[ResourceRef]:
        """An endpoint and its log group, unless the endpoint belongs to someone else."""
        found = self._ask("sagemaker", "describe_endpoint", EndpointName=name)
        if found and not self._is_ours(found["EndpointArn"]):
            return
        if found:
            yield ResourceRef("endpoint", name)
        yield from self._log_group_of(naming.endpoint_log_group(name))

    def _function(self, name: str) -> Iterator[ResourceRef]:
        """The Lambda and its log group, unless the Lambda belongs to someone else."""
        found = self._ask("lambda", "get_function", FunctionName=name)
        if found and not self._owner.owns(found.get("Tags", {})):
            return
        if found:
            yield ResourceRef("function", name)
        yield from self._log_group_of(naming.function_log_group(name))

    def _log_group_of(self, name: str) -> Iterator[ResourceRef]:
        """A log group of the stage's name, unless its tags are somebody else's."""
        try:
            if self._log_group(name) and self._owner.may_own(log_group_tags(self._aws, name)):
                yield ResourceRef("log group", name)
        except AwsMissing:  # deleted meanwhile
            return

    def _is_ours(self, arn: str) -> bool:
        """Whether a SageMaker resource has this stage's tags."""
        found = [
            tag
            for page in self._aws.pages("sagemaker", "list_tags", ResourceArn=arn)
            for tag in page["Tags"]
        ]
        return self._owner.owns({tag["Key"]: tag["Value"] for tag in found})

    def _by_tag(self) -> Iterator[ResourceRef]:
        filters = [{"Key": key, "Values": [value]} for key, value in self._owner.names.items()]
        for page in self._aws.pages(
            "resourcegroupstaggingapi", "get_resources", TagFilters=filters
        ):
            for item in page["ResourceTagMappingList"]:
                if self._owner.owns({tag["Key"]: tag["Value"] for tag in item["Tags"]}):
                    yield from self._if_there(of_arn(item["ResourceARN"]))

    def _versioned(self, operation: str, key: str, member: str, kind: str) -> Iterator[ResourceRef]:
        part = naming.versioned_name(self._owner.project, self._owner.stage, "")
        for page in self._aws.pages("sagemaker", operation, NameContains=part):
            for item in page[key]:
                name = item[f"{member}Name"]
                if self._is_versioned(name) and self._is_ours(item[f"{member}Arn"]):
                    yield ResourceRef(kind, name)

    def running_transforms(self) -> Iterator[ResourceRef]:
        """The batch transforms that run; those that have ended stay listed for ever.

        Raises AwsError.
        """
        part = f"{self._owner.project}-{self._owner.stage}-"
        own = re.compile(re.escape(part) + naming.TRANSFORM_RUN)
        for status in RUNNING_JOBS:
            for page in self._aws.pages(
                "sagemaker", "list_transform_jobs", NameContains=part, StatusEquals=status
            ):
                for item in page["TransformJobSummaries"]:
                    name = item["TransformJobName"]
                    if own.fullmatch(name) and self._is_ours(item["TransformJobArn"]):
                        yield ResourceRef("transform job", name)

    def _running_job(self, name: str) -> bool:
        found = self._ask("sagemaker", "describe_transform_job", TransformJobName=name)
        return found is not None and found["TransformJobStatus"] in RUNNING_JOBS

    def _is_versioned(self, name: str) -> bool:
        """Whether a name is that of this stage's models and endpoint configurations."""
        part = naming.versioned_name(self._owner.project, self._owner.stage, "")
        return re.fullmatch(re.escape(part) + "[0-9a-f]{12}", name) is not None

    def _if_there(self, ref: ResourceRef) -> Iterator[ResourceRef]:
        """The resource, unless AWS says it does not exist; kinds that cannot be queried count."""
        look = self._looks.get(ref.kind)
        if look is None or look(ref.name):
            yield ref

    def _ask(self, service: str, operation: str, **parameters: Any) -> Any:
        """The answer; None if the resource does not exist."""
        try:
            return self._aws.call(service, operation, **parameters)
        except AwsMissing:
            return None

    def _log_group(self, name: str) -> bool:
        answer = self._aws.call("logs", "describe_log_groups", logGroupNamePrefix=name)
        return any(group["logGroupName"] == name for group in answer["logGroups"])

    def _alias(self, name: str) -> Any:
        function, _, alias = name.partition(":")
        return self._ask("lambda", "get_alias", FunctionName=function, Name=alias)

    def _stage(self, name: str) -> Any:
        api, _, stage = name.partition("/stages/")
        try:
            found = self._ask("apigateway", "get_stage", restApiId=api, stageName=stage)
            return found or self._ask("apigatewayv2", "get_stage", ApiId=api, StageName=stage)
        except AwsError:  # apigatewayv2 refuses the ID of a REST API
            return None

"""The IAM policies that fdeploy's users need; they are printed to be copied.

    stacks           what fdeploy calls itself: CloudFormation, reading and deleting what is left
    endpoint, api    what CloudFormation calls for the user; valid only through CloudFormation
    data             artifacts, logs, requests to the endpoint, and what the checks look up
    bucket           creating and deleting fdeploy's own bucket
    images           the repository of the project's images in ECR, for fdeploy's own server

An account may demand more (``Roles``). A role for CloudFormation needs ``endpoint`` and ``api`` in
the caller's place. With a permissions boundary, roles can be made with that boundary only;
``boundary`` is what it must allow.

Sources: "Service Authorization Reference", "Forward access sessions" and ``aws:CalledVia`` (IAM),
"CloudFormation service role", and the permissions of the handlers in CloudFormation's registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastai_deploy.aws.specs import Roles
from fastai_deploy.naming import image_repository

Json = Any
VERSION = "2012-10-17"
# The size limit of a managed policy in characters, without white space (AWS: IAM quotas).
MAX_CHARACTERS = 6_144
CALLED_VIA = "aws:CalledVia"
_CLOUDFORMATION = "cloudformation.amazonaws.com"
_THROUGH_CLOUDFORMATION = {"ForAnyValue:StringEquals": {CALLED_VIA: _CLOUDFORMATION}}
# Log groups are named /aws/lambda/<project>-... and so on.
_LOGGING = ("sagemaker/Endpoints", "lambda", "apigateway")
_PSEUDO = re.compile(r"\$\{AWS::(\w+)\}")
# What deleting a stack takes, by service.
_ENDING = {
    "apigateway": "DELETE GET PATCH",
    "application-autoscaling": "DeleteScalingPolicy DeregisterScalableTarget "
    "DescribeScalableTargets DescribeScalingPolicies",
    "cloudwatch": "DeleteAlarms DeleteDashboards DescribeAlarms GetDashboard",
    "iam": "DeleteRole DeleteRolePolicy DetachRolePolicy GetRole GetRolePolicy "
    "ListAttachedRolePolicies ListRolePolicies",
    "lambda": "DeleteAlias DeleteFunction DeleteFunctionUrlConfig GetAlias GetFunction "
    "GetFunctionConfiguration RemovePermission",
    "logs": "DeleteLogGroup DescribeLogGroups",
    "sagemaker": "DeleteEndpoint DeleteEndpointConfig DeleteModel DescribeEndpoint "
    "DescribeEndpointConfig DescribeModel",
}
_OF_API = frozenset(("apigateway", "ec2", "lambda"))
_AUTOSCALING = "sagemaker.application-autoscaling.amazonaws.com"


@dataclass(frozen=True)
class Needs:
    """What the permissions are for.

    ``bucket_key`` is the KMS key of a bucket of the user's own. ``signs_requests``: the API's
    ``auth`` is ``iam``, which create-api verifies. ``makes_roles``: not every role is one of the
    user's own. ``own_image``: fdeploy's own image may serve.
    """

    project: str
    bucket: str
    partition: str = "aws"
    kms_key: str | None = None
    bucket_key: str | None = None
    signs_requests: bool = False
    roles: Roles = field(default_factory=Roles)
    makes_roles: bool = True
    own_image: bool = False

    @property
    def repository(self) -> str:
        """The repository of the project's images."""
        return self.arn(f"ecr:*:*:repository/{image_repository(self.project)}")

    def arn(self, rest: str) -> str:
        """An ARN of this partition."""
        return f"arn:{self.partition}:{rest}"


@dataclass(frozen=True)
class _Grant:
    """Actions on resources: those that fdeploy calls itself, and those that CloudFormation does."""

    service: str
    itself: str
    through: str
    resources: Json


def user_policies(needs: Needs) -> Mapping[str, Json]:
    """The caller's policy documents by name, for all stages of a project in any region."""
    documents = {"stacks": _document(_stacks(needs))}
    if needs.roles.cloudformation is None:
        documents["endpoint"] = _document(_called_through(needs, api=False))
        documents["api"] = _document(_called_through(needs, api=True))
    documents |= {"data": _document(_data(needs)), "bucket": _document([_bucket(needs)])}
    return {**documents, **({"images": _document(_images(needs))} if needs.own_image else {})}


def role_policies(needs: Needs) -> Mapping[str, Json]:
    """What the CloudFormation role and the permissions boundary must allow, if they are set."""
    documents = {}
    if needs.roles.cloudformation is not None:
        documents["cloudformation-role-endpoint"] = _document(_called_by_role(needs, api=False))
        documents["cloudformation-role-api"] = _document(_called_by_role(needs, api=True))
    if needs.roles.boundary is not None:
        documents["boundary"] = boundary(needs)
    return documents


def boundary(needs: Needs) -> Json:
    """What the roles that fdeploy makes may do at most, as a permissions boundary."""
    return _document(_within_boundary(needs))


def resolved(document: Json, *, account: str, region: str, partition: str) -> Json:
    """A policy in a template with values for the pseudo parameters, ready to copy."""
    values = {"AccountId": account, "Partition": partition, "Region": region}

    def value(part: Json) -> Json:
        if isinstance(part, list):
            return [value(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "Ref" in part:
            return values[part["Ref"].removeprefix("AWS::")]
        if "Fn::Sub" in part:
            return _PSEUDO.sub(lambda match: values[match[1]], part["Fn::Sub"])
        return {key: value(item) for key, item in part.items()}

    return value(document)


def _grants(needs: Needs) -> Iterator[_Grant]:
    """What the resources of the stacks take."""
    project, arn = needs.project, needs.arn
    yield _Grant(
        "sagemaker",
        "DeleteEndpoint DeleteEndpointConfig DeleteModel DescribeEndpoint DescribeEndpointConfig "
        "DescribeModel ListTags UpdateEndpointWeightsAndCapacities",
        "AddTags CreateEndpoint CreateEndpointConfig CreateModel DeleteTags UpdateEndpoint",
        [
            arn(f"sagemaker:*:*:{kind}/{project}-*")
            for kind in ("endpoint", "endpoint-config", "model")
        ],
    )
    yield _Grant(
        "iam",
        "GetRole GetRolePolicy ListRolePolicies",
        "DeleteRole DeleteRolePolicy DetachRolePolicy ListAttachedRolePolicies TagRole UntagRole "
        "UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription",
        _own_roles(needs),
    )
    yield _Grant(
        "lambda",
        "DeleteFunction GetAlias GetFunction GetFunctionConfiguration",
        "AddPermission CreateAlias CreateFunction CreateFunctionUrlConfig DeleteAlias "
        "DeleteFunctionConcurrency DeleteFunctionUrlConfig DeleteProvisionedConcurrencyConfig "
        "GetFunctionCodeSigningConfig GetFunctionRecursionConfig GetFunctionScalingConfig "
        "GetFunctionUrlConfig GetPolicy GetProvisionedConcurrencyConfig "
        "GetRuntimeManagementConfig ListTags ListVersionsByFunction PublishVersion "
        "PutFunctionConcurrency PutProvisionedConcurrencyConfig RemovePermission TagResource "
        "UntagResource UpdateAlias UpdateFunctionCode UpdateFunctionConfiguration "
        "UpdateFunctionUrlConfig",
        arn(f"lambda:*:*:function:{project}-*"),
    )
    # API Gateway makes the identifiers, so no ARN can name the project's own.
    yield _Grant(
        "apigateway",
        "GET",
        "DELETE PATCH POST PUT",
        [
            *(
                arn(f"apigateway:*::/{kind}{rest}")
                for kind in ("apikeys", "apis", "domainnames", "restapis", "usageplans")
                for rest in ("", "/*")
            ),
            arn("apigateway:*::/tags/*"),
        ],
    )
    yield _Grant(
        "logs",
        "AssociateKmsKey DeleteLogGroup ListTagsForResource PutRetentionPolicy",
        "CreateLogGroup DeleteRetentionPolicy DisassociateKmsKey GetDataProtectionPolicy "
        "TagResource UntagResource",
        _own_logs(needs),
    )
    yield _Grant(
        "cloudwatch",
        "DeleteAlarms DescribeAlarms",
        "ListTagsForResource PutMetricAlarm TagResource UntagResource",
        arn(f"cloudwatch:*:*:alarm:{project}-*"),
    )
    # Target tracking makes and deletes alarms of these names.
    yield _Grant(
        "cloudwatch",
        "",
        "DeleteAlarms DescribeAlarms PutMetricAlarm",
        arn(f"cloudwatch:*:*:alarm:TargetTracking-endpoint/{project}-*"),
    )
    yield _Grant(
        "cloudwatch",
        "",
        "DeleteDashboards GetDashboard ListTagsForResource PutDashboard TagResource UntagResource",
        arn(f"cloudwatch::*:dashboard/{project}-*"),
    )
    yield _Grant(
        "scheduler",
        "GetScheduleGroup",
        "CreateSchedule CreateScheduleGroup DeleteSchedule DeleteScheduleGroup GetSchedule "
        "ListTagsForResource TagResource UntagResource UpdateSchedule",
        [arn(f"scheduler:*:*:{kind}/{project}-*") for kind in ("schedule", "schedule-group")],
    )
    yield _Grant(
        "application-autoscaling",
        "",
        "DeleteScalingPolicy DeregisterScalableTarget ListTagsForResource PutScalingPolicy "
        "RegisterScalableTarget TagResource UntagResource",
        arn("application-autoscaling:*:*:scalable-target/*"),
    )
    # Actions that AWS cannot scope to a resource: listing, the network of a function, and the logs
    # of an HTTP API.
    yield _Grant(
        "ec2",
        "",
        "DescribeNetworkInterfaces DescribeSecurityGroups DescribeSubnets DescribeVpcs",
        "*",
    )
    yield _Grant(
        "application-autoscaling",
        "DescribeScalableTargets DescribeScalingPolicies",
        "DescribeScheduledActions",
        "*",
    )
    yield _Grant("cloudwatch", "GetMetricData", "", "*")
    yield _Grant(
        "logs",
        "DescribeLogGroups",
        "CreateLogDelivery DeleteLogDelivery DescribeIndexPolicies DescribeResourcePolicies "
        "GetLogDelivery ListLogDeliveries PutResourcePolicy UpdateLogDelivery",
        "*",
    )


def _stacks(needs: Needs) -> Iterator[Json]:
    project, roles = needs.project, needs.roles
    yield _allow(
        "cloudformation",
        "ContinueUpdateRollback CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet "
        "DescribeEvents DescribeStackEvents DescribeStacks ExecuteChangeSet GetTemplate "
        "ListStackResources RollbackStack UpdateTerminationProtection",
        needs.arn(f"cloudformation:*:*:stack/{project}-*/*"),
    )
    for grant in _grants(needs):
        if grant.itself:
            yield _allow(grant.service, grant.itself, grant.resources)
    given = sorted({role for role in (roles.execution, roles.function) if role})
    if roles.cloudformation is not None:
        given.append(roles.cloudformation)
        yield _pass_role(roles.cloudformation, ["cloudformation"])
    # The checks look whether they exist.
    if given:
        yield _allow("iam", "GetRole", given)
    if roles.boundary is not None:
        yield _allow("iam", "GetPolicy", roles.boundary)


def _called_through(needs: Needs, *, api: bool) -> Iterator[Json]:
    """What CloudFormation calls with the caller's permissions, for one of the two stacks."""
    for grant in _grants(needs):
        if grant.through and (grant.service in _OF_API) == api:
            yield _allow(grant.service, grant.through, grant.resources, _THROUGH_CLOUDFORMATION)
    if not api:
        yield from _roles(needs, _THROUGH_CLOUDFORMATION)


def _called_by_role(needs: Needs, *, api: bool) -> Iterator[Json]:
    """What CloudFormation calls in a role of its own; nothing else is valid for that role."""
    for grant in _grants(needs):
        if (grant.service in _OF_API) == api:
            actions = " ".join(sorted(f"{grant.itself} {grant.through}".split()))
            yield _allow(grant.service, actions, grant.resources)
    if not api:
        yield from _roles(needs, {})
        return
    stored = needs.arn(f"s3:::{needs.bucket}/fdeploy/{needs.project}/*")
    yield _allow("s3", "GetObject GetObjectVersion", stored)
    if needs.kms_key:
        yield _key(needs.kms_key)


def _roles(needs: Needs, condition: Json) -> Iterator[Json]:
    """Making the roles, with the boundary if there is one, and passing them on."""
    roles = needs.roles
    if needs.makes_roles:
        bound = condition
        if roles.boundary is not None:
            bound = {**condition, "StringEquals": {"iam:PermissionsBoundary": roles.boundary}}
        yield _allow("iam", "CreateRole PutRolePolicy", _own_roles(needs), bound)
        # IAM does not document that a passed role's request says who called the service.
        yield _pass_role(_own_roles(needs), ["sagemaker", "lambda", "scheduler"])
    if roles.execution is not None:
        yield _pass_role(roles.execution, ["sagemaker"])
    if roles.function is not None:
        yield _pass_role(roles.function, ["lambda"])
    yield _allow(
        "iam",
        "CreateServiceLinkedRole",
        needs.arn(f"iam::*:role/aws-service-role/{_AUTOSCALING}/*"),
        {"StringEquals": {"iam:AWSServiceName": _AUTOSCALING}},
    )


def _pass_role(roles: Json, services: list[str]) -> Json:
    passed = {"iam:PassedToService": [f"{service}.amazonaws.com" for service in services]}
    return _allow("iam", "PassRole", roles, {"StringEquals": passed})


def _data(needs: Needs) -> Iterator[Json]:
    bucket = needs.arn(f"s3:::{needs.bucket}")
    yield _allow(
        "s3",
        "ListBucket ListBucketMultipartUploads ListBucketVersions GetBucketTagging "
        "GetEncryptionConfiguration GetLifecycleConfiguration",
        bucket,
    )
    yield _allow(
        "s3",
        "AbortMultipartUpload DeleteObject DeleteObjectVersion GetObject GetObjectVersion "
        "ListMultipartUploadParts PutObject",
        f"{bucket}/fdeploy/{needs.project}/*",
    )
    yield _allow(
        "sagemaker",
        "InvokeEndpoint InvokeEndpointAsync",
        needs.arn(f"sagemaker:*:*:endpoint/{needs.project}-*"),
    )
    yield _allow(
        "lambda",
        "InvokeFunction InvokeFunctionUrl",
        needs.arn(f"lambda:*:*:function:{needs.project}-*"),
    )
    yield _allow("logs", "DescribeLogStreams FilterLogEvents GetLogEvents", _own_logs(needs))
    yield _allow(
        "sagemaker",
        "AddTags CreateTransformJob DescribeTransformJob ListTags StopTransformJob",
        needs.arn(f"sagemaker:*:*:transform-job/{needs.project}-*"),
    )
    yield _allow("logs", "FilterLogEvents", _transform_logs(needs))
    # To count the instances in use: the quota is the account's, and so are the others' endpoints.
    yield _allow(
        "sagemaker",
        "DescribeEndpoint DescribeEndpointConfig",
        [needs.arn(f"sagemaker:*:*:{kind}/*") for kind in ("endpoint", "endpoint-config")],
    )
    yield _allow("apigateway", "GET", needs.arn("apigateway:*::/account"))
    yield _allow("lambda", "GetAccountSettings ListLayers", "*")
    # To check that the image exists; the repositories belong to AWS.
    yield _allow("ecr", "BatchGetImage", needs.arn("ecr:*:*:repository/*"))
    # A teardown looks whether there are images of the project.
    yield _allow("ecr", "DescribeRepositories", needs.repository)
    if needs.signs_requests:
        yield _allow("execute-api", "Invoke", needs.arn("execute-api:*:*:*/POST/*"))
    # To simulate the caller's own policies; the documents do not know who the caller is.
    own = [needs.arn(f"iam::*:{kind}/*") for kind in ("role", "user")]
    yield _allow("iam", "SimulatePrincipalPolicy", own)
    if needs.kms_key:
        yield _key(needs.kms_key)
    if needs.bucket_key and needs.bucket_key != needs.kms_key:
        yield _allow("kms", "Decrypt DescribeKey GenerateDataKey", needs.bucket_key)
    yield _allow("iam", "ListRoles", "*")
    yield _allow("pricing", "GetProducts", "*")
    yield _allow("sagemaker", "ListEndpointConfigs ListEndpoints ListModels ListTransformJobs", "*")
    yield _allow("servicequotas", "ListAWSDefaultServiceQuotas ListServiceQuotas", "*")
    yield _allow("tag", "GetResources", "*")


def _bucket(needs: Needs) -> Json:
    return _allow(
        "s3",
        "CreateBucket DeleteBucket PutBucketOwnershipControls PutBucketPolicy "
        "PutBucketPublicAccessBlock PutBucketTagging PutBucketVersioning "
        "PutEncryptionConfiguration PutLifecycleConfiguration",
        needs.arn(f"s3:::{needs.bucket}"),
    )


def _images(needs: Needs) -> Iterator[Json]:
    """Looking for images, pushing them, and deleting them."""
    yield _allow("ecr", "GetAuthorizationToken", "*")
    yield _allow(
        "ecr",
        "BatchCheckLayerAvailability BatchDeleteImage CompleteLayerUpload CreateRepository "
        "DeleteRepository DescribeImages GetDownloadUrlForLayer InitiateLayerUpload "
        "ListTagsForResource PutImage PutLifecyclePolicy TagResource UploadLayerPart",
        needs.repository,
    )
    if needs.kms_key:
        yield _allow("kms", "CreateGrant DescribeKey RetireGrant", needs.kms_key)


def _within_boundary(needs: Needs) -> Iterator[Json]:
    """The endpoint's, the Lambda's and the schedule's role together, for any settings."""
    project, arn = needs.project, needs.arn
    bucket = arn(f"s3:::{needs.bucket}")
    yield _allow("s3", "ListBucket", bucket)
    objects = f"{bucket}/fdeploy/{project}/*"
    yield _allow("s3", "AbortMultipartUpload GetObject PutObject", objects)
    yield _allow("ecr", "GetAuthorizationToken", "*")
    yield _allow(
        "ecr",
        "BatchCheckLayerAvailability BatchGetImage GetDownloadUrlForLayer",
        arn("ecr:*:*:repository/*"),
    )
    yield _allow(
        "logs",
        "CreateLogGroup CreateLogStream DescribeLogStreams PutLogEvents",
        [*_own_logs(needs), _transform_logs(needs)],
    )
    spaces = [f"/aws/sagemaker/{of}" for of in ("Endpoints", "TransformJobs")]
    namespace = {"StringEquals": {"cloudwatch:namespace": spaces}}
    yield _allow("cloudwatch", "PutMetricData", "*", namespace)
    yield _allow("cloudwatch", "DescribeAlarms", arn(f"cloudwatch:*:*:alarm:{project}-*"))
    # A function's role names no resource: AWS's own policy AWSLambdaVPCAccessExecutionRole.
    yield _allow(
        "ec2",
        "AssignPrivateIpAddresses CreateNetworkInterface CreateNetworkInterfacePermission "
        "DeleteNetworkInterface "
        "DeleteNetworkInterfacePermission DescribeDhcpOptions DescribeNetworkInterfaces "
        "DescribeSecurityGroups DescribeSubnets DescribeVpcs UnassignPrivateIpAddresses",
        "*",
    )
    yield _allow("sagemaker", "InvokeEndpoint", arn(f"sagemaker:*:*:endpoint/{project}-*"))
    yield _allow("cloudformation", "DeleteStack", arn(f"cloudformation:*:*:stack/{project}-*/*"))
    # The schedule's role deletes the stacks, through CloudFormation.
    for grant in _grants(needs):
        ending = set(_ENDING.get(grant.service, "").split())
        actions = " ".join(sorted(ending & set(f"{grant.itself} {grant.through}".split())))
        if actions:
            yield _allow(grant.service, actions, grant.resources, _THROUGH_CLOUDFORMATION)
    if needs.kms_key:
        yield _key(needs.kms_key)


def _own_roles(needs: Needs) -> str:
    return needs.arn(f"iam::*:role/fdeploy/{needs.project}-*")


def _own_logs(needs: Needs) -> list[str]:
    return [needs.arn(f"logs:*:*:log-group:/aws/{of}/{needs.project}-*") for of in _LOGGING]


def _transform_logs(needs: Needs) -> str:
    """The group of all transform jobs of an account."""
    return needs.arn("logs:*:*:log-group:/aws/sagemaker/TransformJobs:*")


def _key(key: str) -> Json:
    return _allow("kms", "CreateGrant Decrypt DescribeKey Encrypt GenerateDataKey", key)


def _document(statements: Iterator[Json] | list[Json]) -> Json:
    return {"Version": VERSION, "Statement": list(statements)}


def _allow(service: str, actions: str, resources: Json, condition: Json = None) -> Json:
    allowed = {
        "Effect": "Allow",
        "Action": [f"{service}:{action}" for action in actions.split()],
        "Resource": resources,
    }
    return {**allowed, "Condition": condition} if condition else allowed

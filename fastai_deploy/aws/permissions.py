"""The IAM policies that fdeploy's users need, and the check that the caller has them.

The policies are printed to be copied. The check uses IAM's policy simulator.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsError, AwsMissing
from fastai_deploy.records import Check

Json = Any
VERSION = "2012-10-17"
# The size limit of a managed policy in characters, without white space (AWS: IAM quotas).
MAX_CHARACTERS = 6_144
# Log groups are named /aws/lambda/<project>-... and so on.
_LOGGING = ("sagemaker/Endpoints", "lambda", "apigateway")
# Actions that AWS cannot scope to a resource: listing, and the logs of an HTTP API.
_UNSCOPED = {
    "application-autoscaling": "DescribeScalableTargets DescribeScalingPolicies "
    "DescribeScheduledActions",
    "cloudwatch": "GetMetricData",
    "iam": "ListRoles",
    "logs": "CreateLogDelivery DeleteLogDelivery DescribeIndexPolicies DescribeLogGroups "
    "DescribeResourcePolicies GetLogDelivery ListLogDeliveries PutResourcePolicy UpdateLogDelivery",
    "pricing": "GetProducts",
    "sagemaker": "ListEndpointConfigs ListEndpoints ListModels",
    "servicequotas": "ListAWSDefaultServiceQuotas ListServiceQuotas",
    "tag": "GetResources",
}


@dataclass(frozen=True)
class Needs:
    """What the permissions are for.

    ``bucket_key`` is the KMS key of a bucket of the user's own. ``signs_requests``: the API's
    ``auth`` is ``iam``, which create-api verifies.
    """

    project: str
    bucket: str
    partition: str = "aws"
    kms_key: str | None = None
    bucket_key: str | None = None
    signs_requests: bool = False

    def arn(self, rest: str) -> str:
        """An ARN of this partition."""
        return f"arn:{self.partition}:{rest}"


def user_policies(needs: Needs) -> Mapping[str, Json]:
    """The policy documents by name, for all stages of a project in any region of an account."""
    return {
        "stacks": {"Version": VERSION, "Statement": list(_stacks(needs))},
        "data": {"Version": VERSION, "Statement": list(_data(needs))},
        "bucket": {"Version": VERSION, "Statement": [_bucket(needs)]},
    }


def _stacks(needs: Needs) -> Iterator[Json]:
    project, arn = needs.project, needs.arn
    yield _allow(
        "cloudformation",
        "ContinueUpdateRollback CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet "
        "DescribeEvents DescribeStackEvents DescribeStacks ExecuteChangeSet GetTemplate "
        "ListStackResources UpdateTerminationProtection",
        arn(f"cloudformation:*:*:stack/{project}-*/*"),
    )
    yield _allow(
        "sagemaker",
        "AddTags CreateEndpoint CreateEndpointConfig CreateModel DeleteEndpoint "
        "DeleteEndpointConfig DeleteModel DeleteTags DescribeEndpoint DescribeEndpointConfig "
        "DescribeModel ListTags UpdateEndpoint UpdateEndpointWeightsAndCapacities",
        [
            arn(f"sagemaker:*:*:{kind}/{project}-*")
            for kind in ("endpoint", "endpoint-config", "model")
        ],
    )
    yield from _roles(needs)
    yield _allow(
        "lambda",
        "AddPermission CreateFunction DeleteFunction DeleteFunctionConcurrency GetFunction "
        "GetFunctionCodeSigningConfig GetFunctionRecursionConfig GetFunctionScalingConfig "
        "GetPolicy GetRuntimeManagementConfig ListTags PutFunctionConcurrency RemovePermission "
        "TagResource UntagResource UpdateFunctionCode UpdateFunctionConfiguration",
        arn(f"lambda:*:*:function:{project}-*"),
    )
    yield _allow(
        "apigateway",
        "DELETE GET PATCH POST PUT",
        [
            *(
                arn(f"apigateway:*::/{kind}{rest}")
                for kind in ("apikeys", "apis", "domainnames", "restapis", "usageplans")
                for rest in ("", "/*")
            ),
            arn("apigateway:*::/tags/*"),
        ],
    )
    yield _allow(
        "logs",
        "AssociateKmsKey CreateLogGroup DeleteLogGroup DeleteRetentionPolicy DescribeLogStreams "
        "DisassociateKmsKey FilterLogEvents GetDataProtectionPolicy GetLogEvents "
        "ListTagsForResource PutRetentionPolicy TagResource UntagResource",
        [arn(f"logs:*:*:log-group:/aws/{of}/{project}-*") for of in _LOGGING],
    )
    yield _allow(
        "cloudwatch",
        "DeleteAlarms DescribeAlarms ListTagsForResource PutMetricAlarm TagResource UntagResource",
        arn(f"cloudwatch:*:*:alarm:{project}-*"),
    )
    yield _allow(
        "cloudwatch",
        "DeleteDashboards GetDashboard ListTagsForResource PutDashboard TagResource UntagResource",
        arn(f"cloudwatch::*:dashboard/{project}-*"),
    )
    yield _allow(
        "scheduler",
        "CreateSchedule CreateScheduleGroup DeleteSchedule DeleteScheduleGroup GetSchedule "
        "GetScheduleGroup ListTagsForResource TagResource UntagResource UpdateSchedule",
        [arn(f"scheduler:*:*:{kind}/{project}-*") for kind in ("schedule", "schedule-group")],
    )
    yield _allow(
        "application-autoscaling",
        "DeleteScalingPolicy DeregisterScalableTarget ListTagsForResource PutScalingPolicy "
        "RegisterScalableTarget TagResource UntagResource",
        arn("application-autoscaling:*:*:scalable-target/*"),
    )


def _roles(needs: Needs) -> Iterator[Json]:
    own = needs.arn(f"iam::*:role/fdeploy/{needs.project}-*")
    yield _allow(
        "iam",
        "CreateRole DeleteRole DeleteRolePolicy DetachRolePolicy GetRole GetRolePolicy "
        "ListAttachedRolePolicies ListRolePolicies PutRolePolicy TagRole UntagRole "
        "UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription",
        own,
    )
    services = [f"{name}.amazonaws.com" for name in ("sagemaker", "lambda", "scheduler")]
    yield _allow("iam", "PassRole", own, {"StringEquals": {"iam:PassedToService": services}})
    linked = "sagemaker.application-autoscaling.amazonaws.com"
    yield _allow(
        "iam",
        "CreateServiceLinkedRole",
        needs.arn(f"iam::*:role/aws-service-role/{linked}/*"),
        {"StringEquals": {"iam:AWSServiceName": linked}},
    )


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
    # To count the instances in use: the quota is the account's, and so are the others' endpoints.
    yield _allow(
        "sagemaker",
        "DescribeEndpoint DescribeEndpointConfig",
        [needs.arn(f"sagemaker:*:*:{kind}/*") for kind in ("endpoint", "endpoint-config")],
    )
    yield _allow("apigateway", "GET", needs.arn("apigateway:*::/account"))
    # To check that the image exists; the repositories belong to AWS.
    yield _allow("ecr", "BatchGetImage", needs.arn("ecr:*:*:repository/*"))
    if needs.signs_requests:
        yield _allow("execute-api", "Invoke", needs.arn("execute-api:*:*:*/POST/*"))
    # To simulate the caller's own policies; the documents do not know who the caller is.
    own = [needs.arn(f"iam::*:{kind}/*") for kind in ("role", "user")]
    yield _allow("iam", "SimulatePrincipalPolicy", own)
    if needs.kms_key:
        yield _allow(
            "kms", "CreateGrant Decrypt DescribeKey Encrypt GenerateDataKey", needs.kms_key
        )
    if needs.bucket_key and needs.bucket_key != needs.kms_key:
        yield _allow("kms", "Decrypt DescribeKey GenerateDataKey", needs.bucket_key)
    for service, actions in _UNSCOPED.items():
        yield _allow(service, actions, "*")


def _bucket(needs: Needs) -> Json:
    return _allow(
        "s3",
        "CreateBucket DeleteBucket PutBucketOwnershipControls PutBucketPolicy "
        "PutBucketPublicAccessBlock PutBucketTagging PutBucketVersioning "
        "PutEncryptionConfiguration PutLifecycleConfiguration",
        needs.arn(f"s3:::{needs.bucket}"),
    )


def _allow(service: str, actions: str, resources: Json, condition: Json = None) -> Json:
    allowed = {
        "Effect": "Allow",
        "Action": [f"{service}:{action}" for action in actions.split()],
        "Resource": resources,
    }
    return {**allowed, "Condition": condition} if condition else allowed


_CALLER = re.compile(r"arn:(?P<partition>[^:]+):(?:sts|iam)::(?P<account>\d+):(?P<who>.+)")
# Services whose statements mix kinds of resources: an action has to be allowed on one of them.
_BY_KIND = frozenset(("sagemaker", "scheduler"))
_SHOWN = 20  # actions listed in a message
_REFUSED = "InvalidInput"  # the answer to a query for actions on different kinds of resources

_NOBODY = "no policy allows"
_DENIED = "a policy denies"
_BOUNDARY = "the permissions boundary does not allow"
_ORGANIZATION = "the organization's service control policies do not allow"


@dataclass(frozen=True)
class Question:
    """A query whether actions are allowed; ``context`` holds condition keys and values."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    context: tuple[tuple[str, str], ...] = ()

    def parameters(self) -> dict[str, Any]:
        """The parameters of SimulatePrincipalPolicy, except the principal."""
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in self.context
        ]
        return {
            "ActionNames": list(self.actions),
            "ResourceArns": list(self.resources),
            "ContextEntries": entries,
        }


def check_permissions(
    aws: Aws, documents: Mapping[str, Any], needs: Needs, stage: str, *, unused: frozenset[str]
) -> Check:
    """Check that the caller has the permissions in the documents of ``user_policies``.

    ``unused`` are services that these settings do not need. Raises AwsDenied if the caller may not
    use the simulator, and AwsError.
    """
    who = _Who.of(aws.caller)
    if who.kind == "root":
        return Check("permissions", "passed", "the account's root user has every permission")
    if who.kind not in ("user", "role"):
        return Check(
            "permissions",
            "warned",
            f"IAM cannot simulate {aws.caller}: it is neither a user nor a role",
            "run fdeploy doctor --policy to see the permissions it needs",
        )
    simulator = _Simulator(aws, who)
    missing: defaultdict[str, set[str]] = defaultdict(set)
    for question in questions(documents, needs, stage, region=aws.region, account=aws.account):
        if question.actions[0].partition(":")[0] in unused:
            continue
        for action, reason in simulator.missing(question):
            missing[reason].add(action)
    if missing:
        return _lacking(simulator.principal, missing)
    return Check(
        "permissions",
        "passed",
        f"IAM's policy simulator allows {simulator.principal} everything needed; it does not "
        "consider policies of sessions, resources and VPC endpoints",
    )


def questions(
    documents: Mapping[str, Any], needs: Needs, stage: str, *, region: str, account: str
) -> Iterator[Question]:
    """Yield a query for each statement and condition value, for resources of this stage."""
    place = _Place(needs.project, stage, region, account)
    for document in documents.values():
        for statement in document["Statement"]:
            resources = tuple(place.arn(arn) for arn in _list(statement["Resource"]))
            for context in _contexts(statement.get("Condition", {})):
                yield Question(tuple(statement["Action"]), resources, context)


@dataclass(frozen=True)
class _Place:
    """Turns the patterns of a policy into ARNs of a stage's resources."""

    project: str
    stage: str
    region: str
    account: str

    def arn(self, pattern: str) -> str:
        if pattern == "*":
            return pattern
        start, partition, service, region, account, resource = pattern.split(":", 5)
        resource = resource.replace(f"{self.project}-*", f"{self.project}-{self.stage}")
        region = self.region if region == "*" else region
        account = self.account if account == "*" else account
        return ":".join((start, partition, service, region, account, resource.replace("*", "any")))


@dataclass(frozen=True)
class _Who:
    """A principal; ``kind`` is ``user``, ``role``, ``root`` or another; ``name`` has no path."""

    arn: str
    kind: str
    name: str

    @classmethod
    def of(cls, caller: str) -> _Who:
        """The principal whose policies apply: for a session, the assumed role."""
        match = _CALLER.fullmatch(caller)
        if match is None:
            return cls(caller, "", "")
        kind, _, rest = match["who"].partition("/")
        if kind == "assumed-role":
            name = rest.partition("/")[0]
            arn = f"arn:{match['partition']}:iam::{match['account']}:role/{name}"
            return cls(arn, "role", name)
        return cls(caller, kind, rest.rpartition("/")[2])


class _Simulator:
    """Queries the policy simulator about one user or role."""

    def __init__(self, aws: Aws, who: _Who) -> None:
        self._aws = aws
        self._who = who
        self.principal = who.arn
        self._found = who.kind == "user"  # a session's ARN omits the path of its role

    def missing(self, question: Question) -> Iterator[tuple[str, str]]:
        """Yield the actions that are not allowed, each with the reason."""
        try:
            results = self._results(question)
        except AwsError as error:
            if error.aws_code != _REFUSED or len(question.actions) == 1:
                raise
            for action in question.actions:
                alone = Question((action,), question.resources, question.context)
                yield from self.missing(alone)
            return
        for result in results:
            decisions = list(_decisions(result))
            service = result["EvalActionName"].partition(":")[0]
            enough = any if service in _BY_KIND else all
            if not enough(decision is None for decision in decisions):
                reason = next(decision for decision in decisions if decision)
                yield result["EvalActionName"], reason

    def _results(self, question: Question) -> list[Any]:
        try:
            return self._asked(question)
        except AwsMissing:
            if self._found:
                raise
        self.principal = self._with_path()
        self._found = True
        return self._asked(question)

    def _asked(self, question: Question) -> list[Any]:
        pages = self._aws.pages(
            "iam",
            "simulate_principal_policy",
            PolicySourceArn=self.principal,
            **question.parameters(),
        )
        return [result for page in pages for result in page["EvaluationResults"]]

    def _with_path(self) -> str:
        """The role's ARN including its path, which roles of IAM Identity Center have."""
        pages = self._aws.pages("iam", "list_roles", PaginationConfig={"PageSize": 1_000})
        found = (role for page in pages for role in page["Roles"])
        return next(
            (role["Arn"] for role in found if role["RoleName"] == self._who.name), self._who.arn
        )


def _decisions(result: Any) -> Iterator[str | None]:
    """For each resource, the reason why an action is not allowed, or None if it is."""
    for one in result.get("ResourceSpecificResults") or [result]:
        decision = one.get("EvalResourceDecision") or one["EvalDecision"]
        if decision == "allowed":
            yield None
        elif not _allowed_by(one, result, "OrganizationsDecisionDetail", "AllowedByOrganizations"):
            yield _ORGANIZATION
        elif not _allowed_by(
            one, result, "PermissionsBoundaryDecisionDetail", "AllowedByPermissionsBoundary"
        ):
            yield _BOUNDARY
        else:
            yield _DENIED if decision == "explicitDeny" else _NOBODY


def _allowed_by(one: Any, result: Any, detail: str, name: str) -> bool:
    """Whether a detail allows the action; a missing detail forbids nothing."""
    return bool({**(result.get(detail) or {}), **(one.get(detail) or {})}.get(name, True))


def _lacking(principal: str, missing: Mapping[str, set[str]]) -> Check:
    told = "; ".join(f"{reason} {_named(sorted(missing[reason]))}" for reason in sorted(missing))
    attach = f"attach the policies that fdeploy doctor --policy prints to {principal}"
    if set(missing) == {_NOBODY}:
        hint = attach
    else:
        hint = "ask the account's administrator: no further policy can allow what is denied"
        hint += f"; for the other actions, {attach}" if _NOBODY in missing else ""
    return Check("permissions", "failed", f"for {principal}, {told}", hint)


def _named(actions: Sequence[str]) -> str:
    more = len(actions) - _SHOWN
    return ", ".join(actions[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _contexts(condition: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Contexts that satisfy a condition, one for each value of a key."""
    keys = [(key, _list(values)) for of in condition.values() for key, values in of.items()]
    if not keys:
        yield ()
    for key, values in keys:
        for value in values:
            yield ((key, value),)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)

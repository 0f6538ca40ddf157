"""What a user must be allowed for fdeploy to work: policy documents to copy, and no more.

    stacks   what CloudFormation makes, changes and deletes with the permissions of who asks it to
    data     the bucket's objects, what is asked and read, prices and quotas
    bucket   to make fdeploy's bucket, once for an account and region, and to delete it

Everything is scoped by the project's name; where AWS knows no names (API Gateway, autoscaling) by
service. Sources, with which tests compare it: the permissions of the handlers in CloudFormation's
registry, the operations that fdeploy calls itself, and the "Service Authorization Reference".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = Any
VERSION = "2012-10-17"
# A managed policy may have so many characters, white space not counted (AWS: IAM quotas).
MAX_CHARACTERS = 6_144
# Whose log groups there are: /aws/lambda/<project>-... and so on.
_LOGGING = ("sagemaker/Endpoints", "lambda", "apigateway")
# What AWS lets nobody scope: looking about, and the logs of an HTTP API.
_UNSCOPED = {
    "application-autoscaling": "DescribeScalableTargets DescribeScalingPolicies "
    "DescribeScheduledActions",
    "cloudwatch": "GetMetricData",
    "iam": "ListRoles",
    "logs": "CreateLogDelivery DeleteLogDelivery DescribeIndexPolicies DescribeLogGroups "
    "DescribeResourcePolicies GetLogDelivery ListLogDeliveries PutResourcePolicy UpdateLogDelivery",
    "pricing": "GetProducts",
    "sagemaker": "ListEndpointConfigs ListModels",
    "servicequotas": "ListAWSDefaultServiceQuotas ListServiceQuotas",
    "tag": "GetResources",
}


@dataclass(frozen=True)
class Needs:
    """Whose permissions these are.

    ``signs_requests``: the API's ``auth`` is ``iam``, and create-api proves it.
    """

    project: str
    bucket: str
    partition: str = "aws"
    kms_key: str | None = None
    signs_requests: bool = False

    def arn(self, rest: str) -> str:
        """An ARN of this partition."""
        return f"arn:{self.partition}:{rest}"


def user_policies(needs: Needs) -> Mapping[str, Json]:
    """The documents by name, for all stages of a project in any region of an account."""
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
        "DescribeStackEvents DescribeStacks ExecuteChangeSet GetTemplate ListStackResources "
        "UpdateTerminationProtection",
        arn(f"cloudformation:*:*:stack/{project}-*/*"),
    )
    yield _allow(
        "sagemaker",
        "AddTags CreateEndpoint CreateEndpointConfig CreateModel DeleteEndpoint "
        "DeleteEndpointConfig DeleteModel DeleteTags DescribeEndpoint DescribeEndpointConfig "
        "DescribeModel ListTags UpdateEndpoint",
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
        "s3", "ListBucket ListBucketMultipartUploads ListBucketVersions GetBucketTagging", bucket
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
    yield _allow("apigateway", "GET", needs.arn("apigateway:*::/account"))
    # Whether the image is there; the repositories are AWS's.
    yield _allow("ecr", "BatchGetImage", needs.arn("ecr:*:*:repository/*"))
    if needs.signs_requests:
        yield _allow("execute-api", "Invoke", needs.arn("execute-api:*:*:*/POST/*"))
    # What the caller's own policies allow; whose they are, the documents do not know.
    own = [needs.arn(f"iam::*:{kind}/*") for kind in ("role", "user")]
    yield _allow("iam", "SimulatePrincipalPolicy", own)
    if needs.kms_key:
        yield _allow(
            "kms", "CreateGrant Decrypt DescribeKey Encrypt GenerateDataKey", needs.kms_key
        )
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

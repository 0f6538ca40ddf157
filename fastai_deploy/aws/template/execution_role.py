"""What the endpoint may do: fetch this artifact and this image, and write its own logs.

Sources: "CreateModel API: Execution Role Permissions", "Cross-Service Confused Deputy Prevention",
"Auto-Rollback Configuration and Monitoring" and "Asynchronous inference prerequisites" in the
SageMaker developer guide.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastai_deploy.aws.template.intrinsics import Json, Resource, arn, ref, s3_arn
from fastai_deploy.aws.template.roles import service_role, statement
from fastai_deploy.aws.template.spec import EndpointSpec, Instances, Vpc
from fastai_deploy.naming import alarm_name, endpoint_log_group

# The namespace of what SageMaker measures on the instances.
_METRICS = "/aws/sagemaker/Endpoints"


def execution_role(spec: EndpointSpec) -> Resource:
    """The role of the model."""
    return service_role(
        spec.common,
        spec.version,
        service="sagemaker.amazonaws.com",
        # As the guide wants it: no narrower pattern works.
        source=arn("sagemaker", "*"),
        statements=list(_statements(spec)),
        description=f"What the endpoint {spec.name} may do",
    )


def _statements(spec: EndpointSpec) -> Iterator[Json]:
    model, owner = spec.model, spec.common.owner
    yield statement("Artifact", ["s3:GetObject"], s3_arn(model.artifact.bucket, model.artifact.key))
    yield statement(
        "Image",
        ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        arn("ecr", f"repository/{model.repository}", account=model.registry),
    )
    yield statement("Registry", ["ecr:GetAuthorizationToken"], "*")
    group = endpoint_log_group(spec.name)
    yield statement(
        "Logs",
        [
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:DescribeLogStreams",
            "logs:PutLogEvents",
        ],
        arn("logs", f"log-group:{group}:*"),
    )
    yield statement(
        "Metrics",
        ["cloudwatch:PutMetricData"],
        "*",
        {"StringEquals": {"cloudwatch:namespace": _METRICS}},
    )
    if isinstance(spec.capacity, Instances):  # also when bake is 0: so that turning it is no update
        watched = alarm_name(owner.project, owner.stage, "*")
        yield statement(
            "Rollback", ["cloudwatch:DescribeAlarms"], arn("cloudwatch", f"alarm:{watched}")
        )
    if model.vpc:
        yield from _network(model.vpc)
    if spec.capture:
        place = spec.capture.destination
        yield statement("Capture", ["s3:PutObject"], s3_arn(place.bucket, f"{place.key}/*"))
    if spec.output:
        place = spec.output
        yield statement(
            "Queue",
            ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
            s3_arn(place.bucket, f"{place.key}/*"),
        )
        yield statement(
            "QueueList",
            ["s3:ListBucket"],
            s3_arn(place.bucket),
            {"StringLike": {"s3:prefix": f"{place.key}/*"}},
        )
    if spec.common.kms_key:
        yield from _encryption(spec.common.kms_key)


def _network(vpc: Vpc) -> Iterator[Json]:
    """The instances' network interfaces, in these subnets and security groups only."""
    interfaces = arn("ec2", "network-interface/*")
    joined = [
        *(arn("ec2", f"subnet/{subnet}") for subnet in vpc.subnets),
        *(arn("ec2", f"security-group/{group}") for group in vpc.security_groups),
    ]
    yield statement("JoinVpc", ["ec2:CreateNetworkInterface"], [interfaces, *joined])
    yield statement(
        "LeaveVpc",
        ["ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface"],
        interfaces,
    )
    yield statement(
        "SeeVpc",
        [
            "ec2:DescribeDhcpOptions",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ],
        "*",
    )
    # It takes no resource, only a region.
    yield statement(
        "LeaveVpcPermission",
        ["ec2:DeleteNetworkInterfacePermission"],
        "*",
        {"StringEquals": {"ec2:Region": ref("AWS::Region")}},
    )


def _encryption(key: str) -> Iterator[Json]:
    yield statement("Key", ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"], key)
    yield statement(
        "VolumeKey",
        ["kms:CreateGrant"],
        key,
        {"Bool": {"kms:GrantIsForAWSResource": "true"}},
    )

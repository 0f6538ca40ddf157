"""IAM roles: who may become them, and the little that they may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastai_deploy.aws.specs import Common
from fastai_deploy.aws.template.intrinsics import Json, Resource, digest, resource, tags
from fastai_deploy.naming import role_path

POLICY_VERSION = "2012-10-17"


def statement(
    sid: str,
    actions: Sequence[str],
    resources: Json,
    condition: Mapping[str, Any] | None = None,
) -> Json:
    """What may be done with what; ``resources`` is an ARN or a list of them."""
    allowed: dict[str, Json] = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": resources,
    }
    return {**allowed, "Condition": dict(condition)} if condition else allowed


def policy(statements: Sequence[Json]) -> Json:
    """A policy document."""
    return {"Version": POLICY_VERSION, "Statement": list(statements)}


def service_role(
    common: Common,
    version: str,
    *,
    service: str,
    statements: Sequence[Json],
    description: str,
    source: Json = None,
) -> Resource:
    """A role for an AWS service; only when it works for something like ``source``, an ARN pattern.

    Its path holds what it may do, so that other permissions are another role: what runs keeps its
    own until it is replaced.
    """
    trust: dict[str, Json] = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if source is not None:
        trust["Condition"] = {"ArnLike": {"aws:SourceArn": source}}
    document = policy(statements)
    owner = common.owner
    return resource(
        "AWS::IAM::Role",
        {
            "Path": f"{role_path(owner.project, owner.stage)}{digest(document)[:12]}/",
            "Description": description,
            "AssumeRolePolicyDocument": policy([trust]),
            "Policies": [{"PolicyName": "fdeploy", "PolicyDocument": document}],
            "Tags": tags(common, version),
        },
    )

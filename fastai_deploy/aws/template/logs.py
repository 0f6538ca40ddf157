"""Log groups, made here so that they end with the stack and their lines before that."""

from __future__ import annotations

from fastai_deploy.aws.specs import Common
from fastai_deploy.aws.template.intrinsics import Resource, resource, tags


def log_group(common: Common, version: str, name: str) -> Resource:
    """A log group, which its service would otherwise make, and keep for ever."""
    return resource(
        "AWS::Logs::LogGroup",
        {
            "LogGroupName": name,
            "RetentionInDays": common.log_days,
            "KmsKeyId": common.kms_key,
            "Tags": tags(common, version),
        },
        DeletionPolicy="Delete",
        UpdateReplacePolicy="Delete",
    )

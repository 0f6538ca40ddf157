"""Log groups that outlive their stack: whose they are, and how a new stack adopts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.errors import AwsError

LOG_GROUP = "AWS::Logs::LogGroup"


def log_group_tags(aws: Aws, name: str) -> Mapping[str, str]:
    """The tags of a log group. Raises AwsError."""
    arn = f"arn:{aws.partition}:logs:{aws.region}:{aws.account}:log-group:{name}"
    found: Mapping[str, str] = aws.call("logs", "list_tags_for_resource", resourceArn=arn)["tags"]
    return found


def is_free(aws: Aws, log_group: str, owner: Owner) -> bool:
    """Whether a log group has no owner, or this one; False if its tags may not be read."""
    try:
        return owner.may_own(log_group_tags(aws, log_group))
    except AwsError:
        return False


def adopt_settings(aws: Aws, template: Template, adopted: Sequence[str]) -> None:
    """Give adopted log groups their retention and key: an import changes nothing. Raises AwsError.

    Source: "Import AWS resources into a CloudFormation stack automatically".
    """
    for item in template.evaluated()["Resources"].values():
        properties = item.get("Properties", {})
        name = properties.get("LogGroupName")
        if item["Type"] == LOG_GROUP and name in adopted:
            days = properties["RetentionInDays"]
            aws.call("logs", "put_retention_policy", logGroupName=name, retentionInDays=days)
            if "KmsKeyId" in properties:
                key = properties["KmsKeyId"]
                aws.call("logs", "associate_kms_key", logGroupName=name, kmsKeyId=key)


def adoption_message(name: str, region: str) -> str:
    """What is said about an adopted log group."""
    return (
        f"adopting the log group {name}, which is there already; to begin with an empty one, "
        f"stop and run {deletion_command(name, region)}"
    )


def deletion_command(log_group: str, region: str) -> str:
    """What deletes a log group."""
    return f"aws logs delete-log-group --log-group-name {log_group} --region {region}"

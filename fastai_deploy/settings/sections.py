"""The section ``[project]``, and the base of all sections of ``fdeploy.toml``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fastai_deploy.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """Parse a duration: ``90s``, ``15m``, ``2h`` or ``1d``. Raises UsageError."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smhd])", text)
    if match is None:
        raise UsageError(
            f"{text!r} is not a duration", hint="type a duration such as 90s, 15m, 2h or 1d"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Section(BaseModel):
    """A frozen section of settings; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$"
REGION_PATTERN = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]$"
BUCKET_PATTERN = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
TTL_PATTERN = r"^([1-9][0-9]{0,3}[mhd]|never)$"
KEY_ARN_PATTERN = r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$"
TOPIC_ARN_PATTERN = r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"
ROLE_ARN_PATTERN = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/([!-~]{1,511}/)?[A-Za-z0-9_+=,.@-]{1,64}$"
# An account's own managed policy, or one of AWS.
POLICY_ARN_PATTERN = (
    r"^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/([!-~]{1,511}/)?[A-Za-z0-9_+=,.@-]{1,128}$"
)
# AWS: "Tag naming limits and requirements". No colon: fdeploy's own tags start with fdeploy: and
# those of AWS with aws:.
TAG_KEY_PATTERN = r"^[A-Za-z0-9_./=+@-][A-Za-z0-9 _./=+@-]{0,127}$"
TAG_VALUE_PATTERN = r"^[A-Za-z0-9 _.:/=+@-]{1,256}$"
ID_PATTERN = r"^[a-z0-9]{8,32}$"
# A stack takes 50 tags (AWS); four are fdeploy's.
MAX_TAGS = 46

TagKey = Annotated[str, Field(pattern=TAG_KEY_PATTERN)]
TagValue = Annotated[str, Field(pattern=TAG_VALUE_PATTERN)]
# Retention periods that CloudWatch Logs supports, up to a year and a half.
LogDays = Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545]


class ProjectSettings(Section):
    """The project's name, target and account-wide options."""

    name: Annotated[
        str | None,
        Field(
            pattern=NAME_PATTERN,
            description="Project name, which prefixes the names of all resources: lower-case "
            "letters, digits and hyphens, at most 30. Default: the name of the project folder.",
        ),
    ] = None
    id: Annotated[
        str | None,
        Field(
            pattern=ID_PATTERN,
            description="AWS: tells projects of the same name apart. The first deploy in a "
            "terminal makes it and writes it into this file; commit it.",
        ),
    ] = None
    target: Annotated[
        Literal["local", "aws"] | None,
        Field(
            description="Where to deploy. Default: aws if a region or an instance is set, else the "
            "target of the stage's last deploy, else local."
        ),
    ] = None
    region: Annotated[
        str | None,
        Field(pattern=REGION_PATTERN, description="AWS region, such as eu-central-1."),
    ] = None
    profile: Annotated[
        str | None,
        Field(
            min_length=1,
            description="AWS configuration profile. Default: AWS_PROFILE, else the default "
            "profile.",
        ),
    ] = None
    bucket: Annotated[
        str | None,
        Field(
            pattern=BUCKET_PATTERN,
            description="Existing S3 bucket for artifacts. Default: fdeploy creates one for the "
            "account and region.",
        ),
    ] = None
    tags: dict[TagKey, TagValue] = Field(
        default_factory=dict,
        max_length=MAX_TAGS,
        description="Tags for every AWS resource, in addition to fdeploy's own: "
        'tags = {team = "nlp"}, or FDEPLOY_PROJECT_TAGS=team=nlp,cost-centre=42.',
    )
    protect: Annotated[
        bool,
        Field(
            description="AWS: turn on CloudFormation termination protection, and require "
            "--even-if-protected for teardown."
        ),
    ] = False
    ttl: Annotated[
        str | None,
        Field(
            pattern=TTL_PATTERN,
            description="AWS: delete the stage automatically this long after its last deploy, such "
            "as 30m, 4h or 7d. Default: never, which keeps it until teardown.",
        ),
        AfterValidator(lambda ttl: None if ttl == "never" else ttl),
    ] = None
    kms_key: Annotated[
        str | None,
        Field(
            pattern=KEY_ARN_PATTERN,
            description="AWS: ARN of a KMS key to encrypt stored data: artifacts and the Lambda's "
            "package, log groups, instance volumes, captured and asynchronous data, schedules, and "
            "Lambda environment variables. Its policy must allow CloudWatch Logs to use it. "
            "Default: AWS-owned keys.",
        ),
    ] = None
    permissions_boundary: Annotated[
        str | None,
        Field(
            pattern=POLICY_ARN_PATTERN,
            description="AWS: ARN of a managed policy to set as the permissions boundary of every "
            "IAM role that fdeploy creates. Default: no boundary.",
        ),
    ] = None
    execution_role: Annotated[
        str | None,
        Field(
            pattern=ROLE_ARN_PATTERN,
            description="AWS: ARN of an existing role for the SageMaker endpoint. Default: fdeploy "
            "creates one.",
        ),
    ] = None
    lambda_role: Annotated[
        str | None,
        Field(
            pattern=ROLE_ARN_PATTERN,
            description="AWS: ARN of an existing role for the Lambda function of the API. Default: "
            "fdeploy creates one.",
        ),
    ] = None
    cloudformation_role: Annotated[
        str | None,
        Field(
            pattern=ROLE_ARN_PATTERN,
            description="AWS: ARN of an existing service role with which CloudFormation changes "
            "the stacks. Default: CloudFormation uses the caller's permissions.",
        ),
    ] = None
    log_retention: Annotated[LogDays, Field(description="AWS: days to keep logs.")] = 30
    alarm_topic: Annotated[
        str | None,
        Field(
            pattern=TOPIC_ARN_PATTERN,
            description="AWS: ARN of an SNS topic to notify of alarms. Default: alarms are only "
            "displayed.",
        ),
    ] = None
    dashboard: Annotated[
        bool,
        Field(
            description="AWS: create a CloudWatch dashboard (three are free, then $3 per month)."
        ),
    ] = True

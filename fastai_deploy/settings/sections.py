"""``[project]``, and what all sections of ``fdeploy.toml`` have in common."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fastai_deploy.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """``90s``, ``15m``, ``2h`` or ``1d``. Raises UsageError."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smhd])", text)
    if match is None:
        raise UsageError(f"{text!r} is no span of time", hint="type 90s, 15m, 2h or 1d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


class Section(BaseModel):
    """A section: unknown keys are errors, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$"
REGION_PATTERN = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]$"
BUCKET_PATTERN = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
TTL_PATTERN = r"^[1-9][0-9]{0,3}[mhd]$"
KEY_ARN_PATTERN = r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$"
TOPIC_ARN_PATTERN = r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"
# AWS: "Tag naming limits and requirements". No colon: fdeploy's own tags begin with fdeploy:, and
# those of AWS with aws:.
TAG_KEY_PATTERN = r"^[A-Za-z0-9_./=+@-][A-Za-z0-9 _./=+@-]{0,127}$"
TAG_VALUE_PATTERN = r"^[A-Za-z0-9 _.:/=+@-]{1,256}$"
# A stack takes 50 tags (AWS); three are fdeploy's.
MAX_TAGS = 47

TagKey = Annotated[str, Field(pattern=TAG_KEY_PATTERN)]
TagValue = Annotated[str, Field(pattern=TAG_VALUE_PATTERN)]
# The numbers of days that CloudWatch Logs knows, up to a year and a half.
LogDays = Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545]


class ProjectSettings(Section):
    """What the project is called and where it goes."""

    name: Annotated[
        str | None,
        Field(
            pattern=NAME_PATTERN,
            description="Name of the project: lower-case letters, digits and hyphens, at most 30. "
            "Names everything that is created. Default: the name of the project's folder.",
        ),
    ] = None
    target: Annotated[
        Literal["local", "aws"] | None,
        Field(
            description="Where deploy and create-api go. Default: aws when a region or an instance "
            "is named, else local."
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
            description="Profile of the AWS configuration to work with. Default: AWS_PROFILE, "
            "else the default profile.",
        ),
    ] = None
    bucket: Annotated[
        str | None,
        Field(
            pattern=BUCKET_PATTERN,
            description="Bucket that keeps the artifacts, one that exists. Default: fdeploy makes "
            "one for the account and region.",
        ),
    ] = None
    tags: dict[TagKey, TagValue] = Field(
        default_factory=dict,
        max_length=MAX_TAGS,
        description="Tags for every AWS resource, beside fdeploy's own: "
        'tags = {team = "nlp"}, or FDEPLOY_PROJECT_TAGS=team=nlp,cost-centre=42.',
    )
    protect: Annotated[
        bool,
        Field(
            description="AWS: teardown asks for --yes, and the stacks refuse to be deleted by "
            "anything else."
        ),
    ] = False
    ttl: Annotated[
        str | None,
        Field(
            pattern=TTL_PATTERN,
            description="AWS: how long the stage lives after its last deploy, such as 30m, 4h or "
            "7d; then it deletes itself. Default: until teardown.",
        ),
    ] = None
    kms_key: Annotated[
        str | None,
        Field(
            pattern=KEY_ARN_PATTERN,
            description="AWS: ARN of a KMS key for what is stored: log groups, the instances' "
            "volumes, captured and asynchronous data, the Lambda's variables. Its policy must let "
            "CloudWatch Logs use it. Default: keys that AWS owns.",
        ),
    ] = None
    log_retention: Annotated[LogDays, Field(description="AWS: days that logs are kept.")] = 30
    alarm_topic: Annotated[
        str | None,
        Field(
            pattern=TOPIC_ARN_PATTERN,
            description="AWS: ARN of the SNS topic that hears of alarms. Default: alarms are only "
            "shown.",
        ),
    ] = None
    dashboard: Annotated[
        bool,
        Field(description="AWS: make a CloudWatch dashboard (three are free, then $3 a month)."),
    ] = True

"""CloudFormation's own words, so that templates read like what they make.

Source: "Intrinsic function reference" and "Pseudo parameters reference" of CloudFormation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fastai_deploy.aws.specs import Common
from fastai_deploy.naming import PROJECT_TAG, STAGE_TAG, VERSION_TAG

Json = Any
Resource = dict[str, Json]
Resources = dict[str, Resource]

FORMAT = "2010-09-09"


def ref(name: str) -> Json:
    """What ``Ref`` gives for a resource of the template."""
    return {"Ref": name}


def attribute(name: str, of: str) -> Json:
    """An attribute of a resource of the template."""
    return {"Fn::GetAtt": [name, of]}


def sub(text: str) -> Json:
    """Text with ``${...}`` in it, such as ``${AWS::Region}``."""
    return {"Fn::Sub": text} if "${" in text else text


def arn(service: str, resource: str, *, region: str = "${AWS::Region}", account: str = "") -> Json:
    """The ARN of something in this region; ``account`` is by default the stack's own."""
    owner = account or "${AWS::AccountId}"
    return sub(f"arn:${{AWS::Partition}}:{service}:{region}:{owner}:{resource}")


def s3_arn(bucket: str, key: str = "") -> Json:
    """The ARN of a bucket, or of an object in it."""
    return sub(f"arn:${{AWS::Partition}}:s3:::{bucket}{'/' if key else ''}{key}")


def resource(kind: str, properties: Mapping[str, Json], **attributes: Json) -> Resource:
    """A resource; ``attributes`` such as ``DependsOn``. Properties that are None are left out."""
    kept = {name: value for name, value in properties.items() if value is not None}
    return {"Type": kind, **attributes, "Properties": kept}


def tags(common: Common, version: str) -> list[Json]:
    """Our tags and the user's own, as most resources take them."""
    return [{"Key": key, "Value": value} for key, value in tag_map(common, version).items()]


def tag_map(common: Common, version: str) -> dict[str, str]:
    """The same tags as a map, as some resources take them."""
    owner = common.owner
    own = {PROJECT_TAG: owner.project, STAGE_TAG: owner.stage, VERSION_TAG: version}
    return {**dict(sorted(common.tags)), **own}


def digest(value: Json) -> str:
    """What a part of a template is, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def template(description: str, resources: Resources, outputs: Mapping[str, Json]) -> Json:
    """A whole template; ``outputs`` are values by name."""
    return {
        "AWSTemplateFormatVersion": FORMAT,
        "Description": description,
        "Resources": resources,
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }

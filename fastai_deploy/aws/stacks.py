"""One CloudFormation stack as it is now, and what can be done with it in each of its states.

Source of the states: "Stack status codes" in the CloudFormation user guide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsMissing, NotOurs

GONE = "DELETE_COMPLETE"
REVIEW = "REVIEW_IN_PROGRESS"  # a change set waits; there is nothing else yet
READY = frozenset(
    (
        "CREATE_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
    )
)
# Nothing can be made of it: it is deleted before a new one takes its name.
SPOILED = frozenset(("CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"))
# What was serving before may still be; AWS must finish going back to it.
HALF_BACK = frozenset(("UPDATE_FAILED", "UPDATE_ROLLBACK_FAILED"))
SUCCEEDED = frozenset(("CREATE_COMPLETE", "UPDATE_COMPLETE"))


@dataclass(frozen=True)
class Stack:
    """A stack; ``id`` is its ARN, which also names it when it is deleted.

    ``protected``: AWS refuses to delete it until that is switched off.
    """

    name: str
    id: str
    status: str
    reason: str
    tags: Mapping[str, str]
    outputs: Mapping[str, str]
    created: datetime
    updated: datetime
    protected: bool = False

    @property
    def working(self) -> bool:
        """Whether AWS is at work on it."""
        return self.status.endswith("_IN_PROGRESS") and self.status != REVIEW


@dataclass(frozen=True)
class Resource:
    """A resource of a stack; ``physical_id`` is what ``Ref`` gives: a name or an ARN."""

    logical_id: str
    physical_id: str
    type: str
    status: str

    @property
    def name(self) -> str:
        """The last part of the physical id: the name where that is an ARN."""
        return self.physical_id.rpartition("/")[2]


def find_stack(aws: Aws, name: str) -> Stack | None:
    """The stack of a name or an id; None where there is none. Raises AwsError."""
    try:
        answer = aws.call("cloudformation", "describe_stacks", StackName=name)
    except AwsMissing:
        return None
    found = answer["Stacks"][0]
    stack = Stack(
        name=found["StackName"],
        id=found["StackId"],
        status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", [])},
        outputs={out["OutputKey"]: out["OutputValue"] for out in found.get("Outputs", [])},
        created=found["CreationTime"],
        updated=found.get("LastUpdatedTime", found["CreationTime"]),
        protected=found.get("EnableTerminationProtection", False),
    )
    return None if stack.status == GONE and name != stack.id else stack


def name_of(stack_id: str) -> str:
    """The name in the ARN of a stack."""
    return stack_id.split("/")[1]


def gone(stack_id: str) -> Stack:
    """A stack that AWS knows nothing of any more."""
    past = datetime.fromtimestamp(0, tz=timezone.utc)
    return Stack(name_of(stack_id), stack_id, GONE, "", {}, {}, past, past)


def our_stack(aws: Aws, name: str, owner: Owner) -> Stack | None:
    """The stack of a name, if it is the owner's. Raises NotOurs for somebody else's."""
    stack = find_stack(aws, name)
    if stack is None or owner.owns(stack.tags):
        return stack
    if stack.status == REVIEW and not stack.tags:
        return stack  # AWS tags it when it is made; until then it holds nothing
    raise NotOurs(
        f"the stack {name} exists and is not fdeploy's stage {owner.stage} of {owner.project}: "
        "its tags say otherwise",
        hint="choose another project name, or remove that stack yourself",
    )


def resources(aws: Aws, stack: Stack) -> list[Resource]:
    """The resources of a stack that exist. Raises AwsError."""
    return [
        Resource(
            logical_id=item["LogicalResourceId"],
            physical_id=item.get("PhysicalResourceId", ""),
            type=item["ResourceType"],
            status=item["ResourceStatus"],
        )
        for page in aws.pages("cloudformation", "list_stack_resources", StackName=stack.id)
        for item in page["StackResourceSummaries"]
        if item["ResourceStatus"] != "DELETE_COMPLETE"
    ]


def first_of(found: list[Resource], kind: str) -> Resource | None:
    """The resource of a type, such as ``AWS::SageMaker::Endpoint``."""
    return next((resource for resource in found if resource.type == kind), None)


def template_of(aws: Aws, stack: Stack) -> dict[str, Any]:
    """The template that a stack was made from. Raises AwsError."""
    answer = aws.call(
        "cloudformation", "get_template", StackName=stack.id, TemplateStage="Original"
    )
    body = answer["TemplateBody"]
    # botocore parses a JSON template itself.
    return json.loads(body) if isinstance(body, str) else dict(body)

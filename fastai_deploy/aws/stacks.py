"""CloudFormation stacks: their state, their resources, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.errors import AwsMissing, NotOurs
from fastai_deploy.naming import ID_TAG

GONE = "DELETE_COMPLETE"
REVIEW = "REVIEW_IN_PROGRESS"  # only a change set exists yet
READY = frozenset(
    (
        "CREATE_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
    )
)
# A stack in these states cannot be updated: it is deleted before a new one is created.
SPOILED = frozenset(("CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"))
# The previous version may still be serving; AWS must finish the rollback to it.
HALF_BACK = frozenset(("UPDATE_FAILED", "UPDATE_ROLLBACK_FAILED"))
SUCCEEDED = frozenset(("CREATE_COMPLETE", "UPDATE_COMPLETE"))


@dataclass(frozen=True)
class Stack:
    """A stack; ``id`` is its ARN, by which it can be found even after its deletion.

    ``protected``: it has termination protection.
    """

    name: str
    id: str
    status: str
    reason: str
    tags: Mapping[str, str]
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    created: datetime
    updated: datetime
    protected: bool = False

    @property
    def working(self) -> bool:
        """Whether an operation is running."""
        return self.status.endswith("_IN_PROGRESS") and self.status != REVIEW


@dataclass(frozen=True)
class Resource:
    """A resource of a stack; ``physical_id`` is what ``Ref`` returns: a name or an ARN."""

    logical_id: str
    physical_id: str
    type: str
    status: str

    @property
    def name(self) -> str:
        """The last part of the physical ID, which is the name if that is an ARN."""
        return self.physical_id.rpartition("/")[2]


def find_stack(aws: Aws, name: str) -> Stack | None:
    """Find a stack by name or ID; None if it does not exist. Raises AwsError."""
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
        parameters={
            each["ParameterKey"]: each.get("ParameterValue", "")
            for each in found.get("Parameters", [])
        },
        created=found["CreationTime"],
        updated=found.get("LastUpdatedTime", found["CreationTime"]),
        protected=found.get("EnableTerminationProtection", False),
    )
    return None if stack.status == GONE and name != stack.id else stack


def name_of(stack_id: str) -> str:
    """The name in a stack's ARN."""
    return stack_id.split("/")[1]


def gone(stack_id: str) -> Stack:
    """A deleted stack that AWS no longer lists."""
    past = datetime.fromtimestamp(0, tz=timezone.utc)
    return Stack(name_of(stack_id), stack_id, GONE, "", {}, {}, {}, past, past)


def is_of(owner: Owner, stack: Stack) -> bool:
    """Whether a stack belongs to the owner.

    One that is empty does, as whoever first executes a change set gets it.
    """
    empty = stack.status == REVIEW and (not stack.tags or owner.is_named(stack.tags))
    return empty or owner.owns(stack.tags)


def our_stack(aws: Aws, name: str, owner: Owner) -> Stack | None:
    """Find a stack that belongs to the owner. Raises NotOurs if it is someone else's."""
    stack = find_stack(aws, name)
    if stack is None or is_of(owner, stack):
        return stack
    raise not_ours(owner, stack)


def not_ours(owner: Owner, stack: Stack) -> NotOurs:
    """The error for a stack that has the name of one of the owner's."""
    if owner.is_named(stack.tags):
        return of_another_id(owner, stack.tags[ID_TAG])
    return NotOurs(
        f"the stack {stack.name} exists, but its tags do not mark it as stage {owner.stage} of the "
        f"fdeploy project {owner.project}",
        hint="choose another project name, or delete that stack yourself",
    )


@dataclass(frozen=True)
class StageStacks:
    """The stacks of a stage's names: the stage's own, and those that only have such a name."""

    ours: tuple[Stack, ...]
    strangers: tuple[Stack, ...]

    def refuse_strangers_alone(self, owner: Owner) -> None:
        """Raise NotOurs if the stage has no stack, and somebody else has one of such a name."""
        if self.strangers and not self.ours:
            raise not_ours(owner, self.strangers[0])


def stage_stacks(aws: Aws, names: Sequence[str], owner: Owner) -> StageStacks:
    """Find the stacks of a stage's names.

    Raises NotOurs for those of another project of the name, with which the stage would share its
    folder in the bucket, or AwsError.
    """
    found = [stack for name in names if (stack := find_stack(aws, name)) is not None]
    ours = tuple(stack for stack in found if is_of(owner, stack))
    strangers = tuple(stack for stack in found if not is_of(owner, stack))
    for stack in strangers:
        if owner.is_named(stack.tags):
            raise not_ours(owner, stack)
    return StageStacks(ours, strangers)


def of_another_id(owner: Owner, theirs: str) -> NotOurs:
    """The error for a stage of the same name that is another project's."""
    own = f"is {owner.id}" if owner.id else "is missing"
    same = (
        "to take it over, run fdeploy deploy --adopt, or to delete it fdeploy teardown --adopt"
        if owner.id
        else f'if it is this project, add id = "{theirs}" to [project] in fdeploy.toml'
    )
    return NotOurs(
        f"the stage {owner.stage} of a project {owner.project} exists in this account and region, "
        f"and its id is {theirs}, while the id in this folder {own}: it is another project's",
        hint=f"set another name in [project]; {same}",
    )


def resources(aws: Aws, stack: Stack) -> list[Resource]:
    """The existing resources of a stack. Raises AwsError."""
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
    """The first resource of a type, such as ``AWS::SageMaker::Endpoint``."""
    return next((resource for resource in found if resource.type == kind), None)


def template_of(aws: Aws, stack: Stack) -> Template:
    """The template that a stack was made from, with its parameters. Raises AwsError."""
    answer = aws.call(
        "cloudformation", "get_template", StackName=stack.id, TemplateStage="Original"
    )
    body = answer["TemplateBody"]
    # botocore parses a template itself when it is JSON.
    text = body if isinstance(body, str) else json.dumps(body)
    return Template(text, stack.parameters)

"""CloudFormation stacks and change sets: what a stack is now, and what an update would change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fastai_deploy.aws.bucket import delete_objects, find_bucket, object_versions
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.errors import AwsError, AwsMissing, DeployError, NotOurs
from fastai_deploy.naming import template_key
from fastai_deploy.records import Action, PlannedChange

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
    parameters: Mapping[str, str]
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
    """The name in the ARN of a stack."""
    return stack_id.split("/")[1]


def gone(stack_id: str) -> Stack:
    """A stack that AWS knows nothing of any more."""
    past = datetime.fromtimestamp(0, tz=timezone.utc)
    return Stack(name_of(stack_id), stack_id, GONE, "", {}, {}, {}, past, past)


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


def template_of(aws: Aws, stack: Stack) -> Template:
    """The template that a stack was made from, with its parameters. Raises AwsError."""
    answer = aws.call(
        "cloudformation", "get_template", StackName=stack.id, TemplateStage="Original"
    )
    body = answer["TemplateBody"]
    # botocore parses a template itself when it is JSON.
    text = body if isinstance(body, str) else json.dumps(body)
    return Template(text, stack.parameters)


_POLL_SECONDS = 1.0
_WAIT_SECONDS = 300.0
_MAX_BODY = 51_200  # bytes of a template that is sent as it is (AWS: CloudFormation quotas)
_EMPTY = ("didn't contain changes", "No updates are to be performed")
_NAME_PREFIX = "fdeploy-"


@dataclass(frozen=True)
class StackRequest:
    """What a stack is to be: its template with parameters, and the tags of all that is in it.

    ``protected``: AWS refuses to delete it until that is switched off.
    """

    name: str
    template: Template
    tags: Mapping[str, str]
    protected: bool = False


@dataclass(frozen=True)
class TemplateFolder:
    """Where a template stands while CloudFormation reads it, if it is too large to be sent.

    It is below the stage's folder of the bucket, so that a teardown removes what an interruption
    left. ``bucket`` is the user's own, or None for fdeploy's.
    """

    owner: Owner
    bucket: str | None = None

    @contextmanager
    def source(self, aws: Aws, request: StackRequest) -> Iterator[dict[str, str]]:
        """The parameter of CreateChangeSet that gives the template.

        Raises AwsError, or DeployError where there is no bucket yet.
        """
        content = request.template.text.encode()
        if len(content) <= _MAX_BODY:
            yield {"TemplateBody": request.template.text}
            return
        bucket = find_bucket(aws, self.bucket)
        if bucket is None:
            raise DeployError(
                f"the template of {request.name} has {len(content):,} bytes; above {_MAX_BODY:,} "
                "CloudFormation reads it from the bucket, and there is none yet",
                hint="run fdeploy upload",
            )
        digest = hashlib.sha256(content).hexdigest()
        key = template_key(self.owner.project, self.owner.stage, digest)
        aws.call("s3", "put_object", **bucket.owned, Key=key, Body=content)
        try:
            endpoint = aws.client("s3").meta.endpoint_url
            yield {"TemplateURL": f"{endpoint}/{bucket.name}/{key}"}
        finally:
            delete_objects(aws, bucket, [*object_versions(aws, bucket, key)])


@dataclass(frozen=True)
class Change:
    """What happens to one resource.

    ``action`` is Add, Modify or Remove; ``replacement`` is True, False, Conditional or nothing;
    ``properties`` are those that change.
    """

    action: str
    logical_id: str
    type: str
    physical_id: str
    replacement: str
    properties: tuple[str, ...]


@dataclass(frozen=True)
class ChangeSet:
    """A change set that can be executed."""

    id: str
    stack_id: str
    changes: tuple[Change, ...]


def create_change_set(
    aws: Aws, request: StackRequest, folder: TemplateFolder, *, new: bool, token: str
) -> ChangeSet | None:
    """Ask CloudFormation what would change; None when nothing would.

    ``new`` makes a stack; ``token`` names the request; ``folder`` is for large templates. Raises
    AwsError, or DeployError for a template that CloudFormation refuses.
    """
    name = _NAME_PREFIX + token.rpartition("-")[2]
    parameters = request.template.parameters.items()
    with folder.source(aws, request) as source:
        try:
            aws.call(
                "cloudformation",
                "create_change_set",
                StackName=request.name,
                ChangeSetName=name,
                ChangeSetType="CREATE" if new else "UPDATE",
                ClientToken=token,
                **source,
                Parameters=[
                    {"ParameterKey": key, "ParameterValue": value} for key, value in parameters
                ],
                Tags=[{"Key": key, "Value": value} for key, value in sorted(request.tags.items())],
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Description="made by fdeploy",
            )
        except AwsError as error:
            # The answer to the first attempt was lost, and botocore asked again: it is ours.
            if error.aws_code != "AlreadyExistsException" or name not in error.message:
                raise
        return _settled(aws, request.name, name)


def execute_change_set(aws: Aws, change_set: ChangeSet, *, token: str) -> None:
    """Begin to execute; ``token`` marks the events. Raises AwsError."""
    try:
        aws.call(
            "cloudformation",
            "execute_change_set",
            StackName=change_set.stack_id,
            ChangeSetName=change_set.id,
            ClientRequestToken=token,
        )
    except AwsError as error:
        # As above: a change set that is at work was begun by the attempt before.
        if error.aws_code != "InvalidChangeSetStatus" or "EXECUTE" not in error.message:
            raise


def delete_change_set(aws: Aws, change_set: ChangeSet) -> None:
    """Forget a plan. Raises AwsError."""
    aws.call(
        "cloudformation",
        "delete_change_set",
        StackName=change_set.stack_id,
        ChangeSetName=change_set.id,
    )


def _settled(aws: Aws, stack: str, name: str) -> ChangeSet | None:
    """Wait until a change set is complete, or FAILED because it would change nothing."""
    deadline = aws.clock() + _WAIT_SECONDS
    while True:
        pages = list(
            aws.pages("cloudformation", "describe_change_set", StackName=stack, ChangeSetName=name)
        )
        found = pages[0]
        if found["Status"] == "CREATE_COMPLETE":
            changes = tuple(_change(item) for page in pages for item in page["Changes"])
            return ChangeSet(found["ChangeSetId"], found["StackId"], changes)
        if found["Status"] == "FAILED":
            reason = found.get("StatusReason", "")
            delete_change_set(aws, ChangeSet(found["ChangeSetId"], found["StackId"], ()))
            if any(words in reason for words in _EMPTY):
                return None
            raise DeployError(
                f"CloudFormation refuses the plan for {stack}: {reason}",
                hint="mend what it names, then run the same command again",
            )
        if aws.clock() > deadline:
            raise DeployError(
                f"the plan for {stack} was not ready after {_WAIT_SECONDS:g} s",
                hint="run the same command again",
            )
        aws.sleep(_POLL_SECONDS)


def _change(item: Mapping[str, Any]) -> Change:
    change = item["ResourceChange"]
    targets = [detail["Target"] for detail in change.get("Details", [])]
    names = {target.get("Name") or target["Attribute"] for target in targets}
    return Change(
        action=change["Action"],
        logical_id=change["LogicalResourceId"],
        type=change["ResourceType"],
        physical_id=change.get("PhysicalResourceId", ""),
        replacement=change.get("Replacement", ""),
        properties=tuple(sorted(names)),
    )


_ACTIONS: dict[str, Action] = {"Add": "add", "Remove": "remove"}
_SERVES = frozenset(
    (
        "AWS::ApiGateway::ApiKey",
        "AWS::ApiGateway::RestApi",
        "AWS::ApiGatewayV2::Api",
        "AWS::SageMaker::Endpoint",
    )
)


def planned(stack: str, change_set: ChangeSet | None) -> tuple[PlannedChange, ...]:
    """The changes of one stack; None of them where nothing changes."""
    return tuple(_planned(stack, change) for change in (change_set.changes if change_set else ()))


def _planned(stack: str, change: Change) -> PlannedChange:
    action = _ACTIONS.get(change.action, "change")
    if change.replacement == "True":
        action = "replace"
    return PlannedChange(
        stack=stack,
        action=action,
        type=change.type.removeprefix("AWS::"),
        name=change.logical_id,
        properties=change.properties,
        interrupts=action in ("replace", "remove") and change.type in _SERVES,
    )

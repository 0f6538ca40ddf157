"""A change set: the plan of a stack operation, made and executed by CloudFormation.

    request --create--> ChangeSet --execute--> the stack's events tell the rest
                └─────> None: nothing changes, which is no error

Sources: the API references of CreateChangeSet, DescribeChangeSet and ExecuteChangeSet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsError, DeployError

_POLL_SECONDS = 1.0
_WAIT_SECONDS = 300.0
_MAX_BODY = 51_200  # bytes of a template that is sent as it is (AWS: CloudFormation quotas)
_EMPTY = ("didn't contain changes", "No updates are to be performed")
_NAME_PREFIX = "fdeploy-"


@dataclass(frozen=True)
class StackRequest:
    """What a stack is to be: its whole template, and the tags of all that is in it.

    ``protected``: AWS refuses to delete it until that is switched off.
    """

    name: str
    template: Mapping[str, Any]
    tags: Mapping[str, str]
    protected: bool = False

    @property
    def body(self) -> str:
        """The template as it is sent. Raises DeployError when AWS would not take it."""
        body = json.dumps(self.template, separators=(",", ":"), ensure_ascii=False)
        if len(body.encode()) > _MAX_BODY:
            raise DeployError(
                f"the template of {self.name} has {len(body.encode()):,} bytes; "
                f"CloudFormation takes {_MAX_BODY:,}",
                hint="leave out optional parts, such as the dashboard",
            )
        return body


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
    aws: Aws, request: StackRequest, *, new: bool, token: str
) -> ChangeSet | None:
    """Ask CloudFormation what would change; None when nothing would.

    ``new`` makes a stack; ``token`` names the request. Raises AwsError, or DeployError for a
    template that CloudFormation refuses.
    """
    name = _NAME_PREFIX + token.rpartition("-")[2]
    try:
        aws.call(
            "cloudformation",
            "create_change_set",
            StackName=request.name,
            ChangeSetName=name,
            ChangeSetType="CREATE" if new else "UPDATE",
            ClientToken=token,
            TemplateBody=request.body,
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

"""CloudFormation change sets: what an update of a stack would change, and its start.

StackRequest --create_change_set--> ChangeSet --execute_change_set--> the stack's events
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastai_deploy.aws.bucket import delete_objects, find_bucket, object_versions
from fastai_deploy.aws.log_groups import LOG_GROUP, deletion_command, is_free
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.aws.templates.update import adopting
from fastai_deploy.errors import AwsError, DeployError
from fastai_deploy.naming import template_key
from fastai_deploy.stage_reports import Action, PlannedChange

_POLL_SECONDS = 1.0
_WAIT_SECONDS = 300.0
_MAX_BODY = 51_200  # bytes of a template in a request (AWS: CloudFormation quotas)
_EMPTY = ("didn't contain changes", "No updates are to be performed")
_EARLY_VALIDATION = "AWS::EarlyValidation"
_NAME_PREFIX = "fdeploy-"


@dataclass(frozen=True)
class StackRequest:
    """The desired state of a stack: its template with parameters, and the tags of its resources.

    ``protected``: it has termination protection.
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
    """A change to one resource.

    ``action`` is Add, Modify or Remove; ``replacement`` is True, False, Conditional or empty;
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
    """A change set that can be executed; it takes the log groups ``adopted`` into the stack."""

    id: str
    stack_id: str
    changes: tuple[Change, ...]
    adopted: tuple[str, ...] = ()


def service_role(role: str | None) -> dict[str, str]:
    """The parameter that names the role CloudFormation works with; none for the caller's own.

    A stack remembers the role of its last change set; one from before the setting has none.
    """
    return {"RoleARN": role} if role else {}


def create_change_set(
    aws: Aws,
    request: StackRequest,
    folder: TemplateFolder,
    *,
    new: bool,
    token: str,
    role: str | None = None,
) -> ChangeSet | None:
    """Create a change set; None if nothing would change.

    ``new`` creates the stack; ``token`` identifies the request; ``folder`` is for large templates;
    ``role`` is the one that CloudFormation works with. Log groups that an earlier endpoint or
    Lambda of this name left are adopted, unless their tags are somebody else's. Raises AwsError, or
    DeployError if CloudFormation rejects the template.
    """
    try:
        return _created(aws, request, folder, new=new, token=token, role=role)
    except _Rejected as rejected:
        left = rejected.log_groups()
        if not left or not all(is_free(aws, name, folder.owner) for name in left.values()):
            raise rejected.error(aws.region) from None
    adopting_request = replace(request, template=adopting(request.template, left))
    try:
        made = _created(
            aws, adopting_request, folder, new=new, token=f"{token}a", role=role, imports=True
        )
    except _Rejected as again:
        raise again.error(aws.region) from None
    return made and replace(made, adopted=tuple(left.values()))


def _created(
    aws: Aws,
    request: StackRequest,
    folder: TemplateFolder,
    *,
    new: bool,
    token: str,
    role: str | None,
    imports: bool = False,
) -> ChangeSet | None:
    """Create a change set and wait for it. Raises _Rejected."""
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
                **service_role(role),
                Parameters=[
                    {"ParameterKey": key, "ParameterValue": value} for key, value in parameters
                ],
                Tags=[{"Key": key, "Value": value} for key, value in sorted(request.tags.items())],
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Description="made by fdeploy",
                **({"ImportExistingResources": True} if imports else {}),
            )
        except AwsError as error:
            # Created by an earlier attempt whose answer was lost; botocore has retried it.
            if error.aws_code != "AlreadyExistsException" or name not in error.message:
                raise
        return _settled(aws, request.name, name)


def execute_change_set(aws: Aws, change_set: ChangeSet, *, token: str) -> None:
    """Start executing a change set; ``token`` marks its events. Raises AwsError."""
    try:
        aws.call(
            "cloudformation",
            "execute_change_set",
            StackName=change_set.stack_id,
            ChangeSetName=change_set.id,
            ClientRequestToken=token,
        )
    except AwsError as error:
        # As above: started by an earlier attempt whose answer was lost.
        if error.aws_code != "InvalidChangeSetStatus" or "EXECUTE" not in error.message:
            raise


def delete_change_set(aws: Aws, change_set: ChangeSet) -> None:
    """Delete a change set. Raises AwsError."""
    aws.call(
        "cloudformation",
        "delete_change_set",
        StackName=change_set.stack_id,
        ChangeSetName=change_set.id,
    )


def _settled(aws: Aws, stack: str, name: str) -> ChangeSet | None:
    """Wait until a change set is complete; None if it failed because nothing would change."""
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
            change_set = ChangeSet(found["ChangeSetId"], found["StackId"], ())
            problems = _problems(aws, change_set) if _EARLY_VALIDATION in reason else []
            delete_change_set(aws, change_set)
            if any(words in reason for words in _EMPTY):
                return None
            raise _Rejected(stack, reason, problems)
        if aws.clock() > deadline:
            raise DeployError(
                f"the change set for {stack} was not ready after {_WAIT_SECONDS:g} s",
                hint="run the same command again",
            )
        aws.sleep(_POLL_SECONDS)


@dataclass(frozen=True)
class _Problem:
    """What early validation found wrong with a resource; ``name`` is its physical ID."""

    resource: str
    type: str
    name: str
    reason: str


def _problems(aws: Aws, change_set: ChangeSet) -> list[_Problem]:
    """The findings of early validation, which only DescribeEvents names; none if it may not.

    Source: "Validate stack deployments" in the CloudFormation guide.
    """
    try:
        pages = list(
            aws.pages(
                "cloudformation",
                "describe_events",
                StackName=change_set.stack_id,
                ChangeSetName=change_set.id,
                Filters={"FailedEvents": True},
            )
        )
    except AwsError:
        return []
    return [
        _Problem(
            resource=item.get("LogicalResourceId", ""),
            type=item.get("ResourceType", ""),
            name=item.get("PhysicalResourceId", ""),
            reason=item.get("ValidationStatusReason", ""),
        )
        for page in pages
        for item in page["OperationEvents"]
        if item.get("EventType") == "VALIDATION_ERROR"
    ]


class _Rejected(Exception):
    """CloudFormation rejected a change set, for these problems as far as they are known."""

    def __init__(self, stack: str, reason: str, problems: list[_Problem]) -> None:
        super().__init__(reason)
        self._stack = stack
        self._reason = reason
        self._problems = problems

    def log_groups(self) -> dict[str, str]:
        """The existing log groups by logical ID; none if there are other problems, too."""
        found = {each.resource: each.name for each in self._problems if each.type == LOG_GROUP}
        whole = len(found) == len(self._problems) and all(found.values())
        return found if whole else {}

    def error(self, region: str) -> DeployError:
        """The error for people."""
        reason, hint = self._reason, "fix the cause, then run the same command again"
        if self._problems:
            reason = "; ".join(f"{it.type} {it.resource}: {it.reason}" for it in self._problems)
        elif _EARLY_VALIDATION in reason:
            hint = f"get cloudformation:DescribeEvents to see which resource it is; {hint}"
        if groups := self.log_groups():
            delete = " && ".join(deletion_command(name, region) for name in groups.values())
            hint = (
                "its tags are somebody else's, or could not be read: make sure that nobody needs "
                f"it, delete it with {delete}, then run the same command again"
            )
        return DeployError(
            f"CloudFormation rejected the change set for {self._stack}: {reason}", hint=hint
        )


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
    """The planned changes of a stack; empty if nothing changes."""
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

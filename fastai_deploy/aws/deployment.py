"""Runs CloudFormation operations: applies a template to a stack, whatever state the stack is in.

Each operation carries a token that says who started it, and its events are followed to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastai_deploy.aws import stacks
from fastai_deploy.aws.change_sets import (
    ChangeSet,
    StackRequest,
    TemplateFolder,
    create_change_set,
    delete_change_set,
    execute_change_set,
    planned,
    service_role,
)
from fastai_deploy.aws.log_groups import adopt_settings, adoption_message
from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import Stack, our_stack
from fastai_deploy.errors import AwsError, AwsMissing, FdeployError, StackBusy, StackFailed
from fastai_deploy.progress import Happened, Planned, Reporter, Step, Warned

_STACK = "AWS::CloudFormation::Stack"
_BEGINNINGS = frozenset(("CREATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "UPDATE_IN_PROGRESS"))


@dataclass(frozen=True)
class StackEvent:
    """An event of a stack or one of its resources."""

    id: str
    at: datetime
    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str
    token: str
    of_stack: bool

    @property
    def failed(self) -> bool:
        """Whether this is a failure of its own, not one cancelled by another failure."""
        return self.status.endswith("_FAILED") and "cancelled" not in self.reason


class EventTail:
    """Reads the new events of a stack."""

    def __init__(self, aws: Aws, stack_id: str, seen: str = "") -> None:
        self._aws = aws
        self._stack_id = stack_id
        self._seen = seen

    @classmethod
    def from_now(cls, aws: Aws, stack_id: str) -> EventTail:
        """Start after the newest existing event. Raises AwsError."""
        newest = next(_newest_first(aws, stack_id), None)
        return cls(aws, stack_id, newest.id if newest else "")

    @classmethod
    def of_running(cls, aws: Aws, stack_id: str) -> EventTail:
        """Start at the first event of the running operation. Raises AwsError."""
        token: str | None = None
        begun = False
        for event in _newest_first(aws, stack_id):
            if begun or token not in (None, event.token):
                return cls(aws, stack_id, event.id)
            token = event.token
            # An operation started in the console has no token; the stack's own event comes first.
            begun = not token and event.of_stack and event.status in _BEGINNINGS
        return cls(aws, stack_id)

    def new(self) -> list[StackEvent]:
        """The events since the last call, oldest first. Raises AwsError."""
        found: list[StackEvent] = []
        for event in _newest_first(self._aws, self._stack_id):
            if event.id == self._seen:
                break
            found.append(event)
        if found:
            self._seen = found[0].id
        return found[::-1]


def newest_token(aws: Aws, stack_id: str) -> str:
    """The ClientRequestToken of the newest event; empty if it has none. Raises AwsError."""
    newest = next(_newest_first(aws, stack_id), None)
    return newest.token if newest else ""


def _newest_first(aws: Aws, stack_id: str) -> Iterator[StackEvent]:
    for page in aws.pages("cloudformation", "describe_stack_events", StackName=stack_id):
        for item in page["StackEvents"]:
            yield _event(item)


def _event(item: dict[str, Any]) -> StackEvent:
    physical_id = item.get("PhysicalResourceId", "")
    return StackEvent(
        id=item["EventId"],
        at=item["Timestamp"],
        logical_id=item["LogicalResourceId"],
        physical_id=physical_id,
        type=item.get("ResourceType", ""),
        status=item.get("ResourceStatus", ""),
        reason=item.get("ResourceStatusReason", ""),
        token=item.get("ClientRequestToken", ""),
        of_stack=item.get("ResourceType") == _STACK and physical_id == item["StackId"],
    )


_FIRST_POLL_SECONDS = 0.25  # then twice as long each time: short operations end at once
_POLL_SECONDS = 2.0
_LOOK_EVERY = 10  # polls without events between status checks; a stack event triggers one at once
_NO_REASON = "AWS gives no reason"

Watch = Callable[[StackEvent], None]


class StackOperations:
    """Runs operations; ``watch`` receives each event, as the reporter does.

    ``role`` is the one that CloudFormation works with, or None for the caller's permissions.
    """

    def __init__(
        self,
        aws: Aws,
        operator: Operator,
        report: Reporter,
        watch: Watch,
        *,
        role: str | None = None,
    ) -> None:
        self._aws = aws
        self._role = service_role(role)
        self._operator = operator
        self._report = report
        self._watch = watch

    def execute(self, change_set: ChangeSet) -> Stack:
        """Execute a change set. Raises StackFailed if AWS rolled it back."""
        tail = EventTail.from_now(self._aws, change_set.stack_id)
        execute_change_set(self._aws, change_set, token=self._operator.token())
        return self._ended(change_set.stack_id, tail, stacks.SUCCEEDED)

    def attach(self, stack: Stack) -> None:
        """Wait for the running operation. Raises StackFailed if it fails."""
        self._report(Step(f"{stack.name} is {stack.status}: waiting for the running operation"))
        tail = EventTail.of_running(self._aws, stack.id)
        self._ended(stack.id, tail, stacks.SUCCEEDED | {stacks.GONE})

    def go_back(self, stack: Stack) -> None:
        """Have AWS finish a rollback that failed or was disabled."""
        self._report(Step(f"{stack.name} is {stack.status}: rolling back to the previous state"))
        given_up = stack.status == "UPDATE_ROLLBACK_FAILED"
        self._run(stack, "continue_update_rollback" if given_up else "rollback_stack", stacks.READY)

    def delete(self, stack: Stack, *, retain_stuck: bool = False) -> None:
        """Delete a stack and its resources. Raises StackFailed if AWS cannot.

        ``retain_stuck`` retains resources that an earlier attempt could not delete.
        """
        parameters: dict[str, Any] = {}
        if retain_stuck and stack.status == "DELETE_FAILED":
            stuck = [
                resource.logical_id
                for resource in stacks.resources(self._aws, stack)
                if resource.status == "DELETE_FAILED"
            ]
            parameters["RetainResources"] = stuck
        self._run(stack, "delete_stack", frozenset((stacks.GONE,)), **parameters)

    def begin_delete(self, stack: Stack) -> None:
        """Start deleting a stack without waiting. Raises AwsError."""
        self._report(Step(f"asking AWS to delete {stack.name}"))
        token = self._operator.token()
        self._aws.call(
            "cloudformation",
            "delete_stack",
            StackName=stack.id,
            ClientRequestToken=token,
            **self._role,
        )

    def _run(self, stack: Stack, operation: str, good: frozenset[str], **parameters: Any) -> None:
        tail = EventTail.from_now(self._aws, stack.id)
        self._aws.call(
            "cloudformation",
            operation,
            StackName=stack.id,
            ClientRequestToken=self._operator.token(),
            **self._role,
            **parameters,
        )
        self._ended(stack.id, tail, good)

    def _ended(self, stack_id: str, tail: EventTail, good: frozenset[str]) -> Stack:
        """Report events until the operation ends. Raises StackFailed unless it ends in ``good``."""
        seen: list[StackEvent] = []
        try:
            stack = self._follow(stack_id, tail, seen)
        except (KeyboardInterrupt, AwsError):
            self._report(
                Warned(
                    "AWS continues the operation in the background",
                    hint="run the same command again to follow it",
                )
            )
            raise
        if stack.status not in good:
            raise failed(stack, seen)
        return stack

    def _follow(self, stack_id: str, tail: EventTail, seen: list[StackEvent]) -> Stack:
        quiet, wait = 0, _FIRST_POLL_SECONDS
        while True:
            new = self._heard(stack_id, tail, seen)
            quiet = 0 if new else quiet + 1
            if any(event.of_stack for event in new) or quiet % _LOOK_EVERY == 1:
                stack = stacks.find_stack(self._aws, stack_id)
                if stack is None:  # it never had resources, and AWS no longer lists it
                    return stacks.gone(stack_id)
                if not stack.working:
                    self._heard(stack_id, tail, seen)  # what came since, such as the reason
                    return stack
            self._aws.sleep(wait)
            wait = min(2 * wait, _POLL_SECONDS)

    def _heard(self, stack_id: str, tail: EventTail, seen: list[StackEvent]) -> list[StackEvent]:
        """Report the new events, and add them to those seen."""
        new = tail.new()
        for event in new:
            seen.append(event)
            self._report(_happened(stack_id, event))
            self._watch(event)
        return new


def _happened(stack_id: str, event: StackEvent) -> Happened:
    return Happened(
        stack=stacks.name_of(stack_id),
        type=event.type.removeprefix("AWS::"),
        name=event.logical_id,
        status=event.status,
        reason=event.reason,
        failed=event.failed,
        ended=event.of_stack and not event.status.endswith("_IN_PROGRESS"),
    )


def failed(stack: Stack, events: list[StackEvent]) -> StackFailed:
    """The error of a failed operation, caused by the first failure among its events."""
    first = next((event for event in events if event.failed and event.reason), None)
    reason = first.reason if first else stack.reason or _NO_REASON
    culprit = f"{first.type} {first.logical_id}: " if first else ""
    return StackFailed(
        f"the stack {stack.name} is {stack.status}: {culprit}{reason}",
        hint="fix the cause, then run the same command again",
        reason=reason,
    )


_MOST_ROUNDS = 6  # settling takes two or three; more means that someone else changes the stack


@dataclass(frozen=True)
class Applied:
    """The stack after applying a request, and whether anything changed."""

    stack: Stack
    changed: bool


@dataclass(frozen=True)
class Plan:
    """What a request would change; ``stack`` is None if new, ``changes`` None for no change."""

    stack: Stack | None
    changes: ChangeSet | None


class Deployment:
    """Applies and deletes the stacks of one owner.

    ``watch`` receives each event; ``bucket`` is the user's own, or None for fdeploy's; ``role`` is
    the one that CloudFormation works with, or None for the caller's permissions.
    """

    def __init__(
        self,
        aws: Aws,
        owner: Owner,
        operator: Operator,
        report: Reporter,
        watch: Watch = lambda _event: None,
        *,
        bucket: str | None = None,
        role: str | None = None,
    ) -> None:
        self._aws = aws
        self._role = role
        self._owner = owner
        self._operator = operator
        self._report = report
        self._folder = TemplateFolder(owner, bucket)
        self._operations = StackOperations(aws, operator, report, watch, role=role)

    def live(self, name: str) -> StackRequest | None:
        """The request that describes the stack as it is; None if there is no stack.

        Waits for a running operation. Raises AwsError, NotOurs, StackBusy or StackFailed.
        """
        stack = self._settled(name)
        if stack is None:
            return None
        template = stacks.template_of(self._aws, stack)
        return StackRequest(name, template, stack.tags, stack.protected)

    def settle(self, name: str) -> None:
        """Wait for a running operation on a stack, whatever its result.

        Raises StackBusy if someone else has begun it, NotOurs or AwsError.
        """
        stack = our_stack(self._aws, name, self._owner)
        if stack is not None and stack.working:
            self._await(stack)

    def plan(self, request: StackRequest) -> Plan:
        """What applying the request would change; the change set is deleted again.

        Raises DeployError, and the errors of :meth:`live`.
        """
        stack = self._settled(request.name)
        change_set = self._change_set(request, stack)
        if change_set is not None:
            self._forget(change_set, stack)
        return Plan(stack, change_set)

    def apply(
        self,
        request: StackRequest,
        ready: Callable[[], None] = lambda: None,
        *,
        since: Stack | None = None,
    ) -> Applied:
        """Create or update the stack.

        ``ready`` is called before changing anything and can stop it by raising. ``since`` is the
        stack on whose state the request is based. Raises StackFailed if AWS rolled back to the
        previous state, StackBusy if the stack was changed ``since``, and the errors of
        :meth:`plan`.
        """
        stack = self._settled(request.name)
        if since is not None:
            self.check_unchanged(since)
        change_set = self._change_set(request, stack)
        if change_set is None:
            if stack is None:
                raise StackFailed(
                    f"the change set for {request.name} is empty",
                    hint="report this as a bug",
                    reason="",
                )
            self._report(Step(f"{request.name} is up to date"))
            self._protect(stack, protected=request.protected)
            return Applied(stack, changed=False)
        self._report(Planned(request.name, planned(request.name, change_set)))
        try:
            ready()
            adopt_settings(self._aws, request.template, change_set.adopted)
        except FdeployError:
            self._forget(change_set, stack)
            raise
        made = self._operations.execute(change_set)
        if self._protect(made, protected=request.protected):
            made = stacks.find_stack(self._aws, made.id) or made
        return Applied(made, changed=True)

    def check_unchanged(self, since: Stack) -> None:
        """Raise StackBusy if another operation has changed a stack since it was in this state."""
        now = stacks.find_stack(self._aws, since.id)
        if now is None or now.updated == since.updated:
            return
        raise StackBusy(
            f"{_who(Operator.of(newest_token(self._aws, since.id)))} changed the stack "
            f"{since.name} at {now.updated:%H:%M:%S} UTC, while this command verified its own "
            "change; the stack stays as it is",
            hint="wait until nobody else deploys this stage, then run the same command again",
        )

    def remove(self, name: str, *, retain_stuck: bool = False) -> bool:
        """Delete a stack and its resources; return whether it existed.

        ``retain_stuck`` retains resources that AWS could not delete before. Raises StackFailed if
        AWS cannot delete it, NotOurs, StackBusy or AwsError.
        """
        stack = our_stack(self._aws, name, self._owner)
        if stack is None:
            return False
        if stack.working:
            self._await(stack)
            stack = our_stack(self._aws, name, self._owner)
        if stack is not None:
            self._protect(stack, protected=False)
            self._operations.delete(stack, retain_stuck=retain_stuck)
        return True

    def begin_removal(self, name: str) -> bool:
        """Start deleting a stack without waiting; return whether it exists.

        Raises NotOurs, StackBusy or AwsError.
        """
        stack = our_stack(self._aws, name, self._owner)
        if stack is None:
            return False
        if stack.working:
            self._check_operator(stack)
        self._protect(stack, protected=False)
        self._operations.begin_delete(stack)
        return True

    def _forget(self, change_set: ChangeSet, stack: Stack | None) -> None:
        """Delete a change set; for a new stack, delete the empty stack that AWS created for it.

        Someone else may have executed a change set of their own meanwhile: their stack stays.
        """
        made = stacks.find_stack(self._aws, change_set.stack_id) if stack is None else None
        if made is not None and made.status == stacks.REVIEW:
            self._aws.call("cloudformation", "delete_stack", StackName=change_set.stack_id)
            return
        with suppress(AwsMissing):  # AWS deletes the others when one is executed
            delete_change_set(self._aws, change_set)

    def _protect(self, stack: Stack, *, protected: bool) -> bool:
        """Set termination protection; whether that changed anything."""
        if stack.protected == protected:
            return False
        self._aws.call(
            "cloudformation",
            "update_termination_protection",
            StackName=stack.id,
            EnableTerminationProtection=protected,
        )
        return True

    def _settled(self, name: str) -> Stack | None:
        """The stack, ready to be updated; None if it has to be created."""
        stack = None
        for _round in range(_MOST_ROUNDS):
            stack = our_stack(self._aws, name, self._owner)
            if stack is None or stack.status == stacks.REVIEW:
                return None
            if stack.status in stacks.READY:
                return stack
            if stack.working:
                self._check_operator(stack)
                self._operations.attach(stack)
            elif stack.status in stacks.HALF_BACK:
                self._operations.go_back(stack)
            elif stack.status in stacks.SPOILED:
                self._report(Step(f"{name} is {stack.status}: deleting its remains"))
                self._operations.delete(stack)
            else:
                break
        assert stack is not None  # noqa: S101 - the loop returns where there is none
        raise failed(stack, [])

    def _await(self, stack: Stack) -> None:
        """Wait for the running operation, whatever its result, before deleting the stack."""
        self._check_operator(stack)
        try:
            self._operations.attach(stack)
        except StackFailed as ended:
            self._report(Step(ended.message))

    def _check_operator(self, stack: Stack) -> None:
        """Raise StackBusy if someone else started the operation, unless it is a deletion."""
        found = Operator.of(newest_token(self._aws, stack.id))
        if found == self._operator or stack.status == "DELETE_IN_PROGRESS":
            return
        raise StackBusy(
            f"{_who(found)} is changing the stack {stack.name}: {stack.status} "
            f"since {stack.updated:%Y-%m-%d %H:%M} UTC",
            hint="wait for it to finish, or use another --stage",
        )

    def _change_set(self, request: StackRequest, stack: Stack | None) -> ChangeSet | None:
        self._report(Step(f"comparing {request.name} with the template"))
        change_set = create_change_set(
            self._aws,
            request,
            self._folder,
            new=stack is None,
            token=self._operator.token(),
            role=self._role,
        )
        for name in change_set.adopted if change_set else ():
            self._report(Step(adoption_message(name, self._aws.region)))
        return change_set


def _who(operator: Operator | None) -> str:
    return str(operator) if operator else "someone (not through fdeploy)"

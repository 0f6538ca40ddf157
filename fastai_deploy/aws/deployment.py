"""Runs CloudFormation operations: a template becomes a stack, whatever state the stack is in.

Each operation carries a token that says who began it, and is followed by its events to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastai_deploy.aws import stacks
from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import (
    ChangeSet,
    Stack,
    StackRequest,
    TemplateFolder,
    create_change_set,
    delete_change_set,
    execute_change_set,
    our_stack,
    planned,
)
from fastai_deploy.errors import AwsError, FdeployError, StackBusy, StackFailed
from fastai_deploy.progress import Happened, Planned, Reporter, Step, Warned

_STACK = "AWS::CloudFormation::Stack"
_BEGINNINGS = frozenset(("CREATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "UPDATE_IN_PROGRESS"))


@dataclass(frozen=True)
class StackEvent:
    """Something happened to a resource of a stack, or to the stack itself."""

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
        """Whether this is a failure, and not the end of what another failure stopped."""
        return self.status.endswith("_FAILED") and "cancelled" not in self.reason


class EventTail:
    """The end of a stack's events, read from the last one that was seen."""

    def __init__(self, aws: Aws, stack_id: str, seen: str = "") -> None:
        self._aws = aws
        self._stack_id = stack_id
        self._seen = seen

    @classmethod
    def from_now(cls, aws: Aws, stack_id: str) -> EventTail:
        """What comes after the newest event that there is. Raises AwsError."""
        newest = next(_newest_first(aws, stack_id), None)
        return cls(aws, stack_id, newest.id if newest else "")

    @classmethod
    def of_running(cls, aws: Aws, stack_id: str) -> EventTail:
        """The events of the operation that runs now, from its first. Raises AwsError."""
        token: str | None = None
        begun = False
        for event in _newest_first(aws, stack_id):
            if begun or token not in (None, event.token):
                return cls(aws, stack_id, event.id)
            token = event.token
            # What was begun in the console has no token: its first event is the stack's own.
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
    """The ClientRequestToken of the last event; empty where it has none. Raises AwsError."""
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


_POLL_SECONDS = 2.0
_LOOK_EVERY = 10  # quiet polls; an event of the stack itself makes us look at once
_NO_REASON = "AWS gives no reason"

Watch = Callable[[StackEvent], None]


class StackOperations:
    """Runs operations; ``watch`` hears each event beside the reporter."""

    def __init__(self, aws: Aws, operator: Operator, report: Reporter, watch: Watch) -> None:
        self._aws = aws
        self._operator = operator
        self._report = report
        self._watch = watch

    def execute(self, change_set: ChangeSet) -> Stack:
        """Execute a change set. Raises StackFailed when AWS went back."""
        tail = EventTail.from_now(self._aws, change_set.stack_id)
        execute_change_set(self._aws, change_set, token=self._operator.token())
        return self._ended(change_set.stack_id, tail, stacks.SUCCEEDED)

    def attach(self, stack: Stack) -> None:
        """Wait for the operation that runs. Raises StackFailed when it does not end well."""
        self._report(Step(f"{stack.name} is {stack.status}: going on with what was begun"))
        tail = EventTail.of_running(self._aws, stack.id)
        self._ended(stack.id, tail, stacks.SUCCEEDED | {stacks.GONE})

    def go_back(self, stack: Stack) -> None:
        """Let AWS finish a rollback that it gave up, or that was switched off."""
        self._report(Step(f"{stack.name} is {stack.status}: letting AWS go back to what was"))
        given_up = stack.status == "UPDATE_ROLLBACK_FAILED"
        self._run(stack, "continue_update_rollback" if given_up else "rollback_stack", stacks.READY)

    def delete(self, stack: Stack, *, let_go: bool = False) -> None:
        """Delete a stack and all that is in it. Raises StackFailed when AWS cannot.

        ``let_go`` leaves behind what an attempt before could not delete.
        """
        parameters: dict[str, Any] = {}
        if let_go and stack.status == "DELETE_FAILED":
            stuck = [
                resource.logical_id
                for resource in stacks.resources(self._aws, stack)
                if resource.status == "DELETE_FAILED"
            ]
            parameters["RetainResources"] = stuck
        self._run(stack, "delete_stack", frozenset((stacks.GONE,)), **parameters)

    def begin_delete(self, stack: Stack) -> None:
        """Ask AWS to delete a stack, and do not wait. Raises AwsError."""
        self._report(Step(f"asking AWS to delete {stack.name}"))
        token = self._operator.token()
        self._aws.call(
            "cloudformation", "delete_stack", StackName=stack.id, ClientRequestToken=token
        )

    def _run(self, stack: Stack, operation: str, good: frozenset[str], **parameters: Any) -> None:
        tail = EventTail.from_now(self._aws, stack.id)
        self._aws.call(
            "cloudformation",
            operation,
            StackName=stack.id,
            ClientRequestToken=self._operator.token(),
            **parameters,
        )
        self._ended(stack.id, tail, good)

    def _ended(self, stack_id: str, tail: EventTail, good: frozenset[str]) -> Stack:
        """Tell the events until AWS rests. Raises StackFailed unless the state is a good one."""
        seen: list[StackEvent] = []
        try:
            stack = self._follow(stack_id, tail, seen)
        except (KeyboardInterrupt, AwsError):
            self._report(
                Warned(
                    "AWS goes on without us with what was begun",
                    hint="the same command takes it up again",
                )
            )
            raise
        if stack.status not in good:
            raise failed(stack, seen)
        return stack

    def _follow(self, stack_id: str, tail: EventTail, seen: list[StackEvent]) -> Stack:
        quiet = 0
        while True:
            new = tail.new()
            for event in new:
                seen.append(event)
                self._report(_happened(stack_id, event))
                self._watch(event)
            quiet = 0 if new else quiet + 1
            if any(event.of_stack for event in new) or quiet % _LOOK_EVERY == 1:
                stack = stacks.find_stack(self._aws, stack_id)
                if stack is None:  # it never held anything, and AWS has forgotten it
                    return stacks.gone(stack_id)
                if not stack.working:
                    return stack
            self._aws.sleep(_POLL_SECONDS)


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
    """The error of an operation that did not end well: the first failure is the cause."""
    first = next((event for event in events if event.failed and event.reason), None)
    reason = first.reason if first else stack.reason or _NO_REASON
    culprit = f"{first.type} {first.logical_id}: " if first else ""
    return StackFailed(
        f"the stack {stack.name} is {stack.status}: {culprit}{reason}",
        hint="mend what it names, then run the same command again",
        reason=reason,
    )


_MOST_ROUNDS = 6  # settling takes two or three; more means that somebody works against us


@dataclass(frozen=True)
class Applied:
    """The stack as it should be, and whether it was otherwise before."""

    stack: Stack
    changed: bool


@dataclass(frozen=True)
class Plan:
    """What a request would do: to which stack, if there is one; no changes: nothing."""

    stack: Stack | None
    changes: ChangeSet | None


class Deployment:
    """Applies and removes the stacks of one owner.

    ``watch`` hears each event; ``bucket`` is the user's own, or None for fdeploy's.
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
    ) -> None:
        self._aws = aws
        self._owner = owner
        self._operator = operator
        self._report = report
        self._folder = TemplateFolder(owner, bucket)
        self._operations = StackOperations(aws, operator, report, watch)

    def live(self, name: str) -> StackRequest | None:
        """What a stack is made from now, when AWS is not at work on it; None where there is none.

        Raises AwsError, NotOurs, StackBusy or StackFailed.
        """
        stack = self._settled(name)
        if stack is None:
            return None
        template = stacks.template_of(self._aws, stack)
        return StackRequest(name, template, stack.tags, stack.protected)

    def plan(self, request: StackRequest) -> Plan:
        """What applying the request would change; nothing is kept of the plan.

        Raises DeployError, and the errors of :meth:`live`.
        """
        stack = self._settled(request.name)
        change_set = self._change_set(request, stack)
        if change_set is not None:
            self._forget(change_set, stack)
        return Plan(stack, change_set)

    def apply(self, request: StackRequest, ready: Callable[[], None] = lambda: None) -> Applied:
        """Make the stack what the request says.

        ``ready`` is called when there is something to change, and stops that by raising. Raises
        StackFailed when AWS went back to what was before, and the errors of :meth:`plan`.
        """
        stack = self._settled(request.name)
        change_set = self._change_set(request, stack)
        if change_set is None:
            if stack is None:
                raise StackFailed(
                    f"the plan for {request.name} is empty", hint="report this", reason=""
                )
            self._report(Step(f"{request.name} is as it should be"))
            self._protect(stack, protected=request.protected)
            return Applied(stack, changed=False)
        self._report(Planned(request.name, planned(request.name, change_set)))
        try:
            ready()
        except FdeployError:
            self._forget(change_set, stack)
            raise
        made = self._operations.execute(change_set)
        self._protect(made, protected=request.protected)
        return Applied(made, changed=True)

    def remove(self, name: str, *, let_go: bool = False) -> bool:
        """Delete a stack and all that is in it; whether there was one.

        ``let_go`` leaves behind what AWS could not delete before. Raises StackFailed when AWS
        could not, NotOurs, StackBusy or AwsError.
        """
        stack = our_stack(self._aws, name, self._owner)
        if stack is None:
            return False
        if stack.working:
            self._await(stack)
            stack = our_stack(self._aws, name, self._owner)
        if stack is not None:
            self._protect(stack, protected=False)
            self._operations.delete(stack, let_go=let_go)
        return True

    def begin_removal(self, name: str) -> bool:
        """Ask AWS to delete a stack, and do not wait; whether there is one.

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
        """Leave nothing of a plan; of a new stack AWS would keep an empty one."""
        if stack is not None:
            delete_change_set(self._aws, change_set)
        else:
            self._aws.call("cloudformation", "delete_stack", StackName=change_set.stack_id)

    def _protect(self, stack: Stack, *, protected: bool) -> None:
        if stack.protected != protected:
            self._aws.call(
                "cloudformation",
                "update_termination_protection",
                StackName=stack.id,
                EnableTerminationProtection=protected,
            )

    def _settled(self, name: str) -> Stack | None:
        """The stack, ready to be updated; None where it is to be created."""
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
                self._report(Step(f"{name} is {stack.status}: deleting what is left of it"))
                self._operations.delete(stack)
            else:
                break
        assert stack is not None  # noqa: S101 - the loop returns where there is none
        raise failed(stack, [])

    def _await(self, stack: Stack) -> None:
        """Let what is being done end, well or not: what comes next is the deletion."""
        self._check_operator(stack)
        try:
            self._operations.attach(stack)
        except StackFailed as ended:
            self._report(Step(ended.message))

    def _check_operator(self, stack: Stack) -> None:
        """Raise StackBusy when somebody else is at work; a deletion may be anybody's."""
        found = Operator.of(newest_token(self._aws, stack.id))
        if found == self._operator or stack.status == "DELETE_IN_PROGRESS":
            return
        who = str(found) if found else "somebody, not through fdeploy,"
        raise StackBusy(
            f"{who} is at work on the stack {stack.name}: {stack.status} "
            f"since {stack.updated:%Y-%m-%d %H:%M} UTC",
            hint="wait for it to end, or use another --stage",
        )

    def _change_set(self, request: StackRequest, stack: Stack | None) -> ChangeSet | None:
        self._report(Step(f"asking what would change in {request.name}"))
        return create_change_set(
            self._aws, request, self._folder, new=stack is None, token=self._operator.token()
        )

"""The operations of a stack: begun with a token that says who, followed to the end, told.

An operation goes on in AWS whatever happens here; it is told so when we are interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastai_deploy.aws import stacks
from fastai_deploy.aws.change_set import ChangeSet, execute_change_set
from fastai_deploy.aws.ownership import Operator
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stack_events import EventTail, StackEvent
from fastai_deploy.aws.stacks import Stack
from fastai_deploy.errors import AwsError, StackFailed
from fastai_deploy.progress import Happened, Reporter, Step, Warned

_POLL_SECONDS = 2.0
_LOOK_EVERY = 10  # quiet polls; an event of the stack itself makes us look at once
_NO_REASON = "AWS gives no reason"

Watch = Callable[[StackEvent], None]


class Operations:
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

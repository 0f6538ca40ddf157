"""A template becomes a stack: whatever state the stack is in, and whoever else is at work.

    1. look      somebody else's stack is refused
    2. settle    AWS is at work: re-attach to what we began, or say who is; half back: go on back;
                 spoiled: delete it
    3. plan      the change set; none: the stack is as it should be
    4. execute   and follow the events to the end

The same call goes on where an interrupted one stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastai_deploy.aws import stacks
from fastai_deploy.aws.change_set import (
    ChangeSet,
    StackRequest,
    create_change_set,
    delete_change_set,
)
from fastai_deploy.aws.operations import Operations, Watch, failed
from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.planning import planned
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stack_events import newest_token
from fastai_deploy.aws.stacks import Stack, our_stack
from fastai_deploy.errors import FdeployError, StackBusy, StackFailed
from fastai_deploy.progress import Planned, Reporter, Step

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
    """Applies and removes the stacks of one owner; ``watch`` hears each event."""

    def __init__(
        self,
        aws: Aws,
        owner: Owner,
        operator: Operator,
        report: Reporter,
        watch: Watch = lambda _event: None,
    ) -> None:
        self._aws = aws
        self._owner = owner
        self._operator = operator
        self._report = report
        self._operations = Operations(aws, operator, report, watch)

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
            self._aws, request, new=stack is None, token=self._operator.token()
        )

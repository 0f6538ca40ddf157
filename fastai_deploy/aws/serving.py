"""A stack whose service must prove itself: applied, asked the goldens, or taken back.

A failure is told with the container's last lines and its likely cause. The container's log may go
with the stack that is rolled back, so it is read as soon as AWS says that the endpoint failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fastai_deploy.aws.causes import likely_cause
from fastai_deploy.aws.change_set import StackRequest
from fastai_deploy.aws.deployment import Applied, Deployment, Plan
from fastai_deploy.aws.logs import last_lines
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stack_events import StackEvent
from fastai_deploy.aws.template.update import first_step, keeping_capacity
from fastai_deploy.errors import (
    AwsError,
    DeployError,
    FdeployError,
    InvocationError,
    NoAnswer,
    ParityError,
    StackFailed,
)
from fastai_deploy.progress import Reporter, Step, Warned

_LINES = 12
_LONGEST_LINE = 500
_SERVICES = frozenset(("AWS::SageMaker::Endpoint", "AWS::Lambda::Function"))


def _nothing() -> None:
    """What need not be done."""


class LogWatch:
    """Hears stack events, and keeps the last lines of a log from when a service failed."""

    def __init__(self, aws: Aws, log_group: str) -> None:
        self._aws = aws
        self._log_group = log_group
        self._lines: list[str] = []

    def __call__(self, event: StackEvent) -> None:
        """Read the log when it is a service that failed."""
        if event.failed and event.type in _SERVICES:
            self._lines = self._read()

    def lines(self) -> list[str]:
        """The lines that were kept, else those that are there now."""
        return self._lines or self._read()

    def _read(self) -> list[str]:
        try:
            return last_lines(self._aws, self._log_group, _LINES)
        except AwsError:  # a log that cannot be read hides the error that is being told
            return []


class Serving:
    """Applies stacks with ``deployment``, which must tell ``watch`` its events."""

    def __init__(self, deployment: Deployment, watch: LogWatch, report: Reporter) -> None:
        self._deployment = deployment
        self._watch = watch
        self._report = report

    def apply(
        self,
        request: StackRequest,
        prove: Callable[[Applied], None],
        ready: Callable[[], None] = _nothing,
    ) -> Applied:
        """Apply a stack; done when ``prove`` is content, else what was before is put back.

        ``ready`` is called before anything is changed, and stops that by raising. Raises
        StackFailed, DeployError, ParityError or InvocationError, each with its cause. Where
        nothing was answered nothing is known, and what was made stays: NoAnswer.
        """
        try:
            before = self._deployment.live(request.name)
            applied = self._apply(request, before, ready)
        except StackFailed as error:
            raise explained(error, error.reason, self._watch.lines()) from None
        try:
            prove(applied)
        except NoAnswer:
            self._report(
                Warned(
                    f"{request.name} is there and was not verified",
                    hint="the same command verifies it",
                )
            )
            raise
        except (DeployError, ParityError, InvocationError) as error:
            lines = self._watch.lines()
            self._take_back(applied, before)
            raise explained(error, error.message, lines) from None
        return applied

    def plan(self, request: StackRequest) -> Plan:
        """What :meth:`apply` would change in the end. Raises what ``Deployment.plan`` does."""
        before = self._deployment.live(request.name)
        template = keeping_capacity(request.template, before.template if before else None)
        return self._deployment.plan(replace(request, template=template))

    def _apply(
        self,
        request: StackRequest,
        live: StackRequest | None,
        ready: Callable[[], None] = _nothing,
    ) -> Applied:
        """Apply a request, in as many steps as what is live makes necessary."""
        first = first_step(request.template, live.template if live else None)
        if live and first:
            self._report(Step("the instance type changes: autoscaling pauses for that"))
            live = replace(live, template=first)
            self._deployment.apply(live, ready)
            ready = _nothing
        template = keeping_capacity(request.template, live.template if live else None)
        applied = self._deployment.apply(replace(request, template=template), ready)
        return replace(applied, changed=applied.changed or bool(first))

    def _take_back(self, applied: Applied, before: StackRequest | None) -> None:
        name = applied.stack.name
        if not applied.changed:
            self._report(
                Warned(
                    "this deploy has changed nothing, so there is nothing to take back",
                    hint="fdeploy rollback goes back to the version before",
                )
            )
        elif before is None:
            self._report(Step(f"deleting {name}: nothing was there before"))
            self._deployment.remove(name)
        else:
            self._report(Step(f"putting back what {name} was before"))
            self._apply(before, self._deployment.live(name))


def explained(error: FdeployError, reason: str, lines: list[str]) -> FdeployError:
    """The same error, with the last lines of the log and the likely cause."""
    cause = likely_cause(reason, lines)
    parts = [error.message]
    if lines:
        parts += ["the last lines of its log:", *(f"    {line[:_LONGEST_LINE]}" for line in lines)]
    if cause:
        parts.append(f"likely cause: {cause.what}")
    return type(error)("\n".join(parts), hint=cause.hint if cause else error.hint)

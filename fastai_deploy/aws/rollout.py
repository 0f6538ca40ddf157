"""Rolls a stack out: applied, asked the goldens, and rolled back when an answer differs.

A failed rollout is explained by the last lines of the log and a table of known causes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastai_deploy.aws.deployment import Applied, Deployment, Plan, StackEvent
from fastai_deploy.aws.logs import last_lines
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import StackRequest
from fastai_deploy.aws.templates.update import first_step, keeping_capacity
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


@dataclass(frozen=True)
class Diagnosis:
    """What probably happened, and what to do about it."""

    what: str
    hint: str


_TABLE: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"ResourceLimitExceeded|account-level service limit|service quota",
        Diagnosis(
            "the account's quota for this instance type is used up, or 0 as in new accounts",
            "ask for a higher one in the console under Service Quotas, SageMaker, "
            "'<instance> for endpoint usage', or choose another --instance",
        ),
    ),
    (
        r"InsufficientInstanceCapacity|Unable to provision requested ML compute capacity",
        Diagnosis(
            "AWS has no such instance free in this region now",
            "try again later, or choose another --instance or --region",
        ),
    ),
    (
        r"instance_?[tT]ype.*enum value set|is not supported in this region|not supported for",
        Diagnosis(
            "this instance type does not exist in this region, or not for endpoints",
            "choose another --instance, such as ml.m5.large",
        ),
    ),
    (
        r"Could not (find|access) model data|NoSuchKey|HeadObject.*404",
        Diagnosis(
            "the artifact is not in the bucket any more, or the role may not read it",
            "run fdeploy upload, then fdeploy deploy",
        ),
    ),
    (
        r"(image|repository).*(does not exist|not found)|CannotPullContainer|ImageNotFound",
        Diagnosis(
            "the container image does not exist in this region",
            "remove image from [endpoint], or name one that exists",
        ),
    ),
    (
        r"not authorized to perform|AccessDenied|Could not assume role",
        Diagnosis(
            "a permission is missing",
            "fdeploy doctor --policy prints what is needed",
        ),
    ),
    (
        r"ModuleNotFoundError|No module named|ImportError|No matching distribution",
        Diagnosis(
            "the artifact lacks a package that the container does not have",
            "run fdeploy package, which takes the packages for the chosen image along",
        ),
    ),
    (
        r"exit code 137|OutOfMemory|out of memory|Cannot allocate memory|MemoryError|Killed",
        Diagnosis(
            "the model does not fit into the memory",
            "choose a larger --instance, or more memory in [endpoint.serverless]",
        ),
    ),
    (
        r"Worker died|Backend worker process died|actor died",
        Diagnosis(
            "the server's worker died while it loaded the model",
            "read the lines above; fdeploy up --target local runs the same artifact here",
        ),
    ),
    (
        r"goldens? (was|were) not reproduced|is off by",
        Diagnosis(
            "the model answers otherwise on this hardware than it should",
            "run fdeploy export and fdeploy up again; report it if it stays",
        ),
    ),
    (
        r"ping health check|health check",
        Diagnosis(
            "the server was not healthy in time",
            "read the lines above; startup_timeout in [endpoint] gives it longer",
        ),
    ),
)


def diagnose(reason: str, lines: Sequence[str]) -> Diagnosis | None:
    """The likely cause of a failure; None for one that is not known."""
    said = "\n".join((reason, *lines))
    return next((cause for words, cause in _TABLE if re.search(words, said)), None)


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


class Rollout:
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
            self._report(Step(first.why))
            live = replace(live, template=first.template)
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
    cause = diagnose(reason, lines)
    parts = [error.message]
    if lines:
        parts += ["the last lines of its log:", *(f"    {line[:_LONGEST_LINE]}" for line in lines)]
    if cause:
        parts.append(f"likely cause: {cause.what}")
    return type(error)("\n".join(parts), hint=cause.hint if cause else error.hint)

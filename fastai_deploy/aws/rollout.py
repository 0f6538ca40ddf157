"""Rolls out a stack: applies it, verifies it, and rolls back if verification fails.

A failure is explained with the last log lines and a table of known causes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastai_deploy.aws.change_sets import StackRequest
from fastai_deploy.aws.client_errors import denial
from fastai_deploy.aws.deployment import Applied, Deployment, Plan, StackEvent
from fastai_deploy.aws.logs import last_lines
from fastai_deploy.aws.session import Aws
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
    """The likely cause of a failure and what to do about it."""

    what: str
    hint: str


CAUSES: tuple[tuple[str, Diagnosis], ...] = (
    (
        r"ResourceLimitExceeded|account-level service limit|service quota",
        Diagnosis(
            "the account's quota for this instance type is exhausted, or 0 as in new accounts",
            "request a higher one in the console under Service Quotas, SageMaker, "
            "'<instance> for endpoint usage', or choose another --instance",
        ),
    ),
    (
        r"InsufficientInstanceCapacity|Unable to provision requested ML compute capacity",
        Diagnosis(
            "AWS currently has no capacity for this instance type in this region",
            "try again later, or choose another --instance or --region",
        ),
    ),
    (
        r"instance_?[tT]ype.*enum value set|is not supported in this region|not supported for",
        Diagnosis(
            "this instance type is not available for endpoints in this region",
            "choose another --instance, such as ml.m5.large",
        ),
    ),
    (
        r"Could not (find|access) model data|NoSuchKey|HeadObject.*404",
        Diagnosis(
            "the artifact is no longer in the bucket, or the role may not read it",
            "run fdeploy upload, then fdeploy deploy",
        ),
    ),
    (
        r"[Rr]untime parameter of python3\.13|python3\.13.? at .runtime. failed",
        Diagnosis(
            "Lambda has no Python 3.13 in this region",
            "choose another --region, or set kind to serverless or real-time in [endpoint]",
        ),
    ),
    (
        r"[mM]emorySize.*(less than or equal to|failed to satisfy)",
        Diagnosis(
            "the account's quota of memory for a function is lower, as in new accounts",
            "set a smaller memory in [endpoint.function], such as 3008",
        ),
    ),
    (
        r"UnreservedConcurrentExecution",
        Diagnosis(
            "the account has too little concurrency to reserve so much",
            "remove concurrency from [endpoint.function], or ask for a higher quota",
        ),
    ),
    (
        r"(image|repository).*(does not exist|not found)|CannotPullContainer|ImageNotFound",
        Diagnosis(
            "the container image does not exist in this region",
            "remove image from [endpoint], or set it to an existing one",
        ),
    ),
    (
        r"AccessDenied|Could not assume role",
        Diagnosis(
            "a permission is missing",
            "run fdeploy doctor --policy to see the permissions needed",
        ),
    ),
    (
        r"ModuleNotFoundError|No module named|ImportError|No matching distribution",
        Diagnosis(
            "neither the artifact nor the container has a required package",
            "run fdeploy package, which packs the packages for the chosen image",
        ),
    ),
    (
        r"exit code 137|OutOfMemory|out of memory|Cannot allocate memory|MemoryError|Killed",
        Diagnosis(
            "the model does not fit in memory",
            "choose a larger --instance, or more memory in [endpoint.serverless]",
        ),
    ),
    (
        r"Worker died|Backend worker process died|actor died",
        Diagnosis(
            "the server's worker died while it loaded the model",
            "read the lines above; run fdeploy up --target local to try the same artifact here",
        ),
    ),
    (
        r"goldens? (was|were) not reproduced|is off by",
        Diagnosis(
            "the model gives different answers on this hardware",
            "run fdeploy export and fdeploy up again; report it if it persists",
        ),
    ),
    (
        r"ping health check|health check",
        Diagnosis(
            "the server did not become healthy in time",
            "read the lines above; to allow more time, raise startup_timeout in [endpoint]",
        ),
    ),
)


def diagnose(reason: str, lines: Sequence[str]) -> Diagnosis | None:
    """The likely cause of a failure; None if it is not known."""
    said = "\n".join((reason, *lines))
    if denied := denial(said):
        return Diagnosis(str(denied), denied.hint)
    return next((cause for words, cause in CAUSES if re.search(words, said)), None)


_LINES = 12
_LONGEST_LINE = 500
_SERVICES = frozenset(("AWS::SageMaker::Endpoint", "AWS::Lambda::Function"))


def _nothing() -> None:
    """Do nothing."""


class LogWatch:
    """Receives stack events, and saves the last log lines when a service fails."""

    def __init__(self, aws: Aws, log_group: str) -> None:
        self._aws = aws
        self._log_group = log_group
        self._lines: list[str] = []

    def __call__(self, event: StackEvent) -> None:
        """Read the log if a service failed."""
        if event.failed and event.type in _SERVICES:
            self._lines = self._read()

    def lines(self) -> list[str]:
        """The saved lines, else the current last lines."""
        return self._lines or self._read()

    def _read(self) -> list[str]:
        try:
            return last_lines(self._aws, self._log_group, _LINES)
        except AwsError:  # an unreadable log must not hide the error being reported
            return []


class Rollout:
    """Applies stacks with ``deployment``, which must send its events to ``watch``."""

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
        """Apply a stack and verify it with ``prove``; on failure, restore the previous state.

        ``ready`` is called before anything is changed and can stop it by raising. Raises
        StackFailed, DeployError, ParityError or InvocationError, each with its likely cause. If
        nothing answers, the result is unknown and the stack stays: NoAnswer. It stays too if
        another command has changed it meanwhile: StackBusy.
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
                    f"{request.name} is deployed but could not be verified",
                    hint="run the same command again to verify it",
                )
            )
            raise
        except (DeployError, ParityError, InvocationError) as error:
            lines = self._watch.lines()
            self._deployment.check_unchanged(applied.stack)
            self._take_back(applied, before)
            raise explained(error, error.message, lines) from None
        return applied

    def plan(self, request: StackRequest) -> Plan:
        """What :meth:`apply` would change overall. Raises the errors of ``Deployment.plan``."""
        before = self._deployment.live(request.name)
        template = keeping_capacity(request.template, before.template if before else None)
        return self._deployment.plan(replace(request, template=template))

    def _apply(
        self,
        request: StackRequest,
        live: StackRequest | None,
        ready: Callable[[], None] = _nothing,
    ) -> Applied:
        """Apply a request, in two steps if the live stack requires it."""
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
                    "this deploy changed nothing, so there is nothing to roll back",
                    hint="run fdeploy rollback to go back to the previous version",
                )
            )
        elif before is None:
            self._report(Step(f"deleting {name}, which did not exist before"))
            self._deployment.remove(name)
        else:
            self._report(Step(f"restoring the previous state of {name}"))
            self._apply(before, self._deployment.live(name))


def explained(error: FdeployError, reason: str, lines: list[str]) -> FdeployError:
    """Add the last log lines and the likely cause to an error."""
    cause = diagnose(reason, lines)
    parts = [error.message]
    if lines:
        parts += ["the last lines of its log:", *(f"    {line[:_LONGEST_LINE]}" for line in lines)]
    if cause:
        parts.append(f"likely cause: {cause.what}")
    return type(error)("\n".join(parts), hint=cause.hint if cause else error.hint)

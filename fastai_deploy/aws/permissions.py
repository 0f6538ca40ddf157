"""Whether the caller may do what a deploy needs, as IAM's own policy simulator sees it.

    who calls ──> the user or role behind it ──┐
    the policy to copy ──> one question each ──┴──> SimulatePrincipalPolicy ──> what is missing

The simulator reads the policies of the user or role, its permissions boundary and the
organization's service control policies. It sees neither the policy of a session (an assumed role
may have less than the role), nor those of buckets, keys and VPC endpoints, nor resource control
policies: what passes here may still be denied.
Sources: the API reference of SimulatePrincipalPolicy; "Testing IAM policies with the IAM policy
simulator" and "AWS JSON policy elements: Principal" in the IAM user guide.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.policy import Needs
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsError, AwsMissing
from fastai_deploy.reports import Check

_CALLER = re.compile(r"arn:(?P<partition>[^:]+):(?:sts|iam)::(?P<account>\d+):(?P<who>.+)")
# The kinds of resource of a statement take different actions: each has to be allowed on one.
_BY_KIND = frozenset(("sagemaker", "scheduler"))
_SHOWN = 20  # actions that are named
_REFUSED = "InvalidInput"  # actions that need different kinds of resources, asked about at once

_NOBODY = "no policy allows"
_DENIED = "a policy denies"
_BOUNDARY = "the permissions boundary does not allow"
_ORGANIZATION = "the organization's service control policies do not allow"


@dataclass(frozen=True)
class Question:
    """Whether actions are allowed on resources; ``context`` are condition keys and values."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    context: tuple[tuple[str, str], ...] = ()

    def parameters(self) -> dict[str, Any]:
        """The parameters of SimulatePrincipalPolicy, without whose policies."""
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in self.context
        ]
        return {
            "ActionNames": list(self.actions),
            "ResourceArns": list(self.resources),
            "ContextEntries": entries,
        }


def check_permissions(
    aws: Aws, documents: Mapping[str, Any], needs: Needs, stage: str, *, unused: frozenset[str]
) -> Check:
    """Whether the caller has what the documents of ``user_policies`` allow.

    ``unused`` are services that these settings do not need. Raises AwsDenied where the caller may
    not ask the simulator, and AwsError.
    """
    who = _Who.of(aws.caller)
    if who.kind == "root":
        return Check("permissions", "passed", "the root user of the account may do everything")
    if who.kind not in ("user", "role"):
        return Check(
            "permissions",
            "warned",
            f"IAM cannot simulate {aws.caller}: it is neither a user nor a role",
            "fdeploy doctor --policy prints what it must be allowed",
        )
    simulator = _Simulator(aws, who)
    missing: defaultdict[str, set[str]] = defaultdict(set)
    for question in questions(documents, needs, stage, region=aws.region, account=aws.account):
        if question.actions[0].partition(":")[0] in unused:
            continue
        for action, reason in simulator.missing(question):
            missing[reason].add(action)
    if missing:
        return _lacking(simulator.principal, missing)
    return Check(
        "permissions",
        "passed",
        f"IAM's policy simulator allows {simulator.principal} all that is needed; it does not see "
        "the policies of sessions, resources and VPC endpoints",
    )


def questions(
    documents: Mapping[str, Any], needs: Needs, stage: str, *, region: str, account: str
) -> Iterator[Question]:
    """One for each statement and value of its condition, about resources of this stage."""
    place = _Place(needs.project, stage, region, account)
    for document in documents.values():
        for statement in document["Statement"]:
            resources = tuple(place.arn(arn) for arn in _list(statement["Resource"]))
            for context in _contexts(statement.get("Condition", {})):
                yield Question(tuple(statement["Action"]), resources, context)


@dataclass(frozen=True)
class _Place:
    """Where a stage is: a policy's patterns become ARNs as its resources have them."""

    project: str
    stage: str
    region: str
    account: str

    def arn(self, pattern: str) -> str:
        if pattern == "*":
            return pattern
        start, partition, service, region, account, resource = pattern.split(":", 5)
        resource = resource.replace(f"{self.project}-*", f"{self.project}-{self.stage}")
        region = self.region if region == "*" else region
        account = self.account if account == "*" else account
        return ":".join((start, partition, service, region, account, resource.replace("*", "any")))


@dataclass(frozen=True)
class _Who:
    """``kind`` is ``user``, ``role``, ``root`` or what else there is; ``name`` has no path."""

    arn: str
    kind: str
    name: str

    @classmethod
    def of(cls, caller: str) -> _Who:
        """Whose policies count: an assumed role's session has those of the role."""
        match = _CALLER.fullmatch(caller)
        if match is None:
            return cls(caller, "", "")
        kind, _, rest = match["who"].partition("/")
        if kind == "assumed-role":
            name = rest.partition("/")[0]
            arn = f"arn:{match['partition']}:iam::{match['account']}:role/{name}"
            return cls(arn, "role", name)
        return cls(caller, kind, rest.rpartition("/")[2])


class _Simulator:
    """Asks about one user or role."""

    def __init__(self, aws: Aws, who: _Who) -> None:
        self._aws = aws
        self._who = who
        self.principal = who.arn
        self._found = who.kind == "user"  # a session's ARN leaves out the path of its role

    def missing(self, question: Question) -> Iterator[tuple[str, str]]:
        """The actions that are not allowed, with the reason."""
        try:
            results = self._results(question)
        except AwsError as error:
            if error.aws_code != _REFUSED or len(question.actions) == 1:
                raise
            for action in question.actions:
                alone = Question((action,), question.resources, question.context)
                yield from self.missing(alone)
            return
        for result in results:
            decisions = list(_decisions(result))
            service = result["EvalActionName"].partition(":")[0]
            enough = any if service in _BY_KIND else all
            if not enough(decision is None for decision in decisions):
                reason = next(decision for decision in decisions if decision)
                yield result["EvalActionName"], reason

    def _results(self, question: Question) -> list[Any]:
        try:
            return self._asked(question)
        except AwsMissing:
            if self._found:
                raise
        self.principal = self._with_path()
        self._found = True
        return self._asked(question)

    def _asked(self, question: Question) -> list[Any]:
        pages = self._aws.pages(
            "iam",
            "simulate_principal_policy",
            PolicySourceArn=self.principal,
            **question.parameters(),
        )
        return [result for page in pages for result in page["EvaluationResults"]]

    def _with_path(self) -> str:
        """The role's own ARN, in which its path stands, as those of IAM Identity Center have."""
        pages = self._aws.pages("iam", "list_roles", PaginationConfig={"PageSize": 1_000})
        found = (role for page in pages for role in page["Roles"])
        return next(
            (role["Arn"] for role in found if role["RoleName"] == self._who.name), self._who.arn
        )


def _decisions(result: Any) -> Iterator[str | None]:
    """Why an action is not allowed, once for each resource; None where it is."""
    for one in result.get("ResourceSpecificResults") or [result]:
        decision = one.get("EvalResourceDecision") or one["EvalDecision"]
        if decision == "allowed":
            yield None
        elif not _allowed_by(one, result, "OrganizationsDecisionDetail", "AllowedByOrganizations"):
            yield _ORGANIZATION
        elif not _allowed_by(
            one, result, "PermissionsBoundaryDecisionDetail", "AllowedByPermissionsBoundary"
        ):
            yield _BOUNDARY
        else:
            yield _DENIED if decision == "explicitDeny" else _NOBODY


def _allowed_by(one: Any, result: Any, detail: str, name: str) -> bool:
    """What a detail says; one that is not there forbids nothing."""
    return bool({**(result.get(detail) or {}), **(one.get(detail) or {})}.get(name, True))


def _lacking(principal: str, missing: Mapping[str, set[str]]) -> Check:
    told = "; ".join(f"{reason} {_named(sorted(missing[reason]))}" for reason in sorted(missing))
    attach = f"attach to {principal} what fdeploy doctor --policy prints"
    if set(missing) == {_NOBODY}:
        hint = attach
    else:
        hint = "ask who administers the account: what is denied, no further policy can allow"
        hint += f"; for the others {attach}" if _NOBODY in missing else ""
    return Check("permissions", "failed", f"for {principal}, {told}", hint)


def _named(actions: Sequence[str]) -> str:
    more = len(actions) - _SHOWN
    return ", ".join(actions[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _contexts(condition: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], ...]]:
    """What a request would bring so that the condition holds; each value of a key in turn."""
    keys = [(key, _list(values)) for of in condition.values() for key, values in of.items()]
    if not keys:
        yield ()
    for key, values in keys:
        for value in values:
            yield ((key, value),)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)

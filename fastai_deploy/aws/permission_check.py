"""The check that the caller has the permissions that a deploy needs, by IAM's policy simulator."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.permissions import CALLED_VIA, Needs
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsError, AwsMissing
from fastai_deploy.stage_reports import Check

_CALLER = re.compile(r"arn:(?P<partition>[^:]+):(?:sts|iam)::(?P<account>\d+):(?P<who>.+)")
# Services whose statements mix kinds of resources: an action has to be allowed on one of them.
_BY_KIND = frozenset(("sagemaker", "scheduler"))
_SHOWN = 20  # actions listed in a message
_REFUSED = "InvalidInput"  # the answer to a query for actions on different kinds of resources

_NOBODY = "no policy allows"
_DENIED = "a policy denies"
_BOUNDARY = "the permissions boundary does not allow"
_ORGANIZATION = "the organization's service control policies do not allow"


@dataclass(frozen=True)
class Question:
    """A query whether actions are allowed; ``context`` holds condition keys and values."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    context: tuple[tuple[str, str], ...] = ()

    def parameters(self) -> dict[str, Any]:
        """The parameters of SimulatePrincipalPolicy, except the principal."""
        entries = [
            {
                "ContextKeyName": key,
                "ContextKeyValues": [value],
                "ContextKeyType": "stringList" if key == CALLED_VIA else "string",
            }
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
    """Check that the caller has the permissions in the documents of ``user_policies``.

    ``unused`` are services that these settings do not need. Raises AwsDenied if the caller may not
    use the simulator, and AwsError.
    """
    who = _Who.of(aws.caller)
    if who.kind == "root":
        return Check("permissions", "passed", "the account's root user has every permission")
    if who.kind not in ("user", "role"):
        return Check(
            "permissions",
            "warned",
            f"IAM cannot simulate {aws.caller}: it is neither a user nor a role",
            "run fdeploy doctor --policy to see the permissions it needs",
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
        f"IAM's policy simulator allows {simulator.principal} everything needed; it does not "
        "consider policies of sessions, resources and VPC endpoints",
    )


def questions(
    documents: Mapping[str, Any], needs: Needs, stage: str, *, region: str, account: str
) -> Iterator[Question]:
    """Yield a query for each statement and condition value, for resources of this stage."""
    place = _Place(needs.project, stage, region, account)
    for document in documents.values():
        for statement in document["Statement"]:
            resources = tuple(place.arn(arn) for arn in _list(statement["Resource"]))
            for context in _contexts(statement.get("Condition", {})):
                yield Question(tuple(statement["Action"]), resources, context)


@dataclass(frozen=True)
class _Place:
    """Turns the patterns of a policy into ARNs of a stage's resources."""

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
    """A principal; ``kind`` is ``user``, ``role``, ``root`` or another; ``name`` has no path."""

    arn: str
    kind: str
    name: str

    @classmethod
    def of(cls, caller: str) -> _Who:
        """The principal whose policies apply: for a session, the assumed role."""
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
    """Queries the policy simulator about one user or role."""

    def __init__(self, aws: Aws, who: _Who) -> None:
        self._aws = aws
        self._who = who
        self.principal = who.arn
        self._found = who.kind == "user"  # a session's ARN omits the path of its role

    def missing(self, question: Question) -> Iterator[tuple[str, str]]:
        """Yield the actions that are not allowed, each with the reason."""
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
        """The role's ARN including its path, which roles of IAM Identity Center have."""
        pages = self._aws.pages("iam", "list_roles", PaginationConfig={"PageSize": 1_000})
        found = (role for page in pages for role in page["Roles"])
        return next(
            (role["Arn"] for role in found if role["RoleName"] == self._who.name), self._who.arn
        )


def _decisions(result: Any) -> Iterator[str | None]:
    """For each resource, the reason why an action is not allowed, or None if it is."""
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
    """Whether a detail allows the action; a missing detail forbids nothing."""
    return bool({**(result.get(detail) or {}), **(one.get(detail) or {})}.get(name, True))


def _lacking(principal: str, missing: Mapping[str, set[str]]) -> Check:
    message = "; ".join(f"{reason} {_named(sorted(missing[reason]))}" for reason in sorted(missing))
    attach = f"attach the policies that fdeploy doctor --policy prints to {principal}"
    if set(missing) == {_NOBODY}:
        hint = attach
    else:
        hint = "ask the account's administrator: no further policy can allow what is denied"
        hint += f"; for the other actions, {attach}" if _NOBODY in missing else ""
    return Check("permissions", "failed", f"for {principal}, {message}", hint)


def _named(actions: Sequence[str]) -> str:
    more = len(actions) - _SHOWN
    return ", ".join(actions[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _contexts(condition: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Contexts that satisfy a condition: every combination of a value for each key."""
    keys = [(key, _list(values)) for of in condition.values() for key, values in of.items()]
    for chosen in itertools.product(*(values for _, values in keys)):
        yield tuple(zip((key for key, _ in keys), chosen, strict=True))


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)

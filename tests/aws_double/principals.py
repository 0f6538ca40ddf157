"""The caller's identity, and the answers of IAM's policy simulator about it.

ministack knows one caller of an account, and its simulator one resource and no context. Here
policies are evaluated by ministack, once for each action and resource, in the shape that AWS
documents: decisions about resources stand under ``ResourceSpecificResults``, and only there.
Sources: the API references of SimulatePrincipalPolicy, EvaluationResult and GetCallerIdentity. That
a session's ARN is refused, and that a role's ARN has its path: "IAM identifiers" (IAM user guide).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from tests.aws_double import emulator
from tests.aws_double.behaviour import Behaviour
from tests.aws_double.operation import Operation, Request
from tests.aws_double.wire import Answer

_DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny"}


class Principals:
    """Answers two operations; ``behaviour`` gives that of the request's account."""

    def __init__(self, behaviour: Callable[[], Behaviour]) -> None:
        self._behaviour = behaviour

    def answer(self, operation: Operation, request: Request) -> Answer | None:
        """The answer, for what is answered here."""
        behaviour = self._behaviour()
        if operation.name == "GetCallerIdentity" and behaviour.caller:
            return _xml(
                operation.name,
                f"<Arn>{behaviour.caller}</Arn><UserId>AIDAOFTHEDOUBLE</UserId>"
                f"<Account>{operation.account}</Account>",
            )
        if operation.name == "SimulatePrincipalPolicy":
            form = dict(parse_qsl(request.body.decode()))
            return _simulated(operation, form, alone=behaviour.simulates_alone)
        return None


def _simulated(operation: Operation, form: dict[str, str], *, alone: bool) -> Answer:
    arn = form["PolicySourceArn"]
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    name = rest.rpartition("/")[2]
    stores = {"user": emulator.users, "role": emulator.roles}
    if kind not in stores:
        return _error(400, "InvalidInput", f"Invalid Entity Arn: {arn}")
    entity = stores[kind].get(name)
    if entity is None or entity["Arn"] != arn:
        return _error(404, "NoSuchEntity", f"The {kind} with name {name} cannot be found.")
    actions = list(_members(form, "ActionNames"))
    if alone and len(actions) > 1:
        return _error(400, "InvalidInput", "actions of different resources, asked at once")
    gather = emulator.user_policies if kind == "user" else emulator.role_policies
    policies = gather(name, operation.account)
    limits = emulator.boundary(stores[kind], name, operation.account)
    context = {
        form[f"{entry}.ContextKeyName"].lower(): form[f"{entry}.ContextKeyValues.member.1"]
        for entry in (f"ContextEntries.member.{number}" for number in range(1, 10))
        if f"{entry}.ContextKeyName" in form
    }

    def decision(action: str, resource: str) -> tuple[str, bool]:
        asked = emulator.Request(
            principal_arn=arn,
            principal_type="User",
            principal_account=operation.account,
            action=action,
            resource_arn=resource,
            region=operation.region,
            service_context=context,
        )
        found = emulator.evaluate(asked, policies, *limits).decision
        within = all(emulator.evaluate(asked, limit).decision == "Allow" for limit in limits)
        return _DECISIONS.get(found, "implicitDeny"), within

    results = []
    for action in actions:
        decisions = [(each, *decision(action, each)) for each in _members(form, "ResourceArns")]
        specific = "".join(
            f"<member><EvalResourceName>{escape(resource)}</EvalResourceName>"
            f"<EvalResourceDecision>{decided}</EvalResourceDecision>"
            "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>"
            f"{str(within).lower()}</AllowedByPermissionsBoundary>"
            "</PermissionsBoundaryDecisionDetail></member>"
            for resource, decided, within in decisions
        )
        worst = max((decided for _, decided, _ in decisions), key="allowed".__ne__)
        results.append(
            f"<member><EvalActionName>{action}</EvalActionName><EvalResourceName>*"
            f"</EvalResourceName><EvalDecision>{worst}</EvalDecision>"
            f"<ResourceSpecificResults>{specific}</ResourceSpecificResults></member>"
        )
    told = f"<EvaluationResults>{''.join(results)}</EvaluationResults>"
    return _xml(operation.name, f"{told}<IsTruncated>false</IsTruncated>")


def _members(form: dict[str, str], name: str) -> Iterator[str]:
    number = 1
    while (key := f"{name}.member.{number}") in form:
        yield form[key]
        number += 1


def _xml(operation: str, result: str) -> Answer:
    body = (
        f"<{operation}Response><{operation}Result>{result}</{operation}Result>"
        f"<ResponseMetadata><RequestId>double</RequestId></ResponseMetadata></{operation}Response>"
    )
    return 200, [(b"content-type", b"text/xml")], body.encode()


def _error(status: int, code: str, words: str) -> Answer:
    body = (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
        f"<Message>{escape(words)}</Message></Error><RequestId>double</RequestId></ErrorResponse>"
    )
    return status, [(b"content-type", b"text/xml")], body.encode()

"""What IAM lets a caller do, for accounts whose behaviour says ``enforces``.

A caller's request is checked on the resource that it names; what CloudFormation does for a stack is
checked with the permissions that its registry lists for the handlers of the resource's type
(``handler_permissions.json``). Those calls are the caller's own, with ``aws:CalledVia``, or those
of the stack's service role. Policies are evaluated by ministack.

Sources: "Service Authorization Reference" for actions and resources; "Forward access sessions" and
"aws:CalledVia" in the IAM user guide; "CloudFormation service role"; "Granting a user permissions
to pass a role" for ``iam:PassedToService``.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.aws_double import emulator
from tests.aws_double.behaviour import Behaviour
from tests.aws_double.faults import written
from tests.aws_double.operation import Operation, Request

Json = Any
HANDLERS = Path(__file__).parent / "handler_permissions.json"
CLOUDFORMATION = "cloudformation.amazonaws.com"
AUTOSCALING = "sagemaker.application-autoscaling.amazonaws.com"
# IAM's prefixes that differ from the name in a signature.
_PREFIXES = {"monitoring": "cloudwatch", "tagging": "tag"}
_ALWAYS = frozenset(("sts:GetCallerIdentity",))
_SERVICES = {"SageMaker": "sagemaker", "Lambda": "lambda", "Scheduler": "scheduler"}
# The resource part of the ARN of a type's resource, from its properties.
_NAMED = {
    "AWS::CloudWatch::Alarm": "alarm:{AlarmName}",
    "AWS::CloudWatch::Dashboard": "dashboard/{DashboardName}",
    "AWS::IAM::Role": "role{Path}any",
    "AWS::Lambda::Alias": "function:{FunctionName}",
    "AWS::Lambda::Function": "function:{FunctionName}",
    "AWS::Lambda::Permission": "function:{FunctionName}",
    "AWS::Lambda::Url": "function:{TargetFunctionArn}",
    "AWS::Lambda::Version": "function:{FunctionName}",
    "AWS::Logs::LogGroup": "log-group:{LogGroupName}:*",
    "AWS::SageMaker::Endpoint": "endpoint/{EndpointName}",
    "AWS::SageMaker::EndpointConfig": "endpoint-config/{EndpointConfigName}",
    "AWS::SageMaker::Model": "model/{ModelName}",
    "AWS::Scheduler::Schedule": "schedule/{GroupName}/{Name}",
    "AWS::Scheduler::ScheduleGroup": "schedule-group/{Name}",
}
# The one name in a request of CloudWatch, in any of its protocols.
_ALARMS = re.compile(rb"AlarmNames[^\w]*(?:member\.1=)?x?.?([a-z][a-z0-9.-]+)")
_API_PATHS = {
    "ApiKey": "/apikeys/any",
    "DomainName": "/domainnames/any",
    "BasePathMapping": "/domainnames/any/basepathmappings/any",
    "ApiMapping": "/domainnames/any/apimappings/any",
    "UsagePlan": "/usageplans/any",
    "UsagePlanKey": "/usageplans/any/keys/any",
}


@dataclass(frozen=True)
class Asked:
    """One thing that somebody wants to do; ``context`` holds condition keys in lower case."""

    action: str
    resource: str
    context: dict[str, Any] = field(default_factory=dict)


class Authorization:
    """Refuses what policies do not allow; ``behaviour`` gives that of the request's account."""

    def __init__(self, behaviour: Callable[[], Behaviour]) -> None:
        self._behaviour = behaviour
        self._roles: dict[str, str] = {}  # CloudFormation's service role, by account
        self._asked: defaultdict[str, set[str]] = defaultdict(set)

    def asked(self, account: str) -> list[str]:
        """The actions that an account's caller, and CloudFormation for it, have asked for."""
        return sorted(self._asked[account])

    def refusal(self, operation: Operation, request: Request) -> Json:
        """The answer to a request that is not allowed, as status, headers and body; else None."""
        principal = self._principal(request)
        if principal is None:
            return None
        for asked in _requested(operation, request):
            if asked.action == "iam:PassRole":
                self._roles[operation.account] = asked.resource
            if asked.action in _ALWAYS:
                continue
            self._asked[operation.account].add(asked.action)
            if not _allows(principal, asked):
                return written(operation, 403, "AccessDenied", _words(principal, asked))
        return None

    def words(self, action: str, resource: str) -> str:
        """Why the caller of the account may not do something; empty if it is allowed."""
        behaviour = self._behaviour()
        if not (behaviour.enforces and behaviour.caller):
            return ""
        self._asked[emulator.get_account()].add(action)
        asked = Asked(action, resource)
        allowed = _allows(behaviour.caller, asked)
        return "" if allowed else _words(behaviour.caller, asked)

    def install(self, table: dict[str, dict[str, Any]]) -> None:
        """Check every handler of CloudFormation's resource types, where permissions are known."""
        needed = json.loads(HANDLERS.read_text(encoding="utf-8"))
        for kind, permissions in needed.items():
            handlers = table[kind]
            for verb in ("create", "update", "delete"):
                if verb in handlers:
                    handlers[verb] = self._checked(kind, verb, permissions, handlers[verb])

    def _checked(
        self, kind: str, verb: str, permissions: Json, handler: Callable[..., Any]
    ) -> Callable[..., Any]:
        # Positions of the new properties: create(id, props, stack), update(id, old, new, stack).
        position = 2 if verb == "update" else 1

        def checked(*arguments: Any, **options: Any) -> Any:
            self._check(kind, permissions[verb], arguments[position] or {})
            return handler(*arguments, **options)

        return checked

    def _check(self, kind: str, actions: list[str], properties: Json) -> None:
        """Raise ValueError, as a handler fails, for the first action that is not allowed."""
        behaviour = self._behaviour()
        if not (behaviour.enforces and behaviour.caller):
            return
        account = emulator.get_account()
        role = self._roles.get(account)
        principal = role or behaviour.caller
        via: dict[str, Any] = {} if role else {"aws:calledvia": [CLOUDFORMATION]}
        for asked in _handled(kind, actions, properties):
            asked.context.update(via)
            self._asked[account].add(asked.action)
            if not _allows(principal, asked):
                raise ValueError(
                    f'Resource handler returned message: "{_words(principal, asked)}" '
                    "(HandlerErrorCode: AccessDenied)"
                )

    def _principal(self, request: Request) -> str | None:
        behaviour = self._behaviour()
        ours = "fdeploy/" in request.headers.get("user-agent", "")
        return behaviour.caller if ours and behaviour.enforces and behaviour.caller else None


def _allows(principal: str, asked: Asked) -> bool:
    """Whether the policies of a user, or of a role or its session, allow something."""
    kind, _, rest = principal.rpartition(":")[2].partition("/")
    name = rest.partition("/")[0] if kind == "assumed-role" else rest.rpartition("/")[2]
    is_user = kind == "user"
    account = emulator.get_account()
    gather = emulator.user_policies if is_user else emulator.role_policies
    store = emulator.users if is_user else emulator.roles
    wanted = emulator.Request(
        principal_arn=principal,
        principal_type="User" if is_user else "AssumedRole",
        principal_account=account,
        action=asked.action,
        resource_arn=asked.resource,
        region=emulator.get_region(),
        service_context=asked.context,
    )
    limits = emulator.boundary(store, name, account)
    found = emulator.evaluate(wanted, gather(name, account), *limits)
    return bool(found.decision == "Allow")


def _words(principal: str, asked: Asked) -> str:
    return (
        f"User: {principal} is not authorized to perform: {asked.action} on resource: "
        f"{asked.resource} because no identity-based policy allows the {asked.action} action"
    )


# What a request of fdeploy asks for


def _requested(operation: Operation, request: Request) -> Iterator[Asked]:
    if operation.service == "s3":
        yield from _of_s3(request)
        return
    if operation.service == "apigateway":
        path = request.path.removeprefix("/v2")
        yield Asked(
            f"apigateway:{request.method}", f"arn:aws:apigateway:{operation.region}::{path}"
        )
        return
    prefix = _PREFIXES.get(operation.service, operation.service)
    name = operation.name
    if operation.service in ("lambda", "scheduler"):  # whose operations are methods and paths
        name = emulator.rest_action(
            operation.service, request.method, request.path, request.headers, request.body, {}
        ).partition(":")[2]
        # ministack takes one alias for the list of them.
        if name == "ListAliases" and not request.path.endswith("/aliases"):
            name = "GetAlias"
    for resource in _resources(prefix, operation, request):
        yield Asked(f"{prefix}:{name}", resource)
    form = _form(request)
    if prefix == "cloudformation" and "RoleARN" in form:
        passed = {"iam:passedtoservice": CLOUDFORMATION}
        yield Asked("iam:PassRole", form["RoleARN"], passed)


def _of_s3(request: Request) -> Iterator[Asked]:
    query = parse_qs(request.query, keep_blank_values=True)
    path = unquote(request.path)
    action = emulator.s3_action(request.method, path, query)
    bucket, _, key = path.strip("/").partition("/")
    if request.method == "POST" and "delete" in query:
        for arn, version in emulator.s3_deleted(bucket, request.body):
            yield Asked(f"s3:DeleteObject{'Version' if version else ''}", arn)
        return
    yield Asked(f"s3:{action}", f"arn:aws:s3:::{bucket}{'/' if key else ''}{key}")


def _resources(prefix: str, operation: Operation, request: Request) -> list[str]:
    """The ARNs that a request is about; ``*`` for one that names none."""
    found = _FINDERS[prefix](request) if prefix in _FINDERS else []
    where = f"arn:aws:{prefix}:{operation.region}:{operation.account}:"
    return [each if each.startswith("arn:") else where + each for each in found] or ["*"]


def _stack(request: Request) -> list[str]:
    name = _form(request)["StackName"]
    return [name if name.startswith("arn:") else f"stack/{name}/id"]


def _of_iam(request: Request) -> list[str]:
    form = _form(request)
    if "RoleName" in form:
        role = emulator.roles.get(form["RoleName"])
        # IAM knows the path of a role that exists.
        return [role["Arn"] if role else _arn("iam", "role/missing")]
    return [form[key] for key in ("PolicySourceArn", "PolicyArn") if key in form]


def _of_sagemaker(request: Request) -> list[str]:
    body, invoked = _json(request), re.match(r"/endpoints/([^/]+)/", request.path)
    kinds = {
        "EndpointName": "endpoint",
        "EndpointConfigName": "endpoint-config",
        "ModelName": "model",
    }
    found = [f"{kinds[key]}/{body[key]}" for key in kinds if key in body]
    found += [f"endpoint/{invoked[1]}"] if invoked else []
    return found or ([body["ResourceArn"]] if "ResourceArn" in body else [])


def _of_logs(request: Request) -> list[str]:
    body = _json(request)
    if "resourceArn" in body:
        return [body["resourceArn"]]
    name = body.get("logGroupName")
    return [f"log-group:{name}:*"] if name else []


def _of_lambda(request: Request) -> list[str]:
    name = request.path.partition("/functions/")[2].partition("/")[0]
    return [f"function:{name}"] if name else []


def _of_ecr(request: Request) -> list[str]:
    body = _json(request)
    if "resourceArn" in body:
        return [body["resourceArn"]]
    region = emulator.get_region()
    account = body.get("registryId", emulator.get_account())
    names = body.get(
        "repositoryNames", [body["repositoryName"]] if "repositoryName" in body else []
    )
    return [f"arn:aws:ecr:{region}:{account}:repository/{name}" for name in names]


_FINDERS: dict[str, Callable[[Request], list[str]]] = {
    "cloudformation": _stack,
    "cloudwatch": lambda request: [
        f"alarm:{name.decode()}" for name in _ALARMS.findall(request.body)
    ],
    "ecr": _of_ecr,
    "iam": _of_iam,
    "lambda": _of_lambda,
    "logs": _of_logs,
    "sagemaker": _of_sagemaker,
    "scheduler": lambda request: [f"schedule-group/{request.path.rpartition('/')[2]}"],
}


def _form(request: Request) -> dict[str, str]:
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        return {}
    return {key: values[0] for key, values in parse_qs(text, keep_blank_values=True).items()}


def _json(request: Request) -> Json:
    try:
        value = json.loads(request.body or b"{}")
    except ValueError:  # another protocol's
        return {}
    return value if isinstance(value, dict) else {}


# What a handler of CloudFormation asks for


def _handled(kind: str, actions: list[str], properties: Json) -> Iterator[Asked]:
    for action in actions:
        prefix = action.partition(":")[0]
        special = _SPECIAL.get(action) or _SPECIAL.get(prefix)
        if prefix == "cloudwatch" and kind.startswith("AWS::ApplicationAutoScaling::"):
            # The alarms of target tracking.
            alarm = f"alarm:TargetTracking-{properties.get('ResourceId', '')}-AlarmHigh-any"
            yield Asked(action, _arn(prefix, alarm))
        elif special is not None:
            yield from special(kind, action, properties)
        else:
            bound = properties.get("PermissionsBoundary")
            context = {"iam:permissionsboundary": bound} if bound else {}
            yield Asked(action, _resource(kind, properties), context)


def _passing(kind: str, action: str, properties: Json) -> Iterator[Asked]:
    """Pass the role of the properties, if they have one, to the service of the type."""
    target = properties.get("Target", {})
    for role in (properties.get("ExecutionRoleArn"), properties.get("Role"), target.get("RoleArn")):
        if role:
            service = f"{_SERVICES[kind.split('::')[1]]}.amazonaws.com"
            yield Asked(action, role, {"iam:passedtoservice": service})


def _linking(_kind: str, action: str, _properties: Json) -> Iterator[Asked]:
    arn = _arn("iam", f"role/aws-service-role/{AUTOSCALING}/any")
    yield Asked(action, arn, {"iam:awsservicename": AUTOSCALING})


def _fetching(_kind: str, action: str, properties: Json) -> Iterator[Asked]:
    code = properties.get("Code", {})
    if code.get("S3Bucket"):
        yield Asked(action, f"arn:aws:s3:::{code['S3Bucket']}/{code['S3Key']}")


def _encrypting(_kind: str, action: str, properties: Json) -> Iterator[Asked]:
    key = properties.get("KmsKeyArn") or properties.get("KmsKeyId")
    if key:
        yield Asked(action, key)


def _looking(_kind: str, action: str, properties: Json) -> Iterator[Asked]:
    """Look at the network of a function that joins one; these actions name no resource."""
    if properties.get("VpcConfig"):
        yield Asked(action, "*")


_SPECIAL = {
    "iam:PassRole": _passing,
    "ec2": _looking,
    "iam:CreateServiceLinkedRole": _linking,
    "s3": _fetching,
    "kms": _encrypting,
}


def _resource(kind: str, properties: Json) -> str:
    """The ARN of a resource of a type."""
    _, of_service, of_type = kind.split("::")
    if of_service == "ApplicationAutoScaling":
        return _arn("application-autoscaling", "scalable-target/any")
    if of_service.startswith("ApiGateway"):
        collection = "/apis/any" if of_service == "ApiGatewayV2" else "/restapis/any"
        path = _API_PATHS.get(of_type, collection)
        return f"arn:aws:apigateway:{emulator.get_region()}::{path}"
    prefix = of_service.lower()
    return _arn(prefix, _NAMED[kind].format_map(properties))


def _arn(prefix: str, resource: str) -> str:
    """An ARN in the account and region of the request; some resources have no region."""
    without = prefix == "iam" or resource.startswith("dashboard/")
    region = "" if without else emulator.get_region()
    return f"arn:aws:{prefix}:{region}:{emulator.get_account()}:{resource}"

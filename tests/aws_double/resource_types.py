"""The CloudFormation resource types that ministack lacks, and where AWS is stricter than it.

Sources, all in AWS's CloudFormation template reference, at the type's own page: what ``Ref`` and
``Fn::GetAtt`` return, and per property "Update requires: Replacement". Beside them:
capabilities must be acknowledged (API reference of CreateChangeSet, ``Capabilities``); a function
whose package is not there cannot be created (API reference of Lambda's CreateFunction); a bucket
that holds something cannot be deleted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import yaml

from tests.aws_double import api_import, emulator
from tests.aws_double.refused import Refused
from tests.aws_double.sagemaker import SageMaker
from tests.aws_double.scaling import Scaling
from tests.aws_double.shapes import typed

_DELETING_SECONDS = 0.5
_MOST_ENVIRONMENT = 4_096  # bytes

Json = Any
Created = tuple[str, dict[str, Any]]

_REPLACING = {
    "AWS::ApiGateway::RestApi": (),
    "AWS::ApiGatewayV2::Api": ("ProtocolType",),
    "AWS::SageMaker::Model": (
        *("Containers", "EnableNetworkIsolation", "ExecutionRoleArn", "InferenceExecutionConfig"),
        *("ModelName", "PrimaryContainer", "VpcConfig"),
    ),
    "AWS::SageMaker::EndpointConfig": (
        *("AsyncInferenceConfig", "DataCaptureConfig", "EnableNetworkIsolation"),
        *("EndpointConfigName", "ExecutionRoleArn", "ExplainerConfig", "KmsKeyId"),
        *("ProductionVariants", "ShadowProductionVariants", "VpcConfig"),
    ),
    "AWS::SageMaker::Endpoint": ("EndpointName",),
    "AWS::ApplicationAutoScaling::ScalableTarget": (
        *("ResourceId", "ScalableDimension", "ServiceNamespace"),
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": (
        *("PolicyName", "ResourceId", "ScalableDimension", "ScalingTargetId", "ServiceNamespace"),
    ),
}
# The service and operation whose request has the properties of the type.
_REQUESTS = {
    "AWS::SageMaker::Model": ("sagemaker", "CreateModel"),
    "AWS::SageMaker::EndpointConfig": ("sagemaker", "CreateEndpointConfig"),
    "AWS::SageMaker::Endpoint": ("sagemaker", "CreateEndpoint"),
    "AWS::ApplicationAutoScaling::ScalableTarget": (
        "application-autoscaling",
        "RegisterScalableTarget",
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": ("application-autoscaling", "PutScalingPolicy"),
}
_NAMED = {
    "AWS::SageMaker::Model": "ModelName",
    "AWS::SageMaker::EndpointConfig": "EndpointConfigName",
    "AWS::SageMaker::Endpoint": "EndpointName",
}


def install(sagemaker: SageMaker, scaling: Scaling) -> None:
    """Add the types to ministack's tables, once per process."""
    table = emulator.resource_types
    added: dict[str, Handlers] = {
        "AWS::SageMaker::Model": _Model(sagemaker),
        "AWS::SageMaker::EndpointConfig": _EndpointConfig(sagemaker),
        "AWS::SageMaker::Endpoint": _Endpoint(sagemaker),
        "AWS::ApplicationAutoScaling::ScalableTarget": _ScalableTarget(scaling),
        "AWS::ApplicationAutoScaling::ScalingPolicy": _ScalingPolicy(scaling),
    }
    for kind, handlers in added.items():
        table[kind] = _converting(handlers, *_REQUESTS[kind])
    api_import.install(table)
    emulator.replacing_properties.update(_REPLACING)
    for kind, name in _NAMED.items():
        emulator.custom_names[kind] = {"name": name}
        emulator.tag_properties[kind] = ("Tags", "list")
    _validate_early(emulator.actions)
    emulator.replace_part(emulator.ENGINE, "CfnLoader", _compiled)
    _let_endpoints_take_time()
    _let_rollbacks_take_time()
    _changed_policies_alone_are_no_change()
    _parameters_count_by_what_they_give()
    _conditions_join_lists()
    _conditions_decide_what_changes()
    emulator.replace_part(emulator.HANDLERS, "_capabilities_enforced", lambda _: lambda: True)
    _give_roles_their_boundary(table["AWS::IAM::Role"])
    _refuse_functions_without_code(table["AWS::Lambda::Function"])
    _refuse_large_environments(table["AWS::Lambda::Function"])
    _refuse_full_buckets(table["AWS::S3::Bucket"])
    emulator.tag_collectors["sagemaker"] = lambda: _tagged(sagemaker)
    emulator.tag_collectors["logs"] = _tagged_log_groups
    emulator.tag_collectors["apigateway"] = _tagged_apis


class Handlers(Protocol):
    """What CloudFormation does with one resource type."""

    def create(self, logical_id: str, props: Json, stack: str, /) -> Created: ...

    def update(self, physical_id: str, old: Json, new: Json, stack: str, /) -> Created: ...

    def delete(self, physical_id: str, props: Json, /) -> None: ...


def _converting(handlers: Handlers, service: str, operation: str) -> dict[str, Any]:
    """The handlers, given properties of the right types."""

    def create(logical_id: str, props: Json, stack: str) -> Created:
        return handlers.create(logical_id, typed(service, operation, props), stack)

    def update(physical_id: str, old: Json, new: Json, stack: str) -> Created:
        before, after = (typed(service, operation, props) for props in (old, new))
        return handlers.update(physical_id, before, after, stack)

    return {"create": create, "update": update, "delete": handlers.delete}


def _compiled(loader: Any) -> Any:
    """A loader of YAML with libyaml's parser: Python's took a sixth of the double's time."""
    parts = {
        "yaml_constructors": loader.yaml_constructors,
        "yaml_implicit_resolvers": loader.yaml_implicit_resolvers,
    }
    return type("CompiledLoader", (yaml.CSafeLoader,), parts) if yaml.__with_libyaml__ else loader


class _Model:
    def __init__(self, service: SageMaker) -> None:
        self._service = service

    def create(self, logical_id: str, props: Json, stack: str) -> Created:
        name = props.get("ModelName") or _name(stack, logical_id)
        arn = _tried(lambda: self._service.create_model({**props, "ModelName": name}))["ModelArn"]
        return arn, {"ModelName": name, "ModelArn": arn}

    def update(self, physical_id: str, _old: Json, new: Json, _stack: str) -> Created:
        name = _last(physical_id)
        self._service.models[name]["Tags"] = new.get("Tags", [])
        return physical_id, {"ModelName": name, "ModelArn": physical_id}

    def delete(self, physical_id: str, _props: Json) -> None:
        _gone(lambda: self._service.delete_model(_last(physical_id)))


class _EndpointConfig:
    def __init__(self, service: SageMaker) -> None:
        self._service = service

    def create(self, logical_id: str, props: Json, stack: str) -> Created:
        name = props.get("EndpointConfigName") or _name(stack, logical_id)
        request = {**props, "EndpointConfigName": name}
        arn = _tried(lambda: self._service.create_config(request))["EndpointConfigArn"]
        return arn, {"EndpointConfigName": name, "EndpointConfigArn": arn}

    def update(self, physical_id: str, _old: Json, new: Json, _stack: str) -> Created:
        name = _last(physical_id)
        self._service.configs[name]["Tags"] = new.get("Tags", [])
        return physical_id, {"EndpointConfigName": name, "EndpointConfigArn": physical_id}

    def delete(self, physical_id: str, _props: Json) -> None:
        _gone(lambda: self._service.delete_config(_last(physical_id)))


class _Endpoint:
    def __init__(self, service: SageMaker) -> None:
        self._service = service

    def create(self, logical_id: str, props: Json, stack: str) -> Created:
        name = props.get("EndpointName") or _name(stack, logical_id)
        request = {**props, "EndpointName": name}
        endpoint = _tried(lambda: self._service.create_endpoint(request))
        if endpoint.status == "Failed":
            self._service.delete_endpoint(request)  # as the rollback of the stack does
            raise ValueError(endpoint.reason)
        arn = self._service.describe_endpoint(request)["EndpointArn"]
        return arn, {"EndpointName": name, "EndpointArn": arn}

    def update(self, physical_id: str, old: Json, new: Json, _stack: str) -> Created:
        name = _last(physical_id)
        attributes = {"EndpointName": name, "EndpointArn": physical_id}
        self._service.endpoints[name].tags[:] = new.get("Tags", [])
        if old["EndpointConfigName"] == new["EndpointConfigName"]:
            return physical_id, attributes
        endpoint = _tried(lambda: self._service.update_endpoint({**new, "EndpointName": name}))
        silent = self._service.account_behaviour().silent_update
        if endpoint.config != new["EndpointConfigName"] and not silent:
            raise ValueError(endpoint.reason)
        return physical_id, attributes

    def delete(self, physical_id: str, _props: Json) -> None:
        _gone(lambda: self._service.delete_endpoint({"EndpointName": _last(physical_id)}))


class _ScalableTarget:
    def __init__(self, service: Scaling) -> None:
        self._service = service

    def create(self, _logical_id: str, props: Json, _stack: str) -> Created:
        self._service.register(props)
        parts = (props["ResourceId"], props["ScalableDimension"], props["ServiceNamespace"])
        return "|".join(parts), {"Id": "|".join(parts)}

    def update(self, physical_id: str, _old: Json, new: Json, _stack: str) -> Created:
        self._service.register(new)
        return physical_id, {"Id": physical_id}

    def delete(self, physical_id: str, _props: Json) -> None:
        resource, dimension, namespace = physical_id.split("|")
        key = {
            "ServiceNamespace": namespace,
            "ResourceId": resource,
            "ScalableDimension": dimension,
        }
        _gone(lambda: self._service.deregister(key))


class _ScalingPolicy:
    def __init__(self, service: Scaling) -> None:
        self._service = service

    def create(self, _logical_id: str, props: Json, _stack: str) -> Created:
        if "ScalingTargetId" in props:
            resource, dimension, namespace = props["ScalingTargetId"].split("|")
            props = {
                **props,
                "ResourceId": resource,
                "ScalableDimension": dimension,
                "ServiceNamespace": namespace,
            }
        arn = self._service.put_policy(props)["PolicyARN"]
        return arn, {"Arn": arn, "PolicyName": props["PolicyName"]}

    def update(self, physical_id: str, _old: Json, new: Json, stack: str) -> Created:
        self.create("", new, stack)
        return physical_id, {"Arn": physical_id, "PolicyName": new["PolicyName"]}

    def delete(self, _physical_id: str, props: Json) -> None:
        _gone(lambda: self._service.delete_policy(props))


def _changed_policies_alone_are_no_change() -> None:
    """CloudFormation takes a policy over only with another change to the same resource.

    Source: the page of the DeletionPolicy attribute.
    """
    emulator.replace_part(
        emulator.STACKS,
        "_DIFFED_ATTRIBUTES",
        lambda before: tuple(
            each for each in before if each not in {"DeletionPolicy", "UpdateReplacePolicy"}
        ),
    )


def _parameters_count_by_what_they_give() -> None:
    """A property that gets the same value from a parameter as before has not changed.

    ministack counts every property that names a new parameter. Source: "CreateChangeSet": a change
    set lists the resources whose properties or attributes change.
    """

    def by_value(diff: Callable[..., list[Json]]) -> Callable[..., list[Json]]:
        def diffed(
            old: Json, new: Json, resources: Json, template: Json, _parameters: Any, retag: Any
        ) -> list[Json]:
            return diff(old, new, resources, template, (), retag)

        return diffed

    emulator.replace_part(emulator.CHANGE_SETS, "_diff_resources", by_value)


def _conditions_join_lists() -> None:
    """A condition may join a list parameter: that of an empty one is empty.

    ministack compares the function itself. AWS's own quick starts join list parameters so, and
    cfn-lint, which has the rules of CloudFormation's documentation, allows it.
    """

    def joining(evaluate: Callable[..., Json]) -> Callable[..., Json]:
        def joined(value: Json, parameters: Json) -> Json:
            if isinstance(value, list):
                return [joined(item, parameters) for item in value]
            if not isinstance(value, dict):
                return value
            delimiter, items = value.get("Fn::Join", ("", None))
            name = items.get("Ref", "") if isinstance(items, dict) else ""
            if name in parameters:
                given = parameters[name]["Value"]
                parts = given if isinstance(given, list) else str(given).split(",")
                return delimiter.join(parts)
            return {key: joined(item, parameters) for key, item in value.items()}

        def evaluated(template: Json, parameters: Json) -> Json:
            conditions = joined(template.get("Conditions", {}), parameters)
            return evaluate({**template, "Conditions": conditions}, parameters)

        return evaluated

    for module in emulator.EVALUATING:
        emulator.replace_part(module, "_evaluate_conditions", joining)


def _conditions_decide_what_changes() -> None:
    """A resource whose condition is false is not in the stack, so no change set adds it.

    ministack lists it. Source: "Conditions" in the CloudFormation guide: a resource is created only
    if its condition is true, and "CreateChangeSet" lists what the stack's resources would become.

    Another resource's attribute is compared by its name: ministack, which does not know its value
    yet, takes any two for equal.
    """

    def without_the_others(resolve: Callable[..., Json]) -> Callable[..., Json]:
        def resolved(template: Json, parameters: Json, *stack: str) -> Json:
            found = resolve(template and _with_named_attributes(template), parameters, *stack)
            if not found:
                return found
            given = emulator.evaluated_conditions(template, parameters)
            kept = {
                name: resource
                for name, resource in found["Resources"].items()
                if given.get(resource.get("Condition", ""), True)
            }
            return {**found, "Resources": kept}

        return resolved

    emulator.replace_part(emulator.CHANGE_SETS, "_resolve_props_for_diff", without_the_others)


def _with_named_attributes(value: Json) -> Json:
    """A part of a template with a name in the place of each attribute of another resource."""
    if isinstance(value, list):
        return [_with_named_attributes(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"Fn::GetAtt"}:
        attribute = value["Fn::GetAtt"]
        return attribute if isinstance(attribute, str) else ".".join(attribute)
    return {key: _with_named_attributes(item) for key, item in value.items()}


def _validate_early(actions: dict[str, Any]) -> None:
    """A change set that would create what is there fails, and names nothing: DescribeEvents does.

    Of the types with a name of their own, the double looks at log groups. Source: "Validate stack
    deployments" in the CloudFormation guide (early validation, since 2025-11).
    """
    create = actions["CreateChangeSet"]

    def checked(params: Json) -> Any:
        answer = create(params)
        name, stack_name = params["ChangeSetName"][0], params["StackName"][0]
        _, change_set = emulator.find_change_set(name, stack_name)
        if answer[0] == 200 and change_set and change_set["Status"] == "CREATE_COMPLETE":
            _fail_what_exists(change_set)
        return answer

    actions["CreateChangeSet"] = checked


def _fail_what_exists(change_set: Json) -> None:
    stack_name, stack_id = change_set["StackName"], change_set["StackId"]
    template, values = change_set["_template"], change_set["_resolved_params"]
    resources = emulator.resolved_resources(template, values, stack_name, stack_id)["Resources"]
    events = []
    for item in change_set["Changes"]:
        change = item["ResourceChange"]
        logical_id, kind = change["LogicalResourceId"], change["ResourceType"]
        if (change["Action"], kind) != ("Add", "AWS::Logs::LogGroup"):
            continue
        name = resources[logical_id].get("Properties", {}).get("LogGroupName", "")
        if name in emulator.log_groups:
            events.append(
                emulator.operation_event(
                    stack_id,
                    change_set["ChangeSetId"],
                    "VALIDATION_ERROR",
                    "CREATE_CHANGESET",
                    LogicalResourceId=logical_id,
                    PhysicalResourceId=name,
                    ResourceType=kind,
                    ValidationFailureMode="FAIL",
                    ValidationName="NAME_CONFLICT_VALIDATION",
                    ValidationStatus="FAILED",
                    ValidationStatusReason=f"Resource of type '{kind}' with identifier '{name}' "
                    "already exists.",
                    ValidationPath=f"/Resources/{logical_id}",
                )
            )
    if events:
        emulator.stacks[stack_name]["_operation_events"] = events
        change_set.update(
            Status="FAILED",
            ExecutionStatus="UNAVAILABLE",
            StatusReason="The following hook(s)/validation failed: "
            "[AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot Early Validation "
            "errors, use the DescribeEvents API for detailed failure information.",
        )


def _let_endpoints_take_time() -> None:
    """An endpoint takes a while; the events before it must be seen meanwhile."""
    emulator.replace_part(
        emulator.STACKS,
        "_runs_on_worker_thread",
        lambda before: lambda kind: kind == "AWS::SageMaker::Endpoint" or before(kind),
    )


def _let_rollbacks_take_time() -> None:
    """A rollback deletes the failed endpoint before what it depends on, and that takes seconds.

    ministack keeps no failed resource, and would be done at once. Source: "Endpoint status" in the
    SageMaker guide (Deleting), and CloudFormation's ``DependsOn``.
    """

    def slowed(roll_back: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def rolling_back(*arguments: Any, **options: Any) -> None:
            await asyncio.sleep(_DELETING_SECONDS)
            await roll_back(*arguments, **options)

        return rolling_back

    emulator.replace_part(emulator.STACKS, "_roll_back_operation", slowed)


def _give_roles_their_boundary(handlers: dict[str, Any]) -> None:
    """``PermissionsBoundary`` on the page of ``AWS::IAM::Role``, which ministack leaves out."""
    create = handlers["create"]

    def bound(logical_id: str, props: Json, stack: str) -> Created:
        created: Created = create(logical_id, props, stack)
        emulator.roles[created[0]]["PermissionsBoundary"] = props.get("PermissionsBoundary", "")
        return created

    handlers["create"] = bound


def _refuse_functions_without_code(handlers: dict[str, Any]) -> None:
    create = handlers["create"]

    def checked(logical_id: str, props: Json, stack: str) -> Created:
        code = props.get("Code", {})
        bucket, key = code.get("S3Bucket"), code.get("S3Key")
        if bucket and emulator.object_data(bucket, key) is None:
            raise ValueError(
                "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The "
                "specified key does not exist."
            )
        created: Created = create(logical_id, props, stack)
        return created

    handlers["create"] = checked


def _refuse_large_environments(handlers: dict[str, Any]) -> None:
    """ "4 KB, for all environment variables associated with the function" ("Lambda quotas")."""

    def checked(handle: Callable[..., Created], position: int) -> Callable[..., Created]:
        def handled(*arguments: Any) -> Created:
            props = arguments[position]
            variables = props.get("Environment", {}).get("Variables", {})
            measured = json.dumps({name: str(value) for name, value in variables.items()})
            if len(measured) > _MOST_ENVIRONMENT:
                raise ValueError(
                    "Lambda was unable to configure your environment variables because the "
                    "environment variables you have provided exceeded the 4KB limit."
                )
            return handle(*arguments)

        return handled

    for name, position in (("create", 1), ("update", 2)):
        handlers[name] = checked(handlers[name], position)


def _refuse_full_buckets(handlers: dict[str, Any]) -> None:
    """ "You can only delete empty buckets." (the page of ``AWS::S3::Bucket``)."""
    delete = handlers["delete"]

    def checked(physical_id: str, props: Json) -> None:
        if emulator.buckets.get(physical_id, {}).get("objects"):
            raise ValueError("The bucket you tried to delete is not empty (Service: S3, 409)")
        delete(physical_id, props)

    handlers["delete"] = checked


def _tagged(sagemaker: SageMaker) -> list[tuple[str, list[Json]]]:
    found = [(m["ModelArn"], m.get("Tags", [])) for m in sagemaker.models.values()]
    found += [(c["EndpointConfigArn"], c.get("Tags", [])) for c in sagemaker.configs.values()]
    found += [
        (sagemaker.transforms.arn(job.name), job.request.get("Tags", []))
        for job in sagemaker.transforms.jobs.values()
    ]
    for endpoint in sagemaker.endpoints.values():
        arn = sagemaker.describe_endpoint({"EndpointName": endpoint.name})["EndpointArn"]
        found.append((arn, endpoint.tags))
    return found


def _tagged_log_groups() -> list[tuple[str, list[Json]]]:
    return [
        (group["arn"].removesuffix(":*"), [{"Key": k, "Value": v} for k, v in tags.items()])
        for group in emulator.log_groups.values()
        if (tags := group["tags"])
    ]


def _tagged_apis() -> list[tuple[str, list[Json]]]:
    """Source: "Services that support the Resource Groups Tagging API"."""
    stores = {
        "apikeys": emulator.api_keys,
        "restapis": emulator.rest_apis,
        "usageplans": emulator.usage_plans,
    }
    arn = f"arn:aws:apigateway:{emulator.get_region()}::"
    return [
        (f"{arn}/{kind}/{item['id']}", [{"Key": k, "Value": v} for k, v in tags.items()])
        for kind, store in stores.items()
        for item in store.values()
        if (tags := item.get("tags"))
    ]


def _tried(call: Any) -> Any:
    try:
        return call()
    except Refused as refused:
        raise ValueError(str(refused)) from None


def _gone(delete: Any) -> None:
    """Delete, where there still is something."""
    try:
        delete()
    except LookupError:
        pass
    except Refused as refused:
        if not str(refused).startswith("Could not find"):
            raise ValueError(str(refused)) from None


def _name(stack: str, logical_id: str) -> str:
    return str(emulator.physical_name(stack, logical_id, max_len=63))


def _last(arn: str) -> str:
    return arn.rpartition("/")[2]

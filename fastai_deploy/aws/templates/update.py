"""How a template must differ when the stack that it is for is there already.

Two rules of SageMaker concern autoscaled endpoints ("Update endpoints that use auto scaling"): an
update goes back to the first number of instances unless it says otherwise, which may only be said
when there is an endpoint; and an instance type cannot change while it is autoscaled.

An API whose routes are resources of their own, as earlier versions of fdeploy made them, moves to
an OpenAPI document in two safe steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastai_deploy.aws.templates.template import Template

Json = Any
_ENDPOINT, _CONFIG, _TARGET = "Endpoint", "EndpointConfig", "ScalableTarget"
KEY_SERIAL = "ApiKeySerial"  # a parameter and an output
_KEEP, _KEEP_PARAMETER = "RetainAllVariantProperties", "KeepInstances"
_SCALING = "AWS::ApplicationAutoScaling::"
_WAKE_UP = "WakeUpAlarm"
_API = "Api"
# What fdeploy made as resources of their own before API Gateway imported the API.
ROUTES = frozenset(
    (
        "AWS::ApiGateway::GatewayResponse",
        "AWS::ApiGateway::Method",
        "AWS::ApiGateway::Model",
        "AWS::ApiGateway::RequestValidator",
        "AWS::ApiGateway::Resource",
        "AWS::ApiGatewayV2::Authorizer",
        "AWS::ApiGatewayV2::Integration",
        "AWS::ApiGatewayV2::Route",
    )
)


@dataclass(frozen=True)
class FirstStep:
    """A template to deploy first, and why, for people."""

    template: Template
    why: str


def keeping_capacity(wanted: Template, live: Template | None) -> Template:
    """The template with which an autoscaled endpoint keeps its instances through an update.

    ``live`` is the template of the stack, None where there is none. An unchanged endpoint stays
    unchanged.
    """
    if live is None:
        return wanted
    after, before = wanted.evaluated()["Resources"], live.evaluated()["Resources"]
    if _TARGET not in after or not _same_endpoint(after, before):
        return wanted
    moves = _name(before, _CONFIG) != _name(after, _CONFIG)
    if not (moves or before[_ENDPOINT]["Properties"].get(_KEEP)):
        return wanted
    if _KEEP_PARAMETER in wanted.parameters:
        return replace(wanted, parameters={**wanted.parameters, _KEEP_PARAMETER: "true"})
    document = wanted.document()  # of a version of fdeploy whose templates had no parameters
    document["Resources"][_ENDPOINT]["Properties"][_KEEP] = True
    return replace(wanted, text=json.dumps(document))


def first_step(wanted: Template, live: Template | None) -> FirstStep | None:
    """What to deploy before ``wanted``, where one step is not enough; else None."""
    if live is None:
        return None
    return (
        _without_autoscaling(wanted, live)
        or _keeping_routes(wanted, live)
        or _without_routes(wanted, live)
    )


def _without_autoscaling(wanted: Template, live: Template) -> FirstStep | None:
    """The live template without autoscaling, where the instance type changes."""
    after, before = wanted.evaluated()["Resources"], live.evaluated()["Resources"]
    if _TARGET not in before or not _same_endpoint(after, before):
        return None
    if _instance(after) == _instance(before):
        return None
    document = live.document()
    document["Resources"] = {
        name: resource
        for name, resource in document["Resources"].items()
        if not resource["Type"].startswith(_SCALING) and name != _WAKE_UP
    }
    why = "pausing autoscaling, because the instance type changes"
    return FirstStep(replace(live, text=json.dumps(document)), why)


def _keeping_routes(wanted: Template, live: Template) -> FirstStep | None:
    """The live template with its routes retained, where an OpenAPI document takes their place.

    CloudFormation overwrites the API with the document, and then deletes the routes that the live
    template had as resources of their own. Those may be the very ones that the document has just
    described, so it must let go of them first. It takes over a changed policy only with another
    change to the same resource ("DeletionPolicy attribute"), which is the metadata.
    """
    if _body(live.document()) is not None or _body(wanted.document()) is None:
        return None
    document = live.document()
    routes = [each for each in document["Resources"].values() if each["Type"] in ROUTES]
    if not routes or all(each.get("DeletionPolicy") == "Retain" for each in routes):
        return None
    for each in routes:
        each["DeletionPolicy"] = each["UpdateReplacePolicy"] = "Retain"
        each["Metadata"] = {"fdeploy": "the OpenAPI document of the API takes its place"}
    why = "moving the API's routes to an OpenAPI document; the old ones are retained"
    return FirstStep(replace(live, text=json.dumps(document)), why)


def _without_routes(wanted: Template, live: Template) -> FirstStep | None:
    """The live template with an empty OpenAPI document, where routes are to be resources again.

    Only putting back what a version of fdeploy without such documents has deployed needs that: a
    route that is there cannot be made. A REST API goes on serving its deployment meanwhile.
    """
    document = live.document()
    body = _body(document)
    if not body or not body["paths"] or _body(wanted.document()) is not None:
        return None
    if _API not in wanted.document()["Resources"]:  # the URL of a function
        return None
    document["Resources"][_API]["Properties"]["Body"] = {
        "openapi": body["openapi"],
        "info": body["info"],
        "paths": {},
    }
    why = "the API's routes become resources of their own again"
    return FirstStep(replace(live, text=json.dumps(document)), why)


def _body(document: Json) -> Json:
    """The OpenAPI document that an API is imported from; None where there is none."""
    api = document["Resources"].get(_API, {})
    return api.get("Properties", {}).get("Body")


def adopting(template: Template, log_groups: Mapping[str, str]) -> Template:
    """The template with which a change set imports log groups, by logical ID.

    CloudFormation imports only what has a literal name and is retained.
    """
    document = template.document()
    for logical_id, name in log_groups.items():
        resource = document["Resources"][logical_id]
        resource["DeletionPolicy"] = "RetainExceptOnCreate"
        resource["Properties"]["LogGroupName"] = name
    return replace(template, text=json.dumps(document))


def with_key_serial(live: Template, serial: str) -> Template:
    """The template of a REST API with a new key in the place of the old one.

    The value of a key cannot be changed, but a key of another name is another key:
    CloudFormation makes it, moves the usage plan over, and deletes the old one at the end.
    """
    if KEY_SERIAL in live.parameters:
        return replace(live, parameters={**live.parameters, KEY_SERIAL: serial})
    document = live.document()  # of a version of fdeploy whose templates had no parameters
    key = document["Resources"]["ApiKey"]["Properties"]
    key["Name"] = f"{key['Name'].partition('.')[0]}.{serial}"
    document["Outputs"][KEY_SERIAL] = {"Value": serial}
    return replace(live, text=json.dumps(document))


def _same_endpoint(after: Json, before: Json) -> bool:
    return _ENDPOINT in before and _name(before, _ENDPOINT) == _name(after, _ENDPOINT)


def _name(resources: Json, logical_id: str) -> str:
    return str(resources[logical_id]["Properties"][f"{logical_id}Name"])


def _instance(resources: Json) -> str | None:
    variant: dict[str, Any] = resources[_CONFIG]["Properties"]["ProductionVariants"][0]
    return variant.get("InstanceType")

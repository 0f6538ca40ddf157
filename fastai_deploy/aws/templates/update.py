"""How a template must differ when the stack that it is for is there already.

Two rules of SageMaker concern autoscaled endpoints ("Update endpoints that use auto scaling"): an
update goes back to the first number of instances unless it says otherwise, which may only be said
when there is an endpoint; and an instance type cannot change while it is autoscaled.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from fastai_deploy.aws.templates.template import Template

Json = Any
_ENDPOINT, _CONFIG, _TARGET = "Endpoint", "EndpointConfig", "ScalableTarget"
KEY_SERIAL = "ApiKeySerial"  # a parameter and an output
_KEEP, _KEEP_PARAMETER = "RetainAllVariantProperties", "KeepInstances"
_SCALING = "AWS::ApplicationAutoScaling::"
_WAKE_UP = "WakeUpAlarm"


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


def first_step(wanted: Template, live: Template | None) -> Template | None:
    """The template to deploy before ``wanted``, where one step is not enough; else None.

    It is the live one without its autoscaling.
    """
    if live is None:
        return None
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
    return replace(live, text=json.dumps(document))


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

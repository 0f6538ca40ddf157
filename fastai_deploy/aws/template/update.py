"""How a template must differ when the stack that it is for is there already.

Two rules of SageMaker's concern endpoints that are autoscaled ("Update endpoints that use auto
scaling"): an update goes back to the first number of instances unless it says otherwise, which may
only be said when there is an endpoint; and an instance type cannot change while it is autoscaled.
"""

from __future__ import annotations

from typing import Any

from fastai_deploy.aws.template.intrinsics import Json
from fastai_deploy.aws.template.scaling import TARGET
from fastai_deploy.aws.template.serving import CONFIG, ENDPOINT

_KEEP = "RetainAllVariantProperties"
_SCALING = "AWS::ApplicationAutoScaling::"


def keeping_capacity(wanted: Json, live: Json | None) -> Json:
    """The template with which an autoscaled endpoint keeps its instances through an update.

    ``live`` is the template of the stack, None where there is none. An unchanged endpoint stays
    unchanged.
    """
    if live is None or TARGET not in wanted["Resources"] or not _same_endpoint(wanted, live):
        return wanted
    before, after = _properties(live, ENDPOINT), _properties(wanted, ENDPOINT)
    moves = before["EndpointConfigName"] != after["EndpointConfigName"]
    if not (moves or before.get(_KEEP)):
        return wanted
    endpoint = wanted["Resources"][ENDPOINT]
    kept = {**endpoint, "Properties": {**after, _KEEP: True}}
    return {**wanted, "Resources": {**wanted["Resources"], ENDPOINT: kept}}


def first_step(wanted: Json, live: Json | None) -> Json | None:
    """The template to deploy before ``wanted``, where one step is not enough; else None.

    It is the live one without its autoscaling.
    """
    if live is None or TARGET not in live["Resources"] or not _same_endpoint(wanted, live):
        return None
    if _instance(wanted) == _instance(live):
        return None
    scaling = {
        name
        for name, resource in live["Resources"].items()
        if resource["Type"].startswith(_SCALING) or name == "WakeUpAlarm"
    }
    kept = {name: value for name, value in live["Resources"].items() if name not in scaling}
    return {**live, "Resources": kept}


def _same_endpoint(wanted: Json, live: Json) -> bool:
    if ENDPOINT not in live["Resources"]:
        return False
    names = (_properties(template, ENDPOINT)["EndpointName"] for template in (wanted, live))
    return len(set(names)) == 1


def _instance(template: Json) -> str | None:
    variant: dict[str, Any] = _properties(template, CONFIG)["ProductionVariants"][0]
    return variant.get("InstanceType")


def _properties(template: Json, name: str) -> dict[str, Json]:
    found: dict[str, Json] = template["Resources"][name]["Properties"]
    return found

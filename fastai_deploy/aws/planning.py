"""What a deploy would change, as a table: the change sets of the stacks, and the price.

``interrupts`` says whether the service stops meanwhile: an endpoint moves over to a new
configuration without (blue/green), and only one that is replaced or removed is gone for a while.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastai_deploy.aws.change_set import Change
from fastai_deploy.aws.deployment import Plan
from fastai_deploy.aws.pricing import Cost

_SERVES = frozenset(
    (
        "AWS::ApiGateway::ApiKey",
        "AWS::ApiGateway::RestApi",
        "AWS::ApiGatewayV2::Api",
        "AWS::SageMaker::Endpoint",
    )
)


@dataclass(frozen=True)
class PlannedChange:
    """What happens to one resource; ``action`` is add, change, replace or remove."""

    stack: str
    action: str
    type: str
    name: str
    properties: tuple[str, ...]
    interrupts: bool


@dataclass(frozen=True)
class StagePlan:
    """What deploying would change, and what the endpoint costs then."""

    changes: tuple[PlannedChange, ...]
    cost: Cost | None

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes)


def planned(stack: str, plan: Plan) -> list[PlannedChange]:
    """The changes of one stack."""
    return [_planned(stack, change) for change in (plan.changes.changes if plan.changes else ())]


def _planned(stack: str, change: Change) -> PlannedChange:
    action = {"Add": "add", "Remove": "remove"}.get(change.action, "change")
    if change.replacement == "True":
        action = "replace"
    return PlannedChange(
        stack=stack,
        action=action,
        type=change.type.removeprefix("AWS::"),
        name=change.logical_id,
        properties=change.properties,
        interrupts=action in ("replace", "remove") and change.type in _SERVES,
    )

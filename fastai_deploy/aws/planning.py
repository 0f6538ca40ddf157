"""What a deploy would change: the change sets of the stacks, in fdeploy's words.

``interrupts`` says whether the service stops meanwhile: an endpoint moves over to a new
configuration without (blue/green), and only one that is replaced or removed is gone for a while.
"""

from __future__ import annotations

from fastai_deploy.aws.change_set import Change, ChangeSet
from fastai_deploy.reports import Action, PlannedChange

_ACTIONS: dict[str, Action] = {"Add": "add", "Remove": "remove"}
_SERVES = frozenset(
    (
        "AWS::ApiGateway::ApiKey",
        "AWS::ApiGateway::RestApi",
        "AWS::ApiGatewayV2::Api",
        "AWS::SageMaker::Endpoint",
    )
)


def planned(stack: str, change_set: ChangeSet | None) -> tuple[PlannedChange, ...]:
    """The changes of one stack; None of them where nothing changes."""
    return tuple(_planned(stack, change) for change in (change_set.changes if change_set else ()))


def _planned(stack: str, change: Change) -> PlannedChange:
    action = _ACTIONS.get(change.action, "change")
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

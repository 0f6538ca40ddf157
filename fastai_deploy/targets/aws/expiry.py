"""When the stage deletes itself: the setting ``ttl`` and the stack that enforces it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from fastai_deploy import naming
from fastai_deploy.aws.change_sets import planned
from fastai_deploy.aws.stacks import Stack, our_stack, resources
from fastai_deploy.aws.status import ENDS_FORMAT
from fastai_deploy.settings.sections import duration
from fastai_deploy.stage_reports import PlannedChange
from fastai_deploy.targets.aws.context import Context


@dataclass(frozen=True)
class PlannedEnd:
    """What a deploy would change in the ttl stack; ``ends`` and ``ends_now`` are empty for never.

    A later date alone is not a change, because every deploy moves it.
    """

    changes: tuple[PlannedChange, ...]
    ends: str
    ends_now: str


def stack_name(context: Context) -> str:
    """The name of the ttl stack."""
    return naming.ttl_stack(context.owner.project, context.owner.stage)


def wanted_end(context: Context) -> datetime | None:
    """When the stage would end if deployed now; None for never."""
    ttl = context.settings.sections.project.ttl
    if ttl is None:
        return None
    return context.aws.now() + duration(ttl)


def is_set(context: Context) -> bool:
    """Whether the stage has a ttl stack. Raises NotOurs or AwsError."""
    return our_stack(context.aws, stack_name(context), context.owner) is not None


def planned_end(context: Context, version: str) -> PlannedEnd:
    """What deploying a version would change. Raises NotOurs, StackBusy, DeployError or AwsError."""
    name = stack_name(context)
    live = our_stack(context.aws, name, context.owner)
    now = live.outputs.get("Ends", "") if live else ""
    ends = wanted_end(context)
    if ends is None:
        return PlannedEnd(_removed(context, live) if live else (), "", now)
    kept = datetime.strptime(now, ENDS_FORMAT).replace(tzinfo=timezone.utc) if now else ends
    request = context.request(name, context.definitions.ttl(version, kept))
    plan = context.deployment().plan(request)
    return PlannedEnd(planned(name, plan.changes), f"{ends:{ENDS_FORMAT}}", now)


def _removed(context: Context, live: Stack) -> tuple[PlannedChange, ...]:
    return tuple(
        PlannedChange(
            stack=live.name,
            action="remove",
            type=item.type.removeprefix("AWS::"),
            name=item.logical_id,
            properties=(),
            interrupts=False,
        )
        for item in resources(context.aws, live)
    )

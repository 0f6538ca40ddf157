"""EventBridge Scheduler at a given time: which schedules are due, and whether their role may act.

ministack keeps schedules, and runs none that calls an AWS API. Here a due one reads its payload
with its own role, for which a customer's key needs ``kms:Decrypt``, and then deletes the stack, for
which the role needs ``cloudformation:DeleteStack`` at that time. What it is not allowed it retries,
with the payload that it had when it was due, whatever has become of the schedule since.

Sources: "Encryption at rest in EventBridge Scheduler" (``kms:Decrypt``), "Using
universal targets", RetryPolicy in the API reference; ``aws:CurrentTime`` in IAM's user guide.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.aws_double import emulator

_DELETE_STACK = "arn:aws:scheduler:::aws-sdk:cloudformation:deleteStack"


@dataclass(frozen=True)
class Due:
    """An invocation: the schedule's name, role and key, and the stack that it deletes."""

    schedule: str
    role: str
    key: str
    stack: str


class Schedules:
    """Runs the schedules of an account; a refused invocation waits for the next time."""

    def __init__(self) -> None:
        self._retried: dict[tuple[str, str], list[Due]] = {}
        emulator.replace_part(emulator.EVALUATOR, "_resolve_condition_key", _with_given_time)

    def due(self, account: str, region: str, now: datetime) -> list[str]:
        """The stacks to delete at a time, by the role's own permission to do so."""
        waiting = self._retried.pop((account, region), [])
        for schedule in emulator.schedules.values():
            at = datetime.fromisoformat(schedule["ScheduleExpression"][3:-1] + "+00:00")
            target = schedule["Target"]
            if at <= now and target["Arn"] == _DELETE_STACK:
                stack = json.loads(target["Input"])["StackName"]
                key = schedule.get("KmsKeyArn", "")
                waiting.append(Due(schedule["Name"], target["RoleArn"], key, stack))
        allowed = [each for each in waiting if _may(each, account, region, now)]
        self._retried[account, region] = [each for each in waiting if each not in allowed]
        return [each.stack for each in allowed]


def _may(due: Due, account: str, region: str, now: datetime) -> bool:
    name = due.role.rpartition("/")[2]
    if name not in emulator.roles or emulator.roles[name]["Arn"] != due.role:
        return False

    def allowed(action: str, resource: str) -> bool:
        asked = emulator.Request(
            principal_arn=due.role,
            principal_type="AssumedRole",
            principal_account=account,
            action=action,
            resource_arn=resource,
            region=region,
            service_context={"aws:currenttime": now.isoformat()},
        )
        policies = emulator.role_policies(name, account)
        return bool(emulator.evaluate(asked, policies).decision == "Allow")

    stack = f"arn:aws:cloudformation:{region}:{account}:stack/{due.stack}/id"
    reads = not due.key or allowed("kms:Decrypt", due.key)
    return reads and allowed("cloudformation:DeleteStack", stack)


def _with_given_time(resolve: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    def resolved(key: str, context: Any) -> Any:
        given = context.service_context.get("aws:currenttime")
        return given if given and key.lower() == "aws:currenttime" else resolve(key, context)

    return resolved

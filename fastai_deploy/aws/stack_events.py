"""The events of a stack operation: fetched here, told by a reporter.

Only new events are fetched, oldest first: those after a mark, or those of the operation that is
running. Source: the API reference of DescribeStackEvents (newest first, in pages; all events of an
operation carry its ClientRequestToken).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastai_deploy.aws.session import Aws

_STACK = "AWS::CloudFormation::Stack"
_BEGINNINGS = frozenset(("CREATE_IN_PROGRESS", "DELETE_IN_PROGRESS", "UPDATE_IN_PROGRESS"))


@dataclass(frozen=True)
class StackEvent:
    """Something happened to a resource of a stack, or to the stack itself."""

    id: str
    at: datetime
    logical_id: str
    physical_id: str
    type: str
    status: str
    reason: str
    token: str
    of_stack: bool

    @property
    def failed(self) -> bool:
        """Whether this is a failure, and not the end of what another failure stopped."""
        return self.status.endswith("_FAILED") and "cancelled" not in self.reason


class EventTail:
    """The end of a stack's events, read from the last one that was seen."""

    def __init__(self, aws: Aws, stack_id: str, seen: str = "") -> None:
        self._aws = aws
        self._stack_id = stack_id
        self._seen = seen

    @classmethod
    def from_now(cls, aws: Aws, stack_id: str) -> EventTail:
        """What comes after the newest event that there is. Raises AwsError."""
        newest = next(_newest_first(aws, stack_id), None)
        return cls(aws, stack_id, newest.id if newest else "")

    @classmethod
    def of_running(cls, aws: Aws, stack_id: str) -> EventTail:
        """The events of the operation that runs now, from its first. Raises AwsError."""
        token: str | None = None
        begun = False
        for event in _newest_first(aws, stack_id):
            if begun or token not in (None, event.token):
                return cls(aws, stack_id, event.id)
            token = event.token
            # What was begun in the console has no token: its first event is the stack's own.
            begun = not token and event.of_stack and event.status in _BEGINNINGS
        return cls(aws, stack_id)

    def new(self) -> list[StackEvent]:
        """The events since the last call, oldest first. Raises AwsError."""
        found: list[StackEvent] = []
        for event in _newest_first(self._aws, self._stack_id):
            if event.id == self._seen:
                break
            found.append(event)
        if found:
            self._seen = found[0].id
        return found[::-1]


def newest_token(aws: Aws, stack_id: str) -> str:
    """The ClientRequestToken of the last event; empty where it has none. Raises AwsError."""
    newest = next(_newest_first(aws, stack_id), None)
    return newest.token if newest else ""


def _newest_first(aws: Aws, stack_id: str) -> Iterator[StackEvent]:
    for page in aws.pages("cloudformation", "describe_stack_events", StackName=stack_id):
        for item in page["StackEvents"]:
            yield _event(item)


def _event(item: dict[str, Any]) -> StackEvent:
    physical_id = item.get("PhysicalResourceId", "")
    return StackEvent(
        id=item["EventId"],
        at=item["Timestamp"],
        logical_id=item["LogicalResourceId"],
        physical_id=physical_id,
        type=item.get("ResourceType", ""),
        status=item.get("ResourceStatus", ""),
        reason=item.get("ResourceStatusReason", ""),
        token=item.get("ClientRequestToken", ""),
        of_stack=item.get("ResourceType") == _STACK and physical_id == item["StackId"],
    )

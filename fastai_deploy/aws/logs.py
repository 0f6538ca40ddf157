"""Logs of containers and Lambdas: the newest lines, those since a date, or following.

Source: the API reference of FilterLogEvents, which may return empty pages before the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsMissing
from fastai_deploy.stage_reports import LogLine

_FOLLOW_SECONDS = 2.0
_MS = 1_000
# Lines arrive late and out of order, so the IDs of those already seen are kept.
_LATE = timedelta(seconds=30)


def last_lines(aws: Aws, group: str, count: int) -> list[str]:
    """The last lines of the most recently written stream. Raises AwsError."""
    try:
        streams = aws.call(
            "logs",
            "describe_log_streams",
            logGroupName=group,
            orderBy="LastEventTime",
            descending=True,
            limit=1,
        )["logStreams"]
        if not streams:
            return []
        answer = aws.call(
            "logs",
            "get_log_events",
            logGroupName=group,
            logStreamName=streams[0]["logStreamName"],
            limit=count,
            startFromHead=False,
        )
    except AwsMissing:
        return []
    return [event["message"].rstrip() for event in answer["events"]][-count:]


def since(aws: Aws, group: str, start: datetime) -> Iterator[LogLine]:
    """The lines of a group since a date, oldest first; none if there is no group."""
    for _identity, line in _events(aws, group, start):
        yield line


def follow(aws: Aws, groups: tuple[str, ...], start: datetime) -> Iterator[LogLine]:
    """The lines of groups as they arrive, without end. Raises AwsError."""
    seen: dict[str, datetime] = {}
    while True:
        found = [event for group in groups for event in _events(aws, group, start - _LATE)]
        for identity, line in sorted(found, key=lambda event: event[1].at):
            if identity not in seen and line.at >= start - _LATE:
                yield line
            seen[identity] = line.at
        newest = max(seen.values(), default=start)
        start = max(start, newest)
        seen = {identity: at for identity, at in seen.items() if at >= start - _LATE}
        aws.sleep(_FOLLOW_SECONDS)


def _events(aws: Aws, group: str, start: datetime) -> Iterator[tuple[str, LogLine]]:
    try:
        pages: Iterator[Any] = aws.pages(
            "logs",
            "filter_log_events",
            logGroupName=group,
            startTime=int(start.timestamp() * _MS),
        )
        for page in pages:
            for event in page["events"]:
                at = datetime.fromtimestamp(event["timestamp"] / _MS, tz=timezone.utc)
                line = LogLine(at, event["logStreamName"], event["message"].rstrip())
                identity = event.get("eventId") or f"{line.at} {line.stream} {line.message}"
                yield identity, line
    except AwsMissing:
        return

"""Plan, status, logs, versions, rollback and doctor of a stage on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import psutil

from fastai_deploy import files
from fastai_deploy.errors import ExtraMissing, FileMissing, UsageError, need_extra
from fastai_deploy.naming import endpoint_name
from fastai_deploy.records import Artifact, Deployed, Endpoint
from fastai_deploy.runtime.log import rotated
from fastai_deploy.settings import ApiSettings, Settings
from fastai_deploy.stage_reports import (
    Action,
    Bill,
    Check,
    Checkup,
    Cost,
    LastHour,
    LogLine,
    Part,
    PlannedChange,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)
from fastai_deploy.targets.local.api import taken
from fastai_deploy.targets.local.gateway.config import PROBE_ID
from fastai_deploy.targets.local.target import LocalTarget
from fastai_deploy.versions import (
    answers_as,
    list_versions,
    model_change,
    previous_version,
)

_FOLLOW_SECONDS = 0.2
_AWAY = 25  # looks at a log, after which a server that was not there has ended
_MOST = 256 << 20  # bytes of a log that are searched
_MS = 1_000


def lines_since(path: Path, start: datetime) -> Iterator[LogLine]:
    """The lines since a date, including those of the rotated file; none if there is no file."""
    at = start
    for text in (*_lines(rotated(path)), *_lines(path)):
        at = date_of(text) or at
        if at >= start and text:
            yield LogLine(at, path.name, text)


def follow_lines(
    path: Path,
    start: datetime,
    sleep: Callable[[float], None],
    ended: Callable[[], bool] = lambda: False,
) -> Iterator[LogLine]:
    """The lines since a date and all later ones, until what writes them has ``ended``.

    A log that was rotated meanwhile is followed into its successor. A server that is replaced by
    another is away for a moment, so only one that is away for longer has ended.
    """
    at, read, rest, inode, idle = start, 0, b"", 0, 0
    while True:
        data = b""
        now, size = _identity(path)
        if now != inode or size < read:
            if not inode or _identity(rotated(path))[0] == inode:
                data = _from(rotated(path), read)
            inode, read = now, 0
        if size > read:
            new = _from(path, read)
            read += len(new)
            data += new
        if not data:
            idle = idle + 1 if ended() else 0
            if idle > _AWAY:
                return
            sleep(_FOLLOW_SECONDS)
            continue
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            text = line.decode(errors="replace")
            at = date_of(text) or at
            if at >= start and text:
                yield LogLine(at, path.name, text)


def date_of(text: str) -> datetime | None:
    """The time of a line; None if it has none, as in a traceback."""
    try:
        values = json.loads(text)
        seconds = values["time"] if "time" in values else values["_aws"]["Timestamp"] / _MS
        return datetime.fromtimestamp(seconds, tz=timezone.utc)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None


def _lines(path: Path) -> list[str]:
    """The lines of a log, only the end of a very long one. Raises FileError."""
    try:
        with files.reading(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST))
            return file.read(_MOST).decode(errors="replace").splitlines()
    except FileMissing:
        return []


def _identity(path: Path) -> tuple[int, int]:
    """The file's inode and size; 0 and 0 if there is no file."""
    try:
        with files.reading(path) as file:
            found = os.fstat(file.fileno())
    except FileMissing:
        return 0, 0
    return found.st_ino, found.st_size


def _from(path: Path, position: int) -> bytes:
    try:
        with files.reading(path) as file:
            file.seek(position)
            return file.read()
    except FileMissing:
        return b""


_PROBE = re.compile(rf'"request(_id)?": ?"{PROBE_ID}')
_FREE = "free of charge, because it runs on this machine"
_HOUR = timedelta(hours=1)
_COPIES = 3  # copies of an artifact on disk: packaged, stored, unpacked


class LocalOperations:
    """Operations on a target's stage."""

    def __init__(
        self,
        target: LocalTarget,
        settings: Settings,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._target = target
        self._settings = settings
        self._name = endpoint_name(settings.project_name, settings.stage)
        self._now = now
        self._sleep = sleep

    def plan(self, artifact: Artifact) -> StagePlan:
        """Which server would be started or replaced."""
        changes = []
        live, version = self._target.endpoint.live_version(), artifact.version
        if live != version:
            came = (f"version {live} to {version}",) if live else ()
            # The old server is stopped only after the new one is verified.
            changes.append(_change("model server", "change" if live else "add", came))
        elif self._target.endpoint.clients_changed:
            changes.append(_change("model server", "change", ("allowed hosts and origins",)))
        action = self._target.api.pending(self._name, self._api_settings)
        if action is not None:
            changes.append(_change("gateway", action, (), interrupts=action == "change"))
        model = model_change(artifact, live, self._target.history.newest_first)
        return StagePlan(tuple(changes), Cost(Decimal(0), Decimal(0), "USD", _FREE), model=model)

    def status(self) -> Status:
        """The servers, what they serve, and the gateway's requests of the last hour."""
        target = self._target
        version, live = target.endpoint.recorded_version(), target.endpoint.live_version()
        stopped = bool(version) and not live
        port = target.api.port
        return Status(
            target="local",
            parts=tuple(_part(kind, process) for kind, process in target.servers()),
            endpoint=self._name if version else "",
            endpoint_status="running" if live else "stopped" if stopped else "",
            reason="its server is not running; run fdeploy up to start it again" if stopped else "",
            version=version,
            instances=1 if live else 0,
            url=target.api.url(port, self._api_settings) if port else "",
            ends="",
            last_hour=self._last_hour(),
            bill=Bill(Decimal(0), Decimal(0), "USD", _FREE, Decimal(0)),
            unproven=bool(live) and target.endpoint.live_unproven(),
        )

    def logs(self, *, api: bool, since: timedelta, follow: bool) -> Iterator[LogLine]:
        """The log lines of the model server or the gateway."""
        path = self._target.api.log if api else self._target.endpoint.log
        start = self._now() - since
        target = self._target
        ended = (lambda: not target.api.port) if api else (lambda: not self.live_version())
        lines = lines_since(path, start)
        if follow:
            lines = follow_lines(path, start, self._sleep, ended)
        return (line for line in lines if not _is_probe(line.message))

    def console(self) -> str:
        """Raise UsageError: this machine has no console."""
        raise UsageError(
            "this stage is on this machine, which has no console",
            hint="fdeploy open shows the API's page; fdeploy status shows the servers",
        )

    def versions(self) -> tuple[Version, ...]:
        """The versions deployed here, newest first."""
        deployed = self._target.history.newest_first()
        return list_versions(deployed, self._target.endpoint.live_version())

    def deployed(self) -> Sequence[Deployed]:
        """The versions deployed here, newest first. Raises FileError for a damaged history."""
        return self._target.history.newest_first()

    def live_version(self) -> str:
        """The version of the running server; empty if none runs."""
        return self._target.endpoint.live_version()

    def artifact_of(self, version: Deployed, folder: Path) -> Path:  # noqa: ARG002 - it is here
        """The stored artifact of a version. Raises FileError if it is gone or damaged."""
        return self._target.artifact_of(version.sha256)

    def opened(self, version: Deployed) -> AbstractContextManager[BinaryIO]:
        """The stored artifact of a version. Raises FileError if it is gone."""
        return files.reading(self._target.artifact_of(version.sha256))

    def captured(self, since: timedelta) -> Iterator[bytes]:  # noqa: ARG002 - as every target has it
        """Raise UsageError: servers on this machine keep no texts."""
        raise UsageError(
            "the local target captures nothing: data capture is a feature of SageMaker's endpoints",
            hint="set data_capture in [endpoint], and deploy with --target aws",
        )

    def rollback(self, wanted: str | None) -> Endpoint:
        """Start the previous version again; its server checks itself against its goldens.

        Raises UsageError, and the errors of ``deploy``.
        """
        live = self._target.endpoint.live_version()
        if not live:
            raise UsageError("nothing is deployed in this stage", hint="run fdeploy up")
        chosen = previous_version(self._target.history.newest_first(), live, wanted)
        return self._target.deploy(chosen.stored(self._target.name), answers_as(chosen.version))

    def doctor(self, artifact: Artifact | None) -> Checkup:
        """Check that a deploy would work here."""
        return Checkup((_packages(), _packaged(artifact), self._disk(artifact), self._port()))

    def policies(self) -> Policies:
        """Raise UsageError: the local target needs no permissions."""
        raise UsageError(
            "the local target needs no permissions",
            hint="run fdeploy doctor --policy --target aws",
        )

    def template(self, artifact: Artifact) -> Templates:  # noqa: ARG002 - as every target has it
        """Raise UsageError: the local target has no stacks."""
        raise UsageError("the local target has no stacks", hint="run fdeploy template --target aws")

    def _last_hour(self) -> LastHour:
        """Statistics of the requests that reached the model, from the Lambda's log."""
        log = self._target.api.log
        if log.name not in files.names_in(log.parent):
            return LastHour(None, None, None, None)
        asked = [
            values
            for line in lines_since(log, self._now() - _HOUR)
            if not _is_probe(line.message)
            and (values := _request(line.message))
            and not _refused(values[0])
        ]
        took = sorted(ms for _status, ms in asked)
        p50, p95 = _percentiles(took)
        errors = sum(status >= HTTPStatus.INTERNAL_SERVER_ERROR for status, _ms in asked)
        return LastHour(len(asked), errors, p50, p95)

    def _disk(self, artifact: Artifact | None) -> Check:
        free = shutil.disk_usage(self._settings.root).free
        needed = _COPIES * artifact.bytes if artifact else 0
        message = f"{free:,} bytes are free"
        if free < needed:
            return Check(
                "disk", "failed", f"{message}, but {needed:,} are needed", "free some space"
            )
        return Check("disk", "passed", message)

    def _port(self) -> Check:
        wanted = self._api_settings.port
        if not wanted or wanted == self._target.api.port or not taken(wanted):
            return Check("port", "passed", str(wanted or "a free one will be used"))
        return Check(
            "port",
            "failed",
            f"{wanted} is in use",
            "choose another with --port, or 0 for a free one",
        )

    @property
    def _api_settings(self) -> ApiSettings:
        return self._settings.sections.api


def _change(
    name: str, action: Action, properties: tuple[str, ...] = (), *, interrupts: bool = False
) -> PlannedChange:
    return PlannedChange("this machine", action, "process", name, properties, interrupts)


def _part(kind: str, process: psutil.Process) -> Part:
    try:
        since = datetime.fromtimestamp(process.create_time(), tz=timezone.utc)
        memory = process.memory_info().rss / 1e6
    except psutil.Error:
        return Part(kind, "ended", "")
    return Part(kind, f"process {process.pid}, {memory:,.0f} MB", f"{since:%Y-%m-%dT%H:%M:%SZ}")


def _packages() -> Check:
    try:
        need_extra("local", "httptools", "numpy", "onnxruntime", "tokenizers", "uvicorn")
    except ExtraMissing as error:
        return Check("packages", "failed", error.message, error.hint)
    return Check("packages", "passed", "all packages that the servers need are installed")


def _packaged(artifact: Artifact | None) -> Check:
    if artifact is None:
        return Check("artifact", "warned", "nothing is packaged yet", "run fdeploy package")
    return Check("artifact", "passed", f"version {artifact.version} is packaged")


def _is_probe(line: str) -> bool:
    """Whether a line is about a request with which fdeploy checked the API."""
    return _PROBE.search(line) is not None


def _request(line: str) -> tuple[int, float] | None:
    """The status and duration in ms from a log line about a request."""
    try:
        values = json.loads(line)
        if values["method"] != "POST":  # CORS preflights and the demo page
            return None
        return int(values["status"]), float(values["ms"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _refused(status: int) -> bool:
    """Whether a request was refused before it reached the model."""
    return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR


def _percentiles(took: list[float]) -> tuple[float | None, float | None]:
    if not took:
        return None, None
    return statistics.median(took), took[min(len(took) - 1, round(0.95 * len(took)))]

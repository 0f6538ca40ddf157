"""What the commands return that is not a record, and the type of everything that they return."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fastai_deploy import files
from fastai_deploy.batch_invoke.run import Batch
from fastai_deploy.errors import FileError, UsageError
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.parity.report import report_files
from fastai_deploy.project import Project
from fastai_deploy.records import Api, Artifact, Bundle, Endpoint, StoredArtifact, Teardown
from fastai_deploy.settings import Settings, editing
from fastai_deploy.stage_reports import (
    Checkup,
    LogLine,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)


@runtime_checkable
class Presented(Protocol):
    """A result that says itself how it is shown. The records are shown by :mod:`.show`.

    A property ``failure`` may hold an FdeployError to end with after the result is shown.
    """

    def values(self) -> Any:
        """The result as plain data, for ``--json``; the return type is its shape."""

    def lines(self) -> Iterator[str]:
        """The result for people."""


@dataclass(frozen=True)
class Exported:
    """A bundle and its parity report; ``parity`` is None if there is no report."""

    bundle: Bundle
    parity: dict[str, Any] | None
    page: str

    @classmethod
    def of(cls, bundle: Bundle) -> Exported:
        """Read the report next to a bundle."""
        data, page = report_files(Path(bundle.path))
        try:
            found = cls(bundle, parse(files.read(data)), str(page))
            _ = (found.accuracy, found.worst)
        except (FileError, BadJson, LookupError, TypeError, AttributeError, ValueError):
            return cls(bundle, None, str(page))  # edited by hand: informational only, so skip it
        return found

    @property
    def accuracy(self) -> dict[str, tuple[float, int]]:
        """Accuracy and number of labelled texts, by form."""
        found = self.parity["accuracy"] if self.parity else {}
        return {form: (float(one["accuracy"]), int(one["texts"])) for form, one in found.items()}

    @property
    def worst(self) -> tuple[WorstText, ...]:
        """All texts of the report, the largest difference first."""
        return tuple(
            WorstText(
                difference=None if row["difference"] is None else float(row["difference"]),
                changed=bool(row["changed"]),
                labels=tuple(next(iter(row["answers"].values()))["labels"]),
                text=str(row["text"]),
            )
            for row in (self.parity["rows"] if self.parity else ())
        )


@dataclass(frozen=True)
class WorstText:
    """A text of the parity report; ``difference`` is None if no form answered it."""

    difference: float | None
    changed: bool
    labels: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class InvokeResult:
    """The answer of ``invoke``, in the form of the contract."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Key:
    """The API key."""

    key: str


@dataclass(frozen=True)
class Described:
    """The result of ``openapi``: an OpenAPI document."""

    document: dict[str, Any]


@dataclass(frozen=True)
class Inspected:
    """The result of ``inspect``: a learner's anatomy as plain data."""

    summary: dict[str, Any]


@dataclass(frozen=True)
class Versions:
    """The result of ``versions``."""

    versions: tuple[Version, ...]


@dataclass(frozen=True)
class ChangedSetting:
    """A setting that was changed in the project file; ``value`` is None if it was removed."""

    file: str
    setting: str
    value: Any

    @classmethod
    def of(cls, project: Project, key: str, value: str | None, action: str) -> ChangedSetting:
        """Change the project file as ``config set`` and ``config unset`` ask for."""
        file = project.settings.file
        if not key or file is None or (value is None) != (action == "unset"):
            raise UsageError(
                f"config {action} needs a setting{' and a value' if action == 'set' else ''}",
                hint=f"fdeploy config {action} api.rate{' 20' if action == 'set' else ''}",
            )
        if value is None:
            if not editing.unset(file, key):
                raise UsageError(f"{file.name} does not set {key}", hint="fdeploy config")
            return cls(str(file), key, None)
        return cls(str(file), key, editing.set_value(file, key, value, os.environ))

    def values(self) -> ChangedSetting:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """The new value and the file."""
        shown = "removed" if self.value is None else json.dumps(self.value)
        yield f"{self.setting}  {shown}  {self.file}"


@dataclass(frozen=True)
class Opened:
    """A page, and whether a browser has it; ``key_file`` is empty where no key is needed."""

    url: str
    opened: bool
    key_file: str = ""

    def values(self) -> Opened:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """The address, and what it takes to use it."""
        yield f"{'opened' if self.opened else 'page':<8} {self.url}"
        if self.key_file and not self.opened:
            yield f"key      {self.key_file} (fdeploy key show)"


@dataclass(frozen=True)
class Lines:
    """The result of ``logs``: lines as they arrive, possibly without end."""

    lines: Iterator[LogLine]


Record = Bundle | Artifact | StoredArtifact | Endpoint | Api | Exported
Report = StagePlan | Status | Versions | Checkup | Policies | Templates
Told = Teardown | Inspected | InvokeResult | Settings | Key | Described
Streamed = Lines | Batch
Result = Record | Report | Told | Presented

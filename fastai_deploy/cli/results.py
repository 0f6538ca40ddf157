"""What a command answers on stdout: JSON for programs, a few lines for people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TextIO

from fastai_deploy.cli import report_lines
from fastai_deploy.cli.anatomy import anatomy_lines
from fastai_deploy.cli.batch import batch_lines
from fastai_deploy.cli.exported import Exported
from fastai_deploy.cli.visible import some, visible, visible_json
from fastai_deploy.errors import TargetUnavailable
from fastai_deploy.invoking.answered import Batch
from fastai_deploy.public import snippets
from fastai_deploy.records import (
    UNPROVEN,
    Api,
    Artifact,
    Bundle,
    Endpoint,
    StoredArtifact,
    Teardown,
)
from fastai_deploy.reports import (
    Checkup,
    LogLine,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)
from fastai_deploy.settings import Settings

_BAR = 30
_NAMES = 50  # labels that are shown; --json has them all


@dataclass(frozen=True)
class Answered:
    """The answer of ``invoke``, as the contract has it."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Key:
    """The API key."""

    key: str


@dataclass(frozen=True)
class Described:
    """The OpenAPI document of an API."""

    document: dict[str, Any]


@dataclass(frozen=True)
class Inspected:
    """The answer of ``inspect``: a learner's anatomy as plain data."""

    summary: dict[str, Any]


@dataclass(frozen=True)
class Versions:
    """The answer of ``versions``."""

    versions: tuple[Version, ...]


@dataclass(frozen=True)
class Lines:
    """The answer of ``logs``: lines as they come, perhaps without end."""

    lines: Iterator[LogLine]


Record = Bundle | Artifact | StoredArtifact | Endpoint | Api | Exported
Report = StagePlan | Status | Versions | Checkup | Policies | Templates
Told = Teardown | Inspected | Answered | Settings | Key | Described
Streamed = Lines | Batch
Result = Record | Report | Told

_WOULD_CHANGE = 2


def show(result: Result | Streamed, stream: TextIO, *, as_json: bool) -> None:
    """Print a result."""
    if isinstance(result, Lines):
        _show_lines(result, stream, as_json=as_json)
        return
    if isinstance(result, Batch):
        for line in batch_lines(result, as_json=as_json, width=_width(stream)):
            print(visible_json(line) if as_json else visible(line), file=stream)
        stream.flush()
        return
    if as_json:
        print(_json(_values(result)), file=stream, flush=True)
        return
    for line in _lines(result):
        print(visible(line), file=stream)
    stream.flush()


def _width(stream: TextIO) -> int | None:
    """The columns of a terminal; None where there is none, and lines may be as long as they are."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def exit_code(result: Result | Streamed) -> int:
    """What a result means to a script: 0, or that there is something to do."""
    match result:
        case StagePlan() if result.changed:
            return _WOULD_CHANGE
        case Checkup() if result.failed:
            return TargetUnavailable.exit_code
    return 0


def _show_lines(result: Lines, stream: TextIO, *, as_json: bool) -> None:
    """Ctrl-C is how one stops to follow, and no interruption of anything."""
    try:
        for line in result.lines:
            text = _json(asdict(line)) if as_json else visible(report_lines.log_line(line))
            print(text, file=stream, flush=True)
    except KeyboardInterrupt:
        return


def _json(values: Any) -> str:
    return visible_json(json.dumps(values, ensure_ascii=False, default=_plain))


def _json_lines(document: Any) -> list[str]:
    return visible_json(json.dumps(document, ensure_ascii=False, indent=2)).split("\n")


def _plain(value: Any) -> str:
    """A date, or an amount with all its digits."""
    return value.isoformat() if isinstance(value, datetime) else f"{value:f}"


def _values(result: Result) -> dict[str, Any]:
    match result:
        case Answered(body) | Inspected(body) | Described(body) | Policies(body) | Templates(body):
            return dict(body)
        case Exported():
            return result.values()
        case StagePlan(changes, cost, ends, ends_now):
            return {
                "changed": result.changed,
                "changes": [asdict(change) for change in changes],
                "cost": {
                    **asdict(cost),
                    "least_per_month": cost.least_per_month,
                    "most_per_month": cost.most_per_month,
                },
                "ends": ends,
                "ends_now": ends_now,
            }
        case Checkup(checks):
            return {"ok": not result.failed, "checks": [asdict(check) for check in checks]}
        case Settings():
            return {
                "root": str(result.root),
                "stage": result.stage,
                "project": result.project_name,
                "target": result.target,
                "target_reason": result.target_reason,
                "settings": {
                    ".".join(key): {"value": value, "from": origin.where}
                    for key, value, origin in result.values()
                },
            }
        case _:
            return asdict(result)


def _lines(result: Result) -> Iterator[str]:
    match result:
        case Exported(bundle):
            yield from _lines(bundle)
            yield from result.lines()
        case Bundle():
            yield f"bundle   {result.path}"
            yield f"labels   {some(result.labels, _NAMES)}"
            difference = f"max |Δprobability| {result.max_difference:.1e}"
            if result.proven:
                yield f"answers  the learner's own {result.proven} goldens, {difference}"
            else:
                yield f"answers  those of the rebuilt model, {difference}; --golden proves more"
            yield from (f"unproven {each}" for each in result.unproven)
        case Artifact():
            yield f"artifact {result.path}"
            yield f"version  {result.version}"
        case StoredArtifact():
            yield f"stored   {result.uri}"
        case Endpoint():
            yield f"endpoint {result.name}, version {result.version}"
            yield f"url      {result.url}/invocations"
        case Api():
            yield from _api(result)
        case Teardown() | Inspected() | Answered() | Settings() | Key() | Described():
            yield from _told(result)
        case _:
            yield from _report(result)


def _report(result: Report) -> Iterator[str]:
    match result:
        case StagePlan():
            yield from report_lines.plan(result)
        case Status():
            yield from report_lines.status(result)
        case Versions(versions):
            yield from report_lines.versions(versions)
        case Checkup():
            yield from report_lines.checkup(result)
        case Policies(documents) | Templates(documents):
            # Made to be copied into a file or a console, whole.
            yield from _json_lines(documents)


def _told(result: Told) -> Iterator[str]:
    match result:
        case Teardown():
            yield from _teardown(result)
        case Inspected(summary):
            yield from anatomy_lines(summary)
        case Answered(body):
            yield from _answer(body)
        case Key(key):
            yield key
        case Described(document):
            yield from _json_lines(document)
        case Settings():
            yield from _settings(result)


def _api(api: Api) -> Iterator[str]:
    yield f"url      {api.url}"
    if api.page:
        yield f"page     {api.page}"
    if api.document:
        yield f"openapi  {api.document}"
    if api.auth == "key":
        yield f"key      {api.key_file} (fdeploy key show, fdeploy key rotate)"
    yield ""
    yield from snippets.curl(api)
    yield ""
    yield from snippets.python(api)


def _teardown(proof: Teardown) -> Iterator[str]:
    for thing in proof.deleted:
        yield f"deleted  {thing}"
    for thing in proof.left:
        yield f"LEFT     {thing}"
    if proof.begun:
        yield from (f"deleting {thing}" for thing in proof.begun)
        return
    yield f"{len(proof.found)} found, {len(proof.deleted)} deleted, {len(proof.left)} left"


def _answer(body: dict[str, Any]) -> Iterator[str]:
    labels = body["labels"] if "labels" in body else [body["label"]]
    yield ", ".join(labels) or "(no label)"
    probabilities = [(visible(label), found) for label, found in body["probabilities"].items()]
    width = max((len(label) for label, _ in probabilities), default=0)
    for label, probability in probabilities:
        bar = "█" * round(probability * _BAR)
        yield f"  {label:<{width}}  {probability:7.4f}  {bar}".rstrip()
    if body["truncated"]:
        yield "  the text was longer than the model reads, and was cut"
    if body["model"].get("unproven"):
        yield f"  {UNPROVEN}"


def _settings(settings: Settings) -> Iterator[str]:
    yield f"project  {settings.project_name}, stage {settings.stage}, in {settings.root}"
    yield f"target   {settings.target}: {settings.target_reason}"
    rows = [
        (".".join(key), "-" if value is None else json.dumps(value), origin.where)
        for key, value, origin in settings.values()
    ]
    keys, shown = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, value, where in rows:
        yield f"{key:<{keys}}  {value:<{shown}}  {where}"

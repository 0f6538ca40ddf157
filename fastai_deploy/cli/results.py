"""Results on stdout: JSON for programs, a few lines for people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from fastai_deploy import files
from fastai_deploy.api_docs import client_code
from fastai_deploy.batch_invoke.run import Answered, Batch
from fastai_deploy.cli import reports
from fastai_deploy.cli.escaping import some, visible, visible_json
from fastai_deploy.cli.hints import UNKNOWN_LINE, CommandLine
from fastai_deploy.cli.reports import anatomy_lines
from fastai_deploy.errors import FileError, TargetUnavailable
from fastai_deploy.json_reader import BadJson, parse
from fastai_deploy.parity.report import report_files
from fastai_deploy.records import (
    UNPROVEN,
    Api,
    Artifact,
    Bundle,
    Checkup,
    Endpoint,
    LogLine,
    Policies,
    StagePlan,
    Status,
    StoredArtifact,
    Teardown,
    Templates,
    Version,
)
from fastai_deploy.settings import Settings

_WORST = 3  # texts shown; --json and the page have all of them
_SHORT = 48  # characters shown of a text


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
            list(found.lines())
        except (FileError, BadJson, LookupError, TypeError, AttributeError, ValueError):
            return cls(bundle, None, str(page))  # edited by hand: informational only, so skip it
        return found

    def values(self) -> dict[str, Any]:
        """Everything, as plain data for ``--json``."""
        return {**asdict(self.bundle), "parity": self.parity, "parity_page": self.page}

    def lines(self) -> Iterator[str]:
        """Accuracy, the texts with the largest differences, and the report page."""
        if self.parity is None:
            return
        for form, found in self.parity["accuracy"].items():
            yield f"accuracy {found['accuracy']:.3f} of {form} on {found['texts']} labelled texts"
        for row in self.parity["rows"][:_WORST]:
            answered = next(iter(row["answers"].values()))
            labels = ", ".join(answered["labels"]) or "(no label)"
            changed = "CHANGED " if row["changed"] else ""
            yield f"|Δ|      {_number(row['difference'])}  {changed}{labels}  {_short(row['text'])}"
        yield f"report   {self.page}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _short(text: str) -> str:
    shown = text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
    return ascii(shown) if not shown.isprintable() else repr(shown)


_BATCH_BAR = 10
_LABEL = 24
_LEAST_TEXT = 12


def batch_lines(batch: Batch, *, as_json: bool, width: int | None) -> Iterator[str]:
    """The answers, or a summary if they went to a file; ``width`` is the terminal's in columns."""
    if batch.output is not None:
        yield from [json.dumps(_summary(batch))] if as_json else _batch_lines(batch)
    elif as_json:
        yield from (answer.encode().decode().rstrip("\n") for answer in batch.answers)
    else:
        yield from (_line(answer, width) for answer in batch.answers)


def _summary(batch: Batch) -> dict[str, object]:
    return {
        "texts": len(batch.answers),
        "reused": batch.reused,
        "failed": [answer.row for answer in batch.failures],
        "labels": dict(batch.counts()),
        "output": batch.output,
    }


def _batch_lines(batch: Batch) -> Iterator[str]:
    failed = len(batch.failures)
    answered = len(batch.answers) - failed
    yield f"answers  {batch.output}"
    yield (
        f"texts    {len(batch.answers)}: {answered} answered"
        + (f" ({batch.reused} reused)" if batch.reused else "")
        + (f", {failed} failed" if failed else "")
    )
    counts = batch.counts()
    wide = max((len(visible(label)) for label, _ in counts), default=0)
    for label, count in counts:
        bar = "█" * round(3 * _BATCH_BAR * count / max(answered, 1))
        yield f"  {visible(label):<{wide}}  {count:>7,}  {bar}".rstrip()


def _line(answer: Answered, width: int | None) -> str:
    """One text: row, labels, probability as a bar, and as much of the text as fits."""
    if answer.failed:
        error = answer.body["error"]
        head = f"{answer.row:>5}  FAILED {error['code']}: {error['message']}  "
    else:
        labels = ", ".join(answer.labels) or "(no label)"
        score = max(answer.body["probabilities"].values(), default=0.0)
        bar = "█" * round(score * _BATCH_BAR)
        head = (
            f"{answer.row:>5}  {visible(labels)[:_LABEL]:<12}  {score:.4f}  {bar:<{_BATCH_BAR}}  "
        )
    text = visible(answer.text)
    room = None if width is None else max(_LEAST_TEXT, width - len(head))
    if room is not None and len(text) > room:
        text = text[: room - 1] + "…"
    return (head + text).rstrip()


_BAR = 30
_NAMES = 50  # labels shown; --json has all of them


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
class Lines:
    """The result of ``logs``: lines as they arrive, possibly without end."""

    lines: Iterator[LogLine]


Record = Bundle | Artifact | StoredArtifact | Endpoint | Api | Exported
Report = StagePlan | Status | Versions | Checkup | Policies | Templates
Told = Teardown | Inspected | InvokeResult | Settings | Key | Described
Streamed = Lines | Batch
Result = Record | Report | Told

_WOULD_CHANGE = 2


def show(
    result: Result | Streamed, stream: TextIO, *, as_json: bool, line: CommandLine = UNKNOWN_LINE
) -> None:
    """Print a result; the commands it suggests act where the ``line`` did."""
    if isinstance(result, Checkup):
        result = line.checkup(result)
    if isinstance(result, Lines):
        _show_lines(result, stream, as_json=as_json)
        return
    if isinstance(result, Batch):
        for text in batch_lines(result, as_json=as_json, width=_width(stream)):
            print(visible_json(text) if as_json else visible(text), file=stream)
        stream.flush()
        return
    if as_json:
        print(_json(_values(result)), file=stream, flush=True)
        return
    suggests = isinstance(result, Api | Status)
    for text in _lines(result):
        print(visible(line.complete(text) if suggests else text), file=stream)
    stream.flush()


def _width(stream: TextIO) -> int | None:
    """The width of the terminal in columns; None for any other stream, so lines are not cut."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def exit_code(result: Result | Streamed) -> int:
    """The exit code of a result: 0, or a code that tells a script there is something to do."""
    match result:
        case StagePlan() if result.changed:
            return _WOULD_CHANGE
        case Checkup() if result.failed:
            return TargetUnavailable.exit_code
    return 0


def _show_lines(result: Lines, stream: TextIO, *, as_json: bool) -> None:
    """Print log lines; Ctrl-C is the normal way to stop following, so it ends with success."""
    try:
        for line in result.lines:
            text = _json(asdict(line)) if as_json else visible(reports.log_line(line))
            print(text, file=stream, flush=True)
    except KeyboardInterrupt:
        return


def _json(values: Any) -> str:
    return visible_json(json.dumps(values, ensure_ascii=False, default=_plain))


def _json_lines(document: Any) -> list[str]:
    return visible_json(json.dumps(document, ensure_ascii=False, indent=2)).split("\n")


def _plain(value: Any) -> str:
    """Convert a date, or an amount with all its digits."""
    return value.isoformat() if isinstance(value, datetime) else f"{value:f}"


def _values(result: Result) -> dict[str, Any]:
    match result:
        case (
            InvokeResult(body)
            | Inspected(body)
            | Described(body)
            | Policies(body)
            | Templates(body)
        ):
            return dict(body)
        case Exported():
            return result.values()
        case StagePlan(changes, cost, ends, ends_now, model):
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
                "model": None if model is None else asdict(model),
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
                yield f"proven   by {result.proven} of the learner's own answers, {difference}"
            else:
                yield (
                    f"proven   against the rebuilt model only, {difference}; "
                    "--golden compares with the learner's own answers"
                )
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
        case Teardown() | Inspected() | InvokeResult() | Settings() | Key() | Described():
            yield from _result_lines(result)
        case _:
            yield from _report(result)


def _report(result: Report) -> Iterator[str]:
    match result:
        case StagePlan():
            yield from reports.plan(result)
        case Status():
            yield from reports.status(result)
        case Versions(versions):
            yield from reports.versions(versions)
        case Checkup():
            yield from reports.checkup(result)
        case Templates(stacks):
            yield from "---\n".join(stacks.values()).rstrip("\n").split("\n")
        case Policies(documents):
            # Printed whole, so that it can be copied into a file or a console.
            yield from _json_lines(documents)


def _result_lines(result: Told) -> Iterator[str]:
    match result:
        case Teardown():
            yield from _teardown(result)
        case Inspected(summary):
            yield from anatomy_lines(summary)
        case InvokeResult(body):
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
    yield from client_code.curl(api)
    yield ""
    yield from client_code.python(api)


def _teardown(proof: Teardown) -> Iterator[str]:
    for thing in proof.deleted:
        yield f"deleted  {thing}"
    for thing in proof.left:
        yield f"LEFT     {thing}"
    if proof.begun:
        yield from (f"deleting {thing}" for thing in proof.begun)
        return
    yield proof.summary


def _answer(body: dict[str, Any]) -> Iterator[str]:
    labels = body["labels"] if "labels" in body else [body["label"]]
    yield ", ".join(labels) or "(no label)"
    probabilities = [(visible(label), found) for label, found in body["probabilities"].items()]
    width = max((len(label) for label, _ in probabilities), default=0)
    for label, probability in probabilities:
        bar = "█" * round(probability * _BAR)
        yield f"  {label:<{width}}  {probability:7.4f}  {bar}".rstrip()
    if body["truncated"]:
        yield "  the text was longer than the model can read and was truncated"
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

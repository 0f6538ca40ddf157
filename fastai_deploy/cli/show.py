"""Prints results on stdout: JSON for programs, a few lines for people."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Any, TextIO

from fastai_deploy.api_docs import client_code
from fastai_deploy.batch_invoke.run import Answered, Batch
from fastai_deploy.cli import reports
from fastai_deploy.cli.escaping import json_line, some, visible, visible_json
from fastai_deploy.cli.hints import UNKNOWN_LINE, CommandLine
from fastai_deploy.cli.results import (
    Described,
    Exported,
    Inspected,
    InvokeResult,
    Key,
    Lines,
    Presented,
    Report,
    Result,
    Streamed,
    Told,
    Versions,
)
from fastai_deploy.cli.shapes import enveloped, streamed, values
from fastai_deploy.errors import TargetUnavailable
from fastai_deploy.naming import HUB
from fastai_deploy.records import (
    UNPROVEN,
    Api,
    Artifact,
    Bundle,
    Endpoint,
    StoredArtifact,
    Teardown,
)
from fastai_deploy.settings import Settings
from fastai_deploy.stage_reports import Checkup, Policies, StagePlan, Status, Templates
from fastai_deploy.workspace import Record

WOULD_CHANGE = 15
_WORST = 3  # texts shown; --json and the page have all of them
_SHORT = 48  # characters shown of a text
_BATCH_BAR = 10
_LABEL = 24
_LEAST_TEXT = 12
_BAR = 30
_BESIDE_BAR = 13  # columns of an answer beside its label and bar
_FACT = re.compile(r"[a-z][a-z ]*  +(?=\S)| +(?=\S)")
_NAMES = 50  # labels shown; --json has all of them


def show(
    result: Result | Streamed,
    stream: TextIO,
    *,
    command: str,
    as_json: bool,
    line: CommandLine = UNKNOWN_LINE,
    width: int | None = None,
) -> None:
    """Print the result of a command; the commands it suggests act where the ``line`` did.

    ``width`` is that of the terminal in columns; without one, no line is folded or cut.
    """
    if isinstance(result, Checkup):
        result = line.checkup(result)
    if as_json:
        _show_json(result, stream, command)
        return
    if isinstance(result, Lines):
        _show_log(result, stream)
        return
    suggests = isinstance(result, Api | Status)
    for text in _lines(result, width):
        shown = visible(line.complete(text) if suggests else text)
        for part in _folded(shown, width):
            print(part, file=stream)
    stream.flush()


def _show_json(result: Result | Streamed, stream: TextIO, command: str) -> None:
    """Print one envelope, or one for each line of a result that has lines."""
    each = streamed(result)
    found = [values(result)] if each is None else each
    with suppress(KeyboardInterrupt) if isinstance(result, Lines) else nullcontext():
        for one in found:
            print(json_line(enveloped(command, one), stream, _plain), file=stream, flush=True)


def _folded(line: str, width: int | None) -> list[str]:
    """A line with a fact, such as ``status      running``, folded below the fact's first word.

    Other lines, such as commands to copy, stay as they are.
    """
    fact = _FACT.match(line)
    if width is None or len(line) <= width or fact is None or fact.end() > width // 2:
        return [line]
    indent = " " * fact.end()
    return [
        fact[0] + part if not number else indent + part
        for number, part in enumerate(
            textwrap.wrap(
                line[fact.end() :],
                width - fact.end(),
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    ]


def width_of(stream: TextIO) -> int | None:
    """The width of a terminal in columns; None for any other stream."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def exit_code(result: Result | Streamed) -> int:
    """The exit code of a result: 0, or a code that tells a script there is something to do."""
    match result:
        case StagePlan() if result.changed:
            return WOULD_CHANGE
        case Checkup() if result.failed:
            return TargetUnavailable.exit_code
    return 0


def _show_log(result: Lines, stream: TextIO) -> None:
    """Print log lines; Ctrl-C is the normal way to stop following, so it ends with success."""
    with suppress(KeyboardInterrupt):
        for line in result.lines:
            print(visible(reports.log_line(line)), file=stream, flush=True)


def _json_lines(document: Any) -> list[str]:
    return visible_json(json.dumps(document, ensure_ascii=False, indent=2)).split("\n")


def _plain(value: Any) -> str:
    """Convert a date, or an amount with all its digits."""
    return value.isoformat() if isinstance(value, datetime) else f"{value:f}"


def _lines(result: Result | Batch, width: int | None) -> Iterator[str]:
    match result:
        case Batch():
            yield from _batch(result, width)
        case Exported(bundle):
            yield from _record(bundle)
            yield from _exported(result)
        case Bundle() | Artifact() | StoredArtifact() | Endpoint() | Api():
            yield from _record(result)
        case Teardown() | Inspected() | InvokeResult() | Settings() | Key() | Described():
            yield from _told(result, width)
        case Presented():
            yield from result.lines()
        case _:
            yield from _report(result)


def _record(record: Record) -> Iterator[str]:
    match record:
        case Bundle():
            yield f"bundle   {record.path}"
            if record.source.hub:
                yield f"from     {HUB}{record.source.hub}"
            yield f"labels   {some(record.labels, _NAMES)}"
            difference = f"max |Δprobability| {record.max_difference:.1e}"
            if record.proven:
                owner = "model" if record.source.kind == "folder" else "learner"
                yield f"proven   by {record.proven} of the {owner}'s own answers, {difference}"
            else:
                yield (
                    f"proven   against the rebuilt model only, {difference}; "
                    "--golden compares with the learner's own answers"
                )
            yield from (f"unproven {each}" for each in record.unproven)
        case Artifact():
            yield f"artifact {record.path}"
            yield f"version  {record.version}"
        case StoredArtifact():
            yield f"stored   {record.uri}"
        case Endpoint():
            yield f"endpoint {record.name}, version {record.version}"
            yield f"url      {record.url}/invocations"
        case Api():
            yield from _api(record)


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


def _told(result: Told, width: int | None) -> Iterator[str]:
    match result:
        case Teardown():
            yield from _teardown(result)
        case Inspected(summary):
            yield from reports.anatomy_lines(summary)
        case InvokeResult(body):
            yield from _answer(body, width)
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
    for path in (*proof.kept, *proof.workspace):
        yield f"kept     {path}"
    if proof.begun:
        yield from (f"deleting {thing}" for thing in proof.begun)
        return
    yield proof.summary


def _answer(body: dict[str, Any], columns: int | None) -> Iterator[str]:
    labels = body["labels"] if "labels" in body else [body["label"]]
    yield ", ".join(labels) or "(no label)"
    probabilities = [(visible(label), found) for label, found in body["probabilities"].items()]
    width = max((len(label) for label, _ in probabilities), default=0)
    longest = _BAR if columns is None else min(_BAR, max(0, columns - width - _BESIDE_BAR))
    for label, probability in probabilities:
        bar = "█" * round(probability * longest)
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


def _exported(result: Exported) -> Iterator[str]:
    """Accuracy, the texts with the largest differences, and the report page."""
    if result.parity is None:
        return
    for form, (accuracy, texts) in result.accuracy.items():
        yield f"accuracy {accuracy:.3f} of {form} on {texts} labelled texts"
    for row in result.worst[:_WORST]:
        labels = ", ".join(row.labels) or "(no label)"
        changed = "CHANGED " if row.changed else ""
        yield f"|Δ|      {_number(row.difference)}  {changed}{labels}  {_short(row.text)}"
    yield f"report   {result.page}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _short(text: str) -> str:
    shown = text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
    return ascii(shown) if not shown.isprintable() else repr(shown)


def _batch(batch: Batch, width: int | None) -> Iterator[str]:
    """The answers, or a summary if they went to a file; ``width`` is the terminal's in columns."""
    if batch.output is None:
        yield from (_line(answer, width) for answer in batch.answers)
    else:
        yield from _batch_summary(batch)


def _batch_summary(batch: Batch) -> Iterator[str]:
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

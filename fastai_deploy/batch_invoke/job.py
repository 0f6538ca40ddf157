"""Classifies every row of a file and writes the file again with the answers beside the rows.

    scan the input -> ask, batch by batch, in order -> output.partial/ -> OUTPUT, whole

Who answers is passed in: worker processes on this machine, the endpoint, or the API. A run that is
interrupted, in any way, is continued by the same command: see unfinished.py.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from fastai_deploy import files
from fastai_deploy.batch_invoke.formats import check_columns
from fastai_deploy.batch_invoke.opening import open_sink, open_source
from fastai_deploy.batch_invoke.places import Input, Output
from fastai_deploy.batch_invoke.rows import AnswerColumns, Layout, RowBatch, Source
from fastai_deploy.batch_invoke.tables import ColumnChoice
from fastai_deploy.batch_invoke.unfinished import Asked, Unfinished, opened
from fastai_deploy.errors import FileError, InvocationError
from fastai_deploy.progress import Advanced, Reporter, Step, Warned

_AHEAD = 2  # requests that wait for each one in flight
_WRITTEN = 1_000  # rows
_SHOWN = 5
_TASK = "batch"
_NAMES = 50  # labels
_BAR = 30


class Model(Protocol):
    """What answers texts. ``rows`` is the size of a request, ``at_once`` how many are in flight.

    ``way`` is what answers, the same for all rows; it may be unknown until the first answer.
    """

    rows: int
    at_once: int
    way: str

    def ask(self, texts: Sequence[Any], top_k: int | None) -> bytes:
        """The answers to texts, in order, as a JSON list. Raises InvocationError or DeployError."""
        ...

    def stop(self) -> None:
        """Let requests in flight fail."""
        ...


@dataclass(frozen=True)
class FileRequest:
    """What the user asks for: input and output are paths, or URIs of S3. See BatchJob."""

    input: str
    output: str
    wanted: ColumnChoice = field(default_factory=ColumnChoice)
    top_k: int | None = None
    limit: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class BatchJob:
    """What to classify: the rows of ``input``, the first ``limit`` if that is not None.

    ``overwrite`` replaces the output, and starts an unfinished run again.
    """

    input: Input
    output: Output
    wanted: ColumnChoice = field(default_factory=ColumnChoice)
    top_k: int | None = None
    limit: int | None = None
    overwrite: bool = False

    @property
    def options(self) -> str:
        """The options that change rows or answers, as typed."""
        typed = {
            "--column": self.wanted.column,
            "--no-header": None if self.wanted.header else "",
            "--top-k": self.top_k,
            "--limit": self.limit,
        }
        return " ".join(f"{k} {v}".strip() for k, v in typed.items() if v is not None)


@dataclass(frozen=True)
class Answering:
    """Who answers a job.

    ``answer`` adds the answers to the run that it lacks, and ``clean`` removes what that has left
    elsewhere, once the run has all of them. ``labels`` in their order; ``several`` may apply to one
    text. ``version`` is the model's, and ``by`` says who answers, such as ``this machine``.
    """

    answer: Callable[[Work, int | None], None]
    labels: tuple[str, ...]
    several: bool
    version: str
    by: str
    clean: Callable[[Unfinished], None] = lambda _run: None


@dataclass(frozen=True)
class FailedRow:
    """A row without an answer, from 1."""

    row: int
    code: str
    message: str


@dataclass(frozen=True)
class BatchCounts:
    """The exact counts of a batch, as ``--json`` prints them.

    ``continued`` rows were answered by an earlier run. ``labels`` counts how often each label was
    given; ``failures`` are the first failed rows. ``by`` says who answered with which ``model``.
    """

    input: str
    output: str
    rows: int
    continued: int
    failed: int
    truncated: int
    labels: dict[str, int]
    failures: tuple[FailedRow, ...]
    seconds: float
    model: str
    by: str


@dataclass
class BatchReport:
    """Exact counts of a finished batch.

    ``continued`` rows were answered by an earlier run. ``failures`` are the first failed rows, each
    with its error; ``labels`` counts how often each label was given.
    """

    input: str
    output: str
    rows: int
    continued: int
    seconds: float
    model: str
    by: str
    failed: int = 0
    truncated: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)

    def values(self) -> BatchCounts:
        """The counts as plain data."""
        return BatchCounts(
            self.input,
            self.output,
            self.rows,
            self.continued,
            self.failed,
            self.truncated,
            dict(self.labels.most_common()),
            tuple(FailedRow(row, e["code"], e["message"]) for row, e in self.failures),
            round(self.seconds, 3),
            self.model,
            self.by,
        )

    def lines(self) -> Iterator[str]:
        """The counts for people, with a bar for each label."""
        yield f"output   {self.output}"
        said = f"{self.rows:,}: {self.rows - self.failed:,} answered by {self.by}"
        if self.continued:
            said += f" ({self.continued:,} of them by an earlier run)"
        yield f"rows     {said}" + (f", {self.failed:,} failed" if self.failed else "")
        if self.truncated:
            yield f"cut      {self.truncated:,} texts were longer than the model reads"
        answered = max(1, self.rows - self.failed)
        counts = self.labels.most_common(_NAMES)
        wide = max((len(label) for label, _ in counts), default=0)
        for label, count in counts:
            yield f"  {label:<{wide}}  {count:>9,}  {'█' * round(_BAR * count / answered)}".rstrip()

    @property
    def summary(self) -> str:
        """The counts in one line."""
        said = f"{self.rows:,} rows"
        if self.failed:
            said += f", {self.failed:,} failed"
        new = self.rows - self.continued
        if self.seconds > 0:
            said += f", {new / self.seconds:,.0f} rows a second"
        return f"{said}, in {self.output}"

    @property
    def failure(self) -> InvocationError | None:
        """The error to end with if a row failed, else None."""
        if not self.failed:
            return None
        rows = ", ".join(f"row {row} ({error['code']})" for row, error in self.failures)
        more = f" and {self.failed - len(self.failures)} more" if self.failed > _SHOWN else ""
        return InvocationError(
            f"{self.failed:,} of {self.rows:,} rows failed: {rows}{more}",
            hint=f"the column error of {self.output} says why; all other rows are answered",
        )

    def count(self, answers: Sequence[Mapping[str, Any]], first: int) -> None:
        """Add the answers to the rows from number ``first``."""
        for row, answer in enumerate(answers, first):
            error = answer.get("error")
            if error is not None:
                self.failed += 1
                if len(self.failures) < _SHOWN:
                    self.failures.append((row, error))
                continue
            self.truncated += bool(answer.get("truncated"))
            self.labels.update(answer["labels"] if "labels" in answer else (answer["label"],))


@dataclass(frozen=True)
class Work:
    """A job that has begun: its source with its layout, and the answers so far."""

    source: Source
    layout: Layout
    run: Unfinished
    report: Reporter


def run_batch(
    job: BatchJob, answering: Answering, report: Reporter, clock: Callable[[], float]
) -> BatchReport:
    """Classify a file. See the module.

    Raises UsageError, FileError, WorkspaceBusy, and what the model or S3 raises.
    """
    started = clock()
    asked = Asked(
        input=job.input.where,
        bytes=job.input.bytes,
        sha256=job.input.sha256,
        model=answering.version,
        by=answering.by,
        options=job.options,
    )
    with opened(job.output.folder, asked, overwrite=job.overwrite) as run:
        work = _begin(run, job, report)
        found = BatchReport(
            job.input.name,
            job.output.name,
            work.layout.rows,
            run.done,
            0.0,
            answering.version,
            answering.by,
        )
        columns = AnswerColumns.beside(
            work.layout.columns, answering.labels, several=answering.several, top_k=job.top_k
        )
        if columns.prefix:
            report(
                Warned(
                    "the input has a column that is named like one of the answers, which are now "
                    f"called {', '.join(columns.names[:2])} and so on"
                )
            )
        if run.done < work.layout.rows:
            answering.answer(work, job.top_k)
        answering.clean(run)
        report(Step(f"writing {job.output.name}"))
        write_output(work, columns, job, found)
        job.output.deliver()
        run.remove()
    found.seconds = clock() - started
    return found


def _begin(run: Unfinished, job: BatchJob, report: Reporter) -> Work:
    """Continue an earlier run, or scan the input and begin one."""
    path = job.input.fetch(run.folder)
    source = open_source(path, job.wanted, lambda said: report(Warned(said)))
    if run.layout is not None:
        report(Step(f"continuing: {run.done:,} of {run.layout.rows:,} rows are answered"))
        return Work(source, run.layout, run, report)
    layout = source.scan(job.limit)
    if not layout.rows:
        raise FileError(f"{job.input.name} contains no rows", hint="use a file with a text")
    check_columns(layout.columns, job.output.path)
    report(Step(f"{layout.rows:,} rows; the texts are in column {layout.text}"))
    run.begin(layout)
    return Work(source, layout, run, report)


def by_model(
    open_model: Callable[[str | None], AbstractContextManager[Model]],
) -> Callable[[Work, int | None], None]:
    """Have a model answer; ``open_model`` gets the ``way`` of an earlier run, if there was one."""

    def answer(work: Work, top_k: int | None) -> None:
        with open_model(work.run.way) as model:
            work.run.use(model.way)
            answer_rows(work, model, top_k)

    return answer


def answer_rows(work: Work, model: Model, top_k: int | None) -> None:
    """Have every row answered that has no answer yet, several requests at a time."""
    run, rows, begun = work.run, work.layout.rows, work.run.done
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    pool = ThreadPoolExecutor(model.at_once, thread_name_prefix=_TASK)

    def collect() -> None:
        count, future = waiting.popleft()
        answered = future.result()
        run.use(model.way)
        run.add(count, answered)
        work.report(Advanced(_TASK, run.done, rows, "rows"))

    try:
        work.report(Advanced(_TASK, run.done, rows, "rows"))
        for texts in _left(work.source.batches(work.layout, model.rows, texts_only=True), run.done):
            waiting.append((len(texts), pool.submit(model.ask, texts, top_k)))
            # The first one alone, so that a wrong key or a missing endpoint costs one request.
            if run.done == begun or len(waiting) > _AHEAD * model.at_once:
                collect()
        while waiting:
            collect()
    except BaseException:
        model.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def write_output(work: Work, columns: AnswerColumns, job: BatchJob, found: BatchReport) -> None:
    """Write the rows with their answers, whole or not at all, and count them."""
    layout, answers = work.layout, work.run.answers()
    done = 0
    with files.replacing(job.output.path) as file:
        sink = open_sink(job.output.path, file, layout, columns)
        for batch in work.source.batches(layout, _WRITTEN, texts_only=False):
            of_batch = list(islice(answers, len(batch.texts)))
            if len(of_batch) < len(batch.texts):
                break
            sink.add(batch, of_batch)
            found.count(of_batch, done + 1)
            done += len(of_batch)
        sink.close()
        job.input.check()
        if done != layout.rows or next(answers, None) is not None:
            raise FileError(
                f"{job.input.name} has other rows than when the run began",
                hint="run the same command again with --overwrite",
            )


def _left(batches: Iterator[RowBatch], done: int) -> Iterator[Sequence[Any]]:
    """The texts after the first ``done``."""
    for batch in batches:
        count = len(batch.texts)
        if done < count:
            yield batch.texts[done:]
        done = max(0, done - count)


def as_list(answers: Sequence[Mapping[str, Any]]) -> bytes:
    """Answers as a model returns them."""
    return json.dumps(answers, ensure_ascii=True, separators=(",", ":")).encode()

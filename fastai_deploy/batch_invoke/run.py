"""Sends many texts: in chunks below the payload limit, concurrently, saving answers on the way.

    texts -> chunks -> the first one alone, then several concurrently -> answers, chunk by chunk

Throttled requests (429, 503) are retried. A chunk that fails as a whole (too large, a model error,
a timeout) is halved until only the text at fault fails. An error that would fail every request (the
key, the route, no server) ends the run. An answer file keeps all answers so far, and the next run
continues from there.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.errors import FileError, FileMissing, InvocationError
from fastai_deploy.json_reader import parse

_SHOWN = 5


@dataclass(frozen=True)
class Answered:
    """A text, its row (from 1), and its answer in the contract's form, which may be an error."""

    row: int
    text: str
    body: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the answer is an error."""
        return "error" in self.body

    @property
    def labels(self) -> list[str]:
        """The labels of the text; none if it failed."""
        if self.failed:
            return []
        return list(self.body["labels"] if "labels" in self.body else [self.body["label"]])

    def values(self) -> dict[str, Any]:
        """The answer with its row and text."""
        return {"row": self.row, "text": self.text, **self.body}

    def encode(self) -> bytes:
        """The answer as a line of an answer file."""
        values = self.values()
        try:
            return (json.dumps(values, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:  # a lone surrogate, which only a JSON escape can express
            return (json.dumps(values) + "\n").encode()


@dataclass(frozen=True)
class Batch:
    """All answers in the order of the texts; ``reused`` came from the answer file.

    ``output`` is the answer file, or None.
    """

    answers: Sequence[Answered]
    reused: int = 0
    output: str | None = None

    @property
    def failures(self) -> list[Answered]:
        """The answers that are errors."""
        return [answer for answer in self.answers if answer.failed]

    def counts(self) -> list[tuple[str, int]]:
        """How often each label was predicted, most frequent first."""
        return Counter(label for answer in self.answers for label in answer.labels).most_common()

    @property
    def failure(self) -> InvocationError | None:
        """The error to end with if a text failed, else None."""
        failed = self.failures
        if not failed:
            return None
        rows = ", ".join(
            f"row {answer.row} ({answer.body['error']['code']})" for answer in failed[:_SHOWN]
        )
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        return InvocationError(
            f"{len(failed)} of {len(self.answers)} texts failed: {rows}{more}",
            hint=str(failed[0].body["error"]["hint"])
            + ("; run the same command again to retry only these" if self.output else ""),
        )


_MOST = 2 << 30  # size limit, in bytes, of an answer file


@dataclass(frozen=True)
class Fits:
    """Decides which earlier answers can be reused.

    ``version`` is the current model version; ``probabilities`` is how many an answer holds, None if
    unknown.
    """

    version: str
    probabilities: int | None

    def __call__(self, answer: Answered) -> bool:
        """Whether an answer can be reused."""
        if answer.failed or answer.body["model"]["version"] != self.version:
            return False
        return self.probabilities in (None, len(answer.body["probabilities"]))


class AnswerFile:
    """The answer file at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def reusable(self, texts: Sequence[str], fits: Fits) -> list[Answered]:
        """The earlier answers that can be reused, in the order of the texts.

        Raises FileError for a file with other content, a link, a pipe or a device, none of which is
        overwritten.
        """
        before = self._read()
        ours = [a for a in before if a.row <= len(texts) and texts[a.row - 1] == a.text]
        if before and not ours:
            raise FileError(
                f"{self.path} contains the answers to other texts",
                hint="choose another file with --output",
            )
        return list(
            {answer.row: answer for answer in sorted(ours, key=_row) if fits(answer)}.values()
        )

    def write(self, answers: Iterable[Answered]) -> None:
        """Replace the file with these answers, in the order of the texts."""
        files.write(self.path, b"".join(answer.encode() for answer in sorted(answers, key=_row)))

    def add(self, answers: Iterable[Answered]) -> None:
        """Append answers; they are on disk when this returns."""
        descriptor = files.open_regular(self.path, os.O_WRONLY | os.O_APPEND, follow=False)
        with files.file_errors(self.path), os.fdopen(descriptor, "ab") as file:
            file.write(b"".join(answer.encode() for answer in answers))
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[Answered]:
        try:
            data = files.read(self.path, most=_MOST, follow=False)
        except FileMissing:
            return []
        *whole, torn = data.split(b"\n")  # a last line without its end was never finished
        found = [self._answer(number, line) for number, line in enumerate(whole, 1)]
        if torn and not found:
            raise self._foreign(1)
        return found

    def _answer(self, number: int, line: bytes) -> Answered:
        try:
            values = parse(line, halves=True)
            answer = Answered(int(values.pop("row")), str(values.pop("text")), values)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._foreign(number) from None
        if answer.row < 1 or not (answer.failed or _is_whole(answer.body)):
            raise self._foreign(number)
        return answer

    def _foreign(self, number: int) -> FileError:
        return FileError(
            f"{self.path}, line {number}: not an answer of fdeploy, so the file is left unchanged",
            hint="choose another file with --output",
        )


def _is_whole(body: Mapping[str, Any]) -> bool:
    """Whether an answer has every field that is displayed."""
    labels = body.get("labels", [body.get("label")])
    model, probabilities = body.get("model"), body.get("probabilities")
    return (
        isinstance(model, dict)
        and isinstance(model.get("version"), str)
        and isinstance(labels, list)
        and all(isinstance(label, str) for label in labels)
        and isinstance(probabilities, dict)
        and all(isinstance(each, int | float) for each in probabilities.values())
    )


def _row(answer: Answered) -> int:
    return answer.row


Json = Any
Ask = Callable[[Json], Json]
Row = tuple[int, str]

_CHUNK_TEXTS = 32
_CHUNK_BYTES = 100_000
_ENVELOPE = 64  # bytes of a request in addition to its texts
_ATTEMPTS = 8
_FIRST_PAUSE = 0.25  # seconds
_LONGEST_PAUSE = 10.0
_LATER = frozenset((HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE))
_BY_HALVES = frozenset(
    (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)


@dataclass(frozen=True)
class AskOptions:
    """How to send: ``limit`` is the request size in bytes, ``at_once`` the concurrency."""

    ask: Ask
    sleep: Callable[[float], None]
    limit: int
    at_once: int = 4
    top_k: int | None = None


@dataclass(frozen=True)
class BatchOptions:
    """Options of a batch: endpoint or API, answer file, and ``at_once``, the concurrency."""

    through_api: bool = False
    top_k: int | None = None
    output: str | None = None
    at_once: int = 4
    sleep: Callable[[float], None] = time.sleep


class Remote:
    """An endpoint or an API as the model of a batch; see job.py.

    ``way`` is the version of the model that answers, which the first answer tells.
    """

    rows = _CHUNK_TEXTS

    def __init__(self, work: AskOptions) -> None:
        self.at_once = work.at_once
        self.way = ""
        self._work = work

    def continuing(self, version: str | None) -> Remote:
        """The same; ``version`` has answered the earlier rows, None if there are none."""
        self.way = version or ""
        return self

    def ask(self, texts: Sequence[Json], top_k: int | None) -> bytes:
        """The answers to texts as a JSON list. Raises InvocationError."""
        work = replace(self._work, top_k=top_k)
        rows = list(enumerate(texts, 1))
        found = [
            dict(answer.body)
            for chunk in chunked(rows, min(work.limit, _CHUNK_BYTES))
            for answer in _asked(chunk, work)
        ]
        for body in found:
            version = body.pop("model", {}).get("version", "")
            self.way = self.way or version
            if version not in ("", self.way):
                raise InvocationError(
                    f"the model has changed: version {version} answers now, and {self.way} "
                    "answered before",
                    hint="run the same command again with --overwrite",
                )
        return json.dumps(found, separators=(",", ":")).encode()

    def stop(self) -> None:
        """Nothing: requests in flight are answered within their own time limit."""


def answers(rows: Sequence[Row], work: AskOptions) -> Iterator[list[Answered]]:
    """Yield the answers of each chunk as they arrive.

    Closing the generator stops the work after the requests in flight. Raises InvocationError if
    continuing is pointless.
    """
    chunks = list(chunked(rows, min(work.limit, _CHUNK_BYTES)))
    if not chunks:
        return
    # Alone, so that a wrong key or a missing endpoint costs only one request.
    yield _asked(chunks[0], work)
    waiting = iter(chunks[1:])
    pool = ThreadPoolExecutor(work.at_once, thread_name_prefix="invoke")
    try:
        running: set[Future[list[Answered]]] = set()
        for chunk in waiting:
            running.add(pool.submit(_asked, chunk, work))
            if len(running) >= work.at_once:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for each in done:
                    yield each.result()
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
    finally:
        pool.shutdown(cancel_futures=True)


def chunked(rows: Sequence[Row], limit: int) -> Iterator[list[Row]]:
    """Split rows, in order, into requests of at most ``limit`` bytes; a larger row goes alone."""
    chunk: list[Row] = []
    size = _ENVELOPE
    for row in rows:
        length = len(json.dumps(row[1])) + 2
        if chunk and (size + length > limit or len(chunk) == _CHUNK_TEXTS):
            yield chunk
            chunk, size = [], _ENVELOPE
        chunk.append(row)
        size += length
    if chunk:
        yield chunk


def _asked(chunk: list[Row], work: AskOptions) -> list[Answered]:
    """Send a chunk, halving it on failure."""
    try:
        return _patiently(chunk, work)
    except InvocationError as error:
        if error.status not in _BY_HALVES:
            raise
        if len(chunk) == 1:
            (row, text) = chunk[0]
            code = error.answer_code or error.code
            said = {"code": code, "message": error.message, "hint": error.hint}
            return [Answered(row, text, {"error": said})]
    half = len(chunk) // 2
    return _asked(chunk[:half], work) + _asked(chunk[half:], work)


def _patiently(chunk: list[Row], work: AskOptions) -> list[Answered]:
    request: dict[str, Json] = {"texts": [text for _, text in chunk]}
    if work.top_k is not None:
        request["top_k"] = work.top_k
    attempt = 0
    while True:
        attempt += 1
        try:
            return _paired(chunk, work.ask(request))
        except InvocationError as error:
            # A quota is renewed the next day, which is too long to wait.
            again = error.status in _LATER and error.answer_code != "quota_exceeded"
            if not again or attempt == _ATTEMPTS:
                raise
        work.sleep(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))


def _paired(chunk: list[Row], found: Json) -> list[Answered]:
    if not isinstance(found, list) or len(found) != len(chunk):
        raise InvocationError(
            f"{len(chunk)} texts were sent, but the answer is not a list of that length",
            hint="run fdeploy teardown, then fdeploy up",
        )
    return [Answered(row, text, body) for (row, text), body in zip(chunk, found, strict=True)]

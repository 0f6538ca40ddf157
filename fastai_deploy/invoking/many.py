"""Many texts to answers: chunks below the payload limit, several of them at once.

    texts -> chunks -> the first alone, then so many at once -> answers, a chunk at a time

Too much at once (429, 503) is tried again later. What a whole chunk fails of (too large, the model
failed, no answer in time) is tried in halves, so that only the text that is to blame fails. What
every other request would fail of, too (the key, the route, nobody there), ends the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastai_deploy.errors import InvocationError
from fastai_deploy.invoking.answered import Answered

Json = Any
Ask = Callable[[Json], Json]
Row = tuple[int, str]

_CHUNK_TEXTS = 32
_CHUNK_BYTES = 100_000
_ENVELOPE = 64  # bytes of a request beside its texts
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
class Work:
    """How to ask: ``limit`` is in bytes of a request, ``at_once`` how many are under way."""

    ask: Ask
    sleep: Callable[[float], None]
    limit: int
    at_once: int = 4
    top_k: int | None = None


@dataclass(frozen=True)
class Many:
    """How many texts are to be asked: through which door, how many requests at once, kept where."""

    through_api: bool = False
    top_k: int | None = None
    output: str | None = None
    at_once: int = 4
    sleep: Callable[[float], None] = time.sleep


def answers(rows: Sequence[Row], work: Work) -> Iterator[list[Answered]]:
    """The answers of each chunk, as they come. Raises InvocationError when going on is no use.

    Who stops listening stops the work; what is under way then is waited for.
    """
    chunks = list(chunked(rows, min(work.limit, _CHUNK_BYTES)))
    if not chunks:
        return
    # Alone: a wrong key or an endpoint that is not there should cost one request.
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
    """Rows in order, as many as fit into a request of ``limit`` bytes; a larger one goes alone."""
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


def _asked(chunk: list[Row], work: Work) -> list[Answered]:
    """The answers to a chunk, whatever of it fails."""
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


def _patiently(chunk: list[Row], work: Work) -> list[Answered]:
    request: dict[str, Json] = {"texts": [text for _, text in chunk]}
    if work.top_k is not None:
        request["top_k"] = work.top_k
    attempt = 0
    while True:
        attempt += 1
        try:
            return _paired(chunk, work.ask(request))
        except InvocationError as error:
            # A quota begins anew tomorrow: that is too long to wait.
            again = error.status in _LATER and error.answer_code != "quota_exceeded"
            if not again or attempt == _ATTEMPTS:
                raise
        work.sleep(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))


def _paired(chunk: list[Row], found: Json) -> list[Answered]:
    if not isinstance(found, list) or len(found) != len(chunk):
        raise InvocationError(
            f"{len(chunk)} texts were sent, and the answer is no list of as many",
            hint="run fdeploy teardown, then fdeploy up",
        )
    return [Answered(row, text, body) for (row, text), body in zip(chunk, found, strict=True)]

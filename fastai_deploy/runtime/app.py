"""The model server's routes, ``/ping``, ``/invocations`` and ``/metrics``, as a bare ASGI app."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from concurrent.futures import Executor
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Awaitable, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from . import error_responses
from .batching import Batcher, Closed
from .codec import Answer, ParsedBody, read, refuse, write
from .contract import Encoded, Outcome, RequestError, encode
from .error_responses import too_large
from .golden_check import Predicting
from .log import Log
from .request_queue import Job, Overloaded

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Dict[str, Any]], Awaitable[None]]

_DRAINED = 64 * 1024 * 1024


class HungUp(Exception):
    """The client has disconnected, so nobody waits for the answer."""


def header(scope: Scope, name: bytes) -> Optional[str]:
    """A request header by its lower-case name; repeated headers are joined by commas."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1") if values else None


async def read_body(scope: Scope, receive: Receive, *, limit: int, timeout: float) -> bytes:
    """The body, at most ``limit`` bytes, within ``timeout`` seconds.

    A body that is too large is read to its end and discarded, so that the client can read the
    answer; a far larger one is not. Raises RequestError 413, HungUp, TimeoutError.
    """
    declared = header(scope, b"content-length") or ""
    if declared.isdigit() and int(declared) > _DRAINED:
        raise too_large(limit)
    message = await receive()
    if not message.get("more_body"):  # the usual case: the whole body is here
        return _checked(message, limit)
    return await asyncio.wait_for(_rest(message, receive, limit), timeout)


async def hung_up(receive: Receive) -> None:
    """Return when the client disconnects. Call this only after reading the body."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(send: Send, answer: Answer, extra: Mapping[str, str]) -> None:
    """Send an answer with its headers and ``extra`` ones."""
    headers = {
        "content-type": answer.content_type,
        "content-length": str(len(answer.body)),
        **extra,
    }
    if answer.retry_after is not None:
        headers["retry-after"] = str(answer.retry_after)
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.body})


async def _rest(first: Mapping[str, Any], receive: Receive, limit: int) -> bytes:
    chunks: List[bytes] = []
    try:
        size = 0
        message = first
        while True:
            chunk = _checked(message, None)
            size += len(chunk)
            if size > _DRAINED:
                raise too_large(limit)
            if size <= limit:
                chunks.append(chunk)
            else:
                chunks.clear()
            if not message.get("more_body"):
                break
            message = await receive()
        if size > limit:
            raise too_large(limit)
        return b"".join(chunks)
    finally:
        chunks.clear()  # an exception keeps this frame alive until a much later collection


def _checked(message: Mapping[str, Any], limit: Optional[int]) -> bytes:
    if message["type"] == "http.disconnect":
        raise HungUp
    body: bytes = message.get("body", b"")
    if limit is not None and len(body) > limit:
        raise too_large(limit)
    return body


MAX_BODY = 6 * 1024 * 1024
"""Bytes; the limit of InvokeEndpoint (SageMaker quotas)."""

_INLINE_BYTES = 4096  # a body this small is read and tokenized in under a millisecond
_INLINE_TEXTS = 64
_SKIPPED_BYTES = 65_536
_MOST_READING = 64
_INVOCATIONS = "/invocations"
ROUTES = {"/ping": ("GET", "HEAD"), "/metrics": ("GET", "HEAD"), _INVOCATIONS: ("POST",)}
"""The methods of each route."""

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_UNWATCHED = 0.25  # seconds
_UNUSUAL = frozenset((b"content-encoding", b"transfer-encoding"))
_CLIENT_CLOSED = 499  # status in logs and counters for a client that disconnected


class Invocation:
    """A request to ``/invocations`` that is answered by callbacks on the event loop.

    A task with its futures, and ASGI's messages, take longer than everything else that the server
    does for one text.
    """

    __slots__ = ("content_type", "id", "job", "over", "started", "timer")

    def __init__(self, request: str, content_type: Optional[str], started: float) -> None:
        self.id = request
        self.content_type = content_type
        self.started = started
        self.over = False
        self.job: Optional[Job] = None
        self.timer: Optional[asyncio.TimerHandle] = None


class App:
    """Answers requests; ``timeout`` is in seconds, ``readers`` run slow reads.

    ``aliases`` are further paths, each with its route.
    """

    def __init__(
        self,
        predictor: Predicting,
        batcher: Batcher[Encoded, Outcome],
        readers: Executor,
        log: Log,
        *,
        timeout: float,
        aliases: Optional[Mapping[str, str]] = None,
    ) -> None:
        self._routes = {**{path: path for path in ROUTES}, **(aliases or {})}
        self._invoked = {path.encode() for path, to in self._routes.items() if to == _INVOCATIONS}
        self._predictor = predictor
        self._model = predictor.bundle.answered_as
        self._batcher = batcher
        self._readers = readers
        self._log = log
        self._timeout = timeout
        self._statuses: Counter[int] = Counter()
        self._texts = 0
        self._reading = 0
        self._refusal_logged = -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        clock = asyncio.get_running_loop().time
        started = clock()
        request = _request_id(header(scope, b"x-request-id"))
        extra = {"x-request-id": request}
        try:
            answer = await self._answer(scope, receive, request, extra)
        except HungUp:
            self._count(_CLIENT_CLOSED, request, clock() - started)
            return
        self._count(answer.status, request, clock() - started)
        await send_answer(send, answer, extra)

    def begin(
        self, method: bytes, url: bytes, headers: Sequence[Tuple[bytes, bytes]]
    ) -> Union[Invocation, bytes, None]:
        """How to answer a request without calling the application; None if there is no way.

        Under overload, when most requests end here: the whole HTTP/1.1 answer, whatever the body
        says, if the body can be skipped quickly. Otherwise, if the body is small, an invocation.
        """
        if url not in self._invoked or method != b"POST":
            return None
        found = dict(headers)
        length = found.get(b"content-length", b"")
        if not length.isdigit() or int(length) > _SKIPPED_BYTES:
            return None
        given = found.get(b"x-request-id")
        request = _request_id(given.decode("latin-1") if given else None)
        try:
            self._batcher.refuse_if_full()
        except Overloaded as error:
            self._count(HTTPStatus.SERVICE_UNAVAILABLE, request, 0.0)
            return _http_refusal(error.retry_after) % request.encode()
        repeated = len(found) < len(headers)
        if int(length) > _INLINE_BYTES or repeated or not _UNUSUAL.isdisjoint(found):
            return None
        kind = found.get(b"content-type")
        return Invocation(request, kind.decode("latin-1") if kind else None, time.perf_counter())

    def invoke(self, invocation: Invocation, body: bytes, reply: Callable[[Answer], None]) -> None:
        """Answer an invocation: call ``reply`` once, perhaps at once, unless it is abandoned."""

        def end(answer: Answer) -> None:
            if not invocation.over:
                self._over(invocation, answer.status)
                reply(answer)

        try:
            self._batcher.refuse_if_full()
            parsed = self._read(body, invocation.content_type, invocation.id)
            invocation.job = self._batcher.submit(
                parsed.encoded,
                lambda outcomes: self._answered(invocation.id, parsed, outcomes, end),
            )
        except Exception as error:  # noqa: BLE001  # the client is never shown a traceback
            end(refuse(self._refusal(error, invocation.id)))
            return
        if not invocation.over:
            loop = asyncio.get_running_loop()
            invocation.timer = loop.call_later(self._timeout, end, _late())

    def abandon(self, invocation: Invocation) -> None:
        """The client has disconnected."""
        if not invocation.over:
            self._over(invocation, _CLIENT_CLOSED)

    def _answered(
        self,
        request: str,
        parsed: ParsedBody,
        outcomes: Sequence[Union[Outcome, Exception]],
        end: Callable[[Answer], None],
    ) -> None:
        answers = [self._logged(outcome, request) for outcome in outcomes]
        self._texts += len(parsed.texts)

        def written(write_it: Callable[[], Answer]) -> None:
            try:
                end(write_it())
            except Exception as error:  # noqa: BLE001  # as above
                end(refuse(self._refusal(error, request)))

        if len(answers) > _INLINE_TEXTS:
            loop = asyncio.get_running_loop()
            writing = loop.run_in_executor(self._readers, write, parsed, answers, self._model)
            writing.add_done_callback(lambda done: written(done.result))
        else:
            written(lambda: write(parsed, answers, self._model))

    def _over(self, invocation: Invocation, status: int) -> None:
        invocation.over = True
        if invocation.timer is not None:
            invocation.timer.cancel()
        if invocation.job is not None:
            invocation.job.cancel()
            invocation.job = None  # which refers to the invocation
        self._count(status, invocation.id, time.perf_counter() - invocation.started)

    async def _answer(
        self, scope: Scope, receive: Receive, request: str, extra: Dict[str, str]
    ) -> Answer:
        route, method = self._routes.get(scope["path"]), scope["method"]
        if route is None:
            return refuse(error_responses.not_found())
        allowed = ROUTES[route]
        if method not in allowed:
            extra["allow"] = ", ".join(allowed)
            return refuse(error_responses.method_not_allowed(allowed))
        if route == _INVOCATIONS:
            return await self._invocation(scope, receive, request)
        if route == "/metrics":
            return Answer(200, self._metrics(), "text/plain; version=0.0.4")
        model = {"name": self._model.name, "version": self._model.version}
        return Answer(200, encode({"status": "ready", "model": model}))

    async def _invocation(self, scope: Scope, receive: Receive, request: str) -> Answer:
        try:
            return await self._invoke(scope, receive, request)
        except HungUp:
            raise
        except Exception as error:  # noqa: BLE001  # the client is never shown a traceback
            return refuse(self._refusal(error, request))

    def _refusal(self, error: Exception, request: str) -> RequestError:
        if isinstance(error, RequestError):
            return error
        if isinstance(error, Overloaded):
            return error_responses.overloaded(error.retry_after)
        if isinstance(error, Closed):
            return error_responses.closing()
        if isinstance(error, asyncio.TimeoutError):
            return error_responses.timed_out()
        self._log.defect(request, error)
        return error_responses.internal()

    async def _invoke(self, scope: Scope, receive: Receive, request: str) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        body = await read_body(scope, receive, limit=MAX_BODY, timeout=self._timeout)
        if (header(scope, b"content-encoding") or "identity") != "identity":
            raise error_responses.compressed()
        self._batcher.refuse_if_full()
        kind = header(scope, b"content-type")
        if len(body) <= _INLINE_BYTES:
            parsed = self._read(body, kind, request)
        else:
            parsed = await self._read_aside(body, kind, request)
        outcomes = await self._ask(parsed, receive, deadline - loop.time())
        answers = [self._logged(outcome, request) for outcome in outcomes]
        self._texts += len(parsed.texts)
        if len(answers) <= _INLINE_TEXTS:
            return write(parsed, answers, self._model)
        return await loop.run_in_executor(self._readers, write, parsed, answers, self._model)

    def _read(self, body: bytes, content_type: Optional[str], request: str) -> ParsedBody:
        parsed = read(body, content_type, self._predictor.encode)
        for error in parsed.failures:
            self._log.defect(request, error)
        return parsed

    async def _read_aside(
        self, body: bytes, content_type: Optional[str], request: str
    ) -> ParsedBody:
        """Read a large body on a thread; few may wait for one, because they occupy memory."""
        if self._reading >= _MOST_READING:
            raise Overloaded(1)
        self._reading += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._readers, self._read, body, content_type, request
            )
        finally:
            self._reading -= 1

    async def _ask(
        self, parsed: ParsedBody, receive: Receive, timeout: float
    ) -> List[Union[Outcome, Exception]]:
        """The model's answer; abandoned if the client disconnects or time runs out."""
        outcomes: asyncio.Future[List[Union[Outcome, Exception]]]
        outcomes = asyncio.get_running_loop().create_future()
        job = self._batcher.submit(parsed.encoded, outcomes.set_result)
        try:
            # Most answers arrive before it is worth watching for a disconnect.
            patience = min(_UNWATCHED, timeout)
            await asyncio.wait((outcomes,), timeout=patience)
            if not outcomes.done():
                await self._watched(outcomes, receive, timeout - patience)
            return outcomes.result()
        finally:
            job.cancel()

    @staticmethod
    async def _watched(outcomes: asyncio.Future[Any], receive: Receive, timeout: float) -> None:
        gone: asyncio.Future[Any] = asyncio.ensure_future(hung_up(receive))
        try:
            done, _ = await asyncio.wait(
                (outcomes, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone.cancel()
        if outcomes not in done:
            raise HungUp if done else asyncio.TimeoutError

    def _logged(self, outcome: Union[Outcome, Exception], request: str) -> Outcome:
        """The outcome as the client receives it; for a defect, the reason is logged."""
        if isinstance(outcome, RequestError):
            if outcome.__cause__ is not None:
                self._log.defect(request, outcome.__cause__)
            return outcome
        if isinstance(outcome, Exception):
            return self._refusal(outcome, request)
        return outcome

    def _count(self, status: int, request: str, seconds: float) -> None:
        """Count a request and log it; only the first of many refusals per second is logged."""
        self._statuses[status] += 1
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            second = int(time.monotonic())
            if second == self._refusal_logged:
                return
            self._refusal_logged = second
        self._log("request", request=request, status=status, ms=round(seconds * 1000, 1))

    def _metrics(self) -> bytes:
        """Counters in the Prometheus text format."""
        done = self._batcher.statistics()
        lines = [
            f'fdeploy_requests_total{{status="{status}"}} {count}'
            for status, count in sorted(self._statuses.items())
        ]
        lines += [
            f"fdeploy_texts_total {self._texts}",
            f"fdeploy_model_runs_total {done.runs}",
            f"fdeploy_model_texts_total {done.items}",
            f"fdeploy_refused_total {done.refused}",
            f"fdeploy_queued_texts {done.queued}",
        ]
        return ("\n".join(lines) + "\n").encode()


@lru_cache(maxsize=1)
def _late() -> Answer:
    return refuse(error_responses.timed_out())


@lru_cache(maxsize=16)
def _http_refusal(retry_after: int) -> bytes:
    """The bytes of the answer, with a placeholder for the request id."""
    answer = refuse(error_responses.overloaded(retry_after))
    head = (
        f"HTTP/1.1 {answer.status} Service Unavailable\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\nretry-after: {retry_after}\r\n"
    )
    return head.encode() + b"x-request-id: %b\r\n\r\n" + answer.body.replace(b"%", b"%%")


def _request_id(given: Optional[str]) -> str:
    """The caller's own id if it is safe in a header and a log, or else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else os.urandom(8).hex()

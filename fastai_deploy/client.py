"""Calls an API of fdeploy from Python: typed answers and errors, retries, many texts, async.

    from fastai_deploy import Client
    Client("https://.../classify", key="...").classify("some text").label

``docs/howto/python-client.md`` has examples. Only urllib3 is needed, which boto3 brings.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

import urllib3

from fastai_deploy.errors import InvocationError, UsageError, contract_error

_TEXTS, _BYTES = 32, 100_000
"""How many texts, and how many bytes of JSON, one request of ``classify_many`` holds."""
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ASKED = 0.5, 10.0, 60.0
_OK, _TOO_LARGE, _THROTTLED, _FAILED, _BUSY, _LATE = 200, 413, 429, 500, 503, 504
_QUOTA = "quota_exceeded"


class ApiError(InvocationError):
    """The API refused a request, or did not answer.

    ``status`` is that of HTTP, 0 without an answer; ``answer_code`` is the contract's code, empty
    if the answer has none; ``request_id`` finds the request in the API's log.
    """

    request_id: str = ""


class InvalidRequest(ApiError):
    """400, 413, 415 or 422: the request is at fault."""


class Unauthorized(ApiError):
    """401 or 403: no key or token, or a wrong one."""


class Throttled(ApiError):
    """429: above the rate of the key, or its quota is used up (``quota_exceeded``)."""


class ModelError(ApiError):
    """500: the model failed on a text."""


class Unavailable(ApiError):
    """503 or 504, or no answer at all."""


_KINDS: Mapping[int, type[ApiError]] = {
    **dict.fromkeys((400, 413, 415, 422), InvalidRequest),
    **dict.fromkeys((401, 403), Unauthorized),
    **dict.fromkeys((0, 502, _BUSY, _LATE), Unavailable),
    _THROTTLED: Throttled,
    _FAILED: ModelError,
}


@dataclass(frozen=True)
class Model:
    """The model that answered; ``precision`` is empty from servers that do not name it."""

    name: str
    version: str
    precision: str = ""
    unproven: bool = False


@dataclass(frozen=True)
class Answer:
    """The answer to one text.

    ``labels`` and ``scores`` are those that the model chose: one for a single-label model, any
    number for a multi-label one. ``probabilities`` has every label, the most probable first.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    probabilities: Mapping[str, float]
    truncated: bool
    model: Model

    @property
    def label(self) -> str | None:
        """The first label; None if a multi-label model chose none."""
        return self.labels[0] if self.labels else None

    @property
    def score(self) -> float | None:
        """The probability of the first label; None if a multi-label model chose none."""
        return self.scores[0] if self.scores else None


@dataclass(frozen=True)
class Failure:
    """A text among many that was not answered, with the contract's error."""

    code: str
    message: str
    hint: str


@final
class Client:
    """An API and its key. It may be used by several threads; ``with`` closes its connections.

    ``key`` goes into the header ``x-api-key``, ``token`` into ``authorization`` (APIs with
    ``auth = "jwt"``). ``retries`` is how often a request is sent again after 429, 503 or a failed
    connection; ``timeout`` is in seconds, for each attempt. Proxies are those of the environment.
    Raises UsageError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(
                f"{url!r} is not the address of an API",
                hint="pass the URL that fdeploy create-api printed",
            )
        self.url = url
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if key is not None:
            self._headers["x-api-key"] = key.strip()
        if token is not None:
            self._headers["authorization"] = f"Bearer {token.strip()}"
        self._timeout, self._retries, self._sleep = timeout, retries, sleep
        self._pool = _pool(parts.scheme, parts.netloc, parts.hostname)

    @classmethod
    def of_stage(cls, stage: str | None = None, *, folder: str | Path = ".") -> Client:
        """The API of a stage of the project in ``folder``, with its key.

        On AWS the key is fetched with your credentials; on this machine the API's own process must
        hold its port. Raises what ``fdeploy key`` raises.
        """
        url, key = _of_stage(stage, Path(folder))
        return cls(url, key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"  # without the key

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The client can still be used; it opens new ones."""
        self._pool.clear()

    def classify(self, text: str, *, top_k: int | None = None) -> Answer:
        """Classify a text; ``top_k`` keeps that many probabilities. Raises ApiError."""
        return _answer(self.url, self._post(_request({"text": text}, top_k)))

    def classify_many(
        self, texts: Iterable[str], *, top_k: int | None = None, concurrency: int = 4
    ) -> Iterator[Answer | Failure]:
        """Classify texts, in order, in chunks, with ``concurrency`` requests at a time.

        ``texts`` is read as far as needed. A text that the model fails on, or that is too large,
        gives a Failure; whatever would fail every text raises ApiError.
        """
        with ThreadPoolExecutor(concurrency) as threads:
            waiting: deque[Future[list[Answer | Failure]]] = deque()
            try:
                for chunk in _chunks(texts):
                    waiting.append(threads.submit(self.classify_chunk, chunk, top_k))
                    if len(waiting) > concurrency:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for each in waiting:
                    each.cancel()

    def classify_chunk(
        self, texts: Sequence[str], top_k: int | None = None
    ) -> list[Answer | Failure]:
        """Classify texts in one request; if it fails as a whole, in halves. Raises ApiError."""
        try:
            body = self._post(_request({"texts": list(texts)}, top_k))
        except ApiError as error:
            if error.status not in {_TOO_LARGE, _FAILED, _LATE}:
                raise
            if len(texts) == 1:
                return [Failure(error.answer_code, error.message, error.hint)]
            half = len(texts) // 2
            return [
                *self.classify_chunk(texts[:half], top_k),
                *self.classify_chunk(texts[half:], top_k),
            ]
        if not isinstance(body, list) or len(body) != len(texts):
            raise _foreign(self.url)
        return [_answer_or_failure(self.url, each) for each in body]

    def _post(self, body: bytes) -> Any:
        """Send a request until it is answered. Raises ApiError."""
        attempt = 0
        while True:
            try:
                return self._send(body)
            except (Throttled, Unavailable) as error:  # noqa: PERF203 - it tries again
                if attempt >= self._retries or not _worth_another(error):
                    raise
                asked = min(error.retry_after, _LONGEST_ASKED)
                grown = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT)
                # Clients that were refused together do not come back together.
                self._sleep(asked or grown * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                attempt += 1

    def _send(self, body: bytes) -> Any:
        """Send a request once. Raises ApiError."""
        try:
            reply = self._pool.request(
                "POST",
                self.url,
                body=body,
                headers=self._headers,
                timeout=self._timeout,
                retries=False,  # they are our own
                redirect=False,  # the key is for this address only
            )
        except urllib3.exceptions.ReadTimeoutError:
            raise Unavailable(
                f"{self.url} did not answer within {self._timeout:g} s",
                hint="send fewer or shorter texts at once, or raise timeout",
                status=_LATE,
                answer_code="timeout",
            ) from None
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(
                f"{self.url} does not answer: {_cause(error)}",
                hint="check the address and the connection; fdeploy status shows the API",
                status=0,
            ) from None
        if reply.status != _OK:
            raise _refused(self.url, reply)
        try:
            return json.loads(reply.data)
        except ValueError:
            raise _foreign(self.url) from None


@final
class AsyncClient:
    """The same for asyncio. Requests run in threads, so cancelling one does not recall it."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = Client(url, key, token=token, timeout=timeout, retries=retries, sleep=sleep)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client.url!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()

    async def classify(self, text: str, *, top_k: int | None = None) -> Answer:
        """Classify a text, as :meth:`Client.classify` does."""
        return await asyncio.to_thread(self._client.classify, text, top_k=top_k)

    async def classify_many(
        self, texts: Iterable[str], *, top_k: int | None = None, concurrency: int = 4
    ) -> AsyncIterator[Answer | Failure]:
        """Classify texts, in order, as :meth:`Client.classify_many` does."""
        loop, ask = asyncio.get_running_loop(), self._client.classify_chunk
        threads = ThreadPoolExecutor(concurrency)
        waiting: deque[asyncio.Future[list[Answer | Failure]]] = deque()
        try:
            for chunk in _chunks(texts):
                waiting.append(loop.run_in_executor(threads, ask, chunk, top_k))
                if len(waiting) > concurrency:
                    for answer in await waiting.popleft():
                        yield answer
            while waiting:
                for answer in await waiting.popleft():
                    yield answer
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _pool(scheme: str, netloc: str, host: str) -> urllib3.PoolManager:
    """Connections, through the proxy that the environment names for this address."""
    proxy = urllib.request.getproxies().get(scheme)
    if proxy and not urllib.request.proxy_bypass(netloc) and host not in {"127.0.0.1", "::1"}:
        return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", maxsize=16)
    return urllib3.PoolManager(maxsize=16)


def _request(body: dict[str, Any], top_k: int | None) -> bytes:
    return json.dumps(body if top_k is None else {**body, "top_k": top_k}).encode()


def _chunks(texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
    chunk: list[str] = []
    held = 0
    for text in texts:
        size = len(json.dumps(text))
        if chunk and (len(chunk) == _TEXTS or held + size > _BYTES):
            yield tuple(chunk)
            chunk, held = [], 0
        chunk.append(text)
        held += size
    if chunk:
        yield tuple(chunk)


def _worth_another(error: ApiError) -> bool:
    """Whether the same request may succeed later; a timeout would only be repeated."""
    return error.status in {0, _THROTTLED, _BUSY} and error.answer_code != _QUOTA


def _refused(url: str, reply: urllib3.BaseHTTPResponse) -> ApiError:
    """The error of an answer, with the contract's words if they are there."""
    code, message, hint = contract_error(reply.data) or ("", "", "")
    error = _KINDS.get(reply.status, ApiError)(
        f"{url} answered {reply.status} {code}: {message}"
        if code
        else f"{url} answered {reply.status}",
        hint=hint or "check the address: fdeploy create-api prints it",
        status=reply.status,
        answer_code=code,
        retry_after=_seconds(reply.headers.get("retry-after", "")),
    )
    error.request_id = reply.headers.get("x-request-id", "")
    return error


def _foreign(url: str) -> ApiError:
    return ApiError(
        f"the answer of {url} is not one of fdeploy's API",
        hint="check the address: fdeploy create-api prints it",
        status=_OK,
    )


def _seconds(header: str) -> float:
    """The seconds of a Retry-After header; 0 if it is a date or missing."""
    return float(header) if header.isdecimal() else 0.0


def _cause(error: BaseException) -> str:
    """What went wrong with a connection, without urllib3's own words around it."""
    return type(error.__cause__ or error).__name__


def _answer_or_failure(url: str, body: Any) -> Answer | Failure:
    if isinstance(body, dict) and isinstance(said := body.get("error"), dict):
        return Failure(*(str(said.get(name, "")) for name in ("code", "message", "hint")))
    return _answer(url, body)


def _answer(url: str, body: Any) -> Answer:
    """The answer in a body. Raises ApiError if it is none of the contract's."""
    try:
        several = "labels" in body
        model = body["model"]
        return Answer(
            labels=tuple(body["labels"]) if several else (str(body["label"]),),
            scores=tuple(map(float, body["scores"] if several else (body["score"],))),
            probabilities={str(name): float(each) for name, each in body["probabilities"].items()},
            truncated=bool(body["truncated"]),
            model=Model(
                str(model["name"]),
                str(model["version"]),
                str(model.get("precision", "")),
                bool(model.get("unproven", False)),
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _foreign(url) from None


def _of_stage(stage: str | None, folder: Path) -> tuple[str, str | None]:
    """The address of a stage's API and its key, None for an API without keys."""
    import os  # noqa: PLC0415 - only this function needs the project

    from fastai_deploy.progress import silent  # noqa: PLC0415
    from fastai_deploy.project import open_project  # noqa: PLC0415
    from fastai_deploy.records import Api  # noqa: PLC0415
    from fastai_deploy.settings import load_settings  # noqa: PLC0415
    from fastai_deploy.workspace import find_project  # noqa: PLC0415

    found = find_project(folder.resolve())
    settings = load_settings(
        folder=found.folder, config=None, stage=stage, environ=os.environ, flags={}
    )
    project = open_project(settings, silent, needs=Api)
    api = project.workspace.need(Api)
    if api.auth in {"iam", "jwt"}:
        raise UsageError(
            f"the API of stage {settings.stage} is not called with a key (auth = {api.auth!r})",
            hint="pass Client(url, token=...) for jwt; sign requests yourself for iam",
        )
    key = project.target.key(api) if api.auth == "key" else None
    return project.target.address(api), key

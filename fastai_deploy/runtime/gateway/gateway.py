"""The gateway: from an event to its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, TextIO, Tuple

from .. import error_responses
from ..contract import HEALTH, OPENAPI, PAGE, Json, RequestError, encode
from . import documents, events, failures, request_log
from .endpoint import Asked, GatewaySettings, TimeBudget
from .events import Call, checked

Answer = Tuple[int, Optional[bytes], Mapping[str, str]]


@dataclass(frozen=True)
class Exchange:
    """A call that is being answered: until when, and facts for the log.

    Attempts begin until ``deadline``, and nobody waits after ``ends``; both are in seconds of the
    gateway's clock.
    """

    call: Call
    deadline: float
    ends: float
    facts: Dict[str, Json]


class Gateway:
    """Answers events; one object serves all events of a process, from several threads if needed.

    ``endpoint`` answers checked requests; ``clock``, which counts seconds, is its clock too;
    ``now`` returns the seconds since 1970. ``shipped`` returns a document by its name; if it
    returns None, the document has no route.
    """

    def __init__(
        self,
        endpoint: Asked,
        settings: GatewaySettings,
        *,
        log: TextIO,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        shipped: Callable[[str], Optional[bytes]] = documents.shipped,
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._budget = TimeBudget.of(settings.timeout_ms)
        self._log = log
        self._clock = clock
        self._now = now
        self._routes: Dict[str, Mapping[str, Callable[[Exchange], Answer]]] = {
            HEALTH: {"GET": self._health},
            settings.route: {"POST": self._classify},
        }
        self._document, self._page = shipped(documents.OPENAPI), shipped(documents.PAGE)
        if self._document is not None:
            self._routes[OPENAPI] = {"GET": self._openapi}
        if self._page is not None:
            self._routes[PAGE] = {"GET": self._html}

    @property
    def route(self) -> str:
        """The path that texts are sent to."""
        return self._settings.route

    def handle(self, event: Any, context: Any = None) -> Dict[str, Json]:
        """A proxy response for any event; never raises."""
        return self.respond(events.read(event), context)

    def respond(self, call: Call, context: Any = None) -> Dict[str, Json]:
        """A proxy response for any call; never raises."""
        started = self._clock()
        facts: Dict[str, Json] = {
            "request_id": call.request_id,
            "lambda_request_id": str(getattr(context, "aws_request_id", "-")),
            "event": call.kind,
            "texts": 0,
            "bytes": 0,
        }
        headers = {
            **events.cors(call.headers.get("origin"), self._settings.cors_origins),
            "x-request-id": call.request_id,
        }
        try:
            remaining = _remaining(context)
            deadline = started + self._budget.retry_until - self._late(remaining)
            ends = started + self._left(call, remaining)
            status, body, more = self._answer(Exchange(call, deadline, ends, facts))
            response = events.respond(status, body, {**headers, **more})
        except Exception as error:  # noqa: BLE001 whatever happens, the client gets an answer
            failure = request_log.failure(error)
            facts.update(failure.facts, code=failure.code)
            response = events.refuse(failure, {**headers, **failure.headers})
        if call.method == "HEAD":
            response = events.without_body(response)
        facts["status"] = response["statusCode"]
        facts["ms"] = round((self._clock() - started) * 1_000, 2)
        entry = request_log.line(self._settings.endpoint, facts, now=self._now())
        request_log.write(self._log, entry)
        return response

    def _answer(self, exchange: Exchange) -> Answer:
        call, facts = exchange.call, exchange.facts
        actions = self._routes.get(call.path)
        if actions is None:
            facts.update(route="none", method="none")  # leaves out names that the client chose
            raise error_responses.not_found(self._settings.route)
        methods = (*actions, *(("HEAD",) if "GET" in actions else ()), "OPTIONS")
        facts.update(route=call.path, method=call.method if call.method in methods else "none")
        if call.method == "OPTIONS":
            origin = call.headers.get("origin")
            preflight = events.cors(origin, self._settings.cors_origins, methods)
            return 204, None, {**preflight, "allow": ", ".join(methods)}
        action = actions.get("GET" if call.method == "HEAD" else call.method)
        if action is None:
            raise failures.method_not_allowed(methods)
        return action(exchange)

    def _health(self, _exchange: Exchange) -> Answer:
        """Reports that the gateway is up; it does not call the endpoint, because that costs."""
        return 200, encode({"status": "ok"}), {}

    def _openapi(self, exchange: Exchange) -> Answer:
        """The OpenAPI document, with the server that it was fetched from."""
        return 200, documents.with_server(self._document or b"", exchange.call.base), {}

    def _html(self, _exchange: Exchange) -> Answer:
        """The try-it page."""
        return 200, self._page, documents.page_headers(self._page or b"")

    def _classify(self, exchange: Exchange) -> Answer:
        call, facts = exchange.call, exchange.facts
        body = call.body()
        facts["bytes"] = len(body)
        # What the account's own users ask directly, Lambda limits itself.
        if call.kind != events.DIRECT and len(body) > self._settings.max_body:
            raise error_responses.too_large(self._settings.max_body)
        if call.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise error_responses.compressed()
        request, body = checked(body, call.headers.get("content-type"))
        texts = [item for item in request.items if isinstance(item, str)]
        facts["texts"] = len(texts)
        if self._settings.log_text:
            facts["text"] = texts
        if not texts:  # every item has an error, so the model is not needed
            errors = [item.body() for item in request.items if isinstance(item, RequestError)]
            return 200, encode(errors), {}
        answer = self._endpoint.invoke(
            body, deadline=exchange.deadline, ends=exchange.ends, facts=facts
        )
        return 200, answer, {}

    def _late(self, remaining: Optional[float]) -> float:
        """How many seconds of the request's time had passed before the handler was called."""
        if remaining is None:
            return 0.0
        return max(0.0, self._settings.timeout_ms / 1_000 - remaining)

    def _left(self, call: Call, remaining: Optional[float]) -> float:
        """How many seconds a call has left: the API's, or with a direct invocation the Lambda's."""
        if call.kind == events.DIRECT and remaining is not None:
            return remaining - (self._settings.timeout_ms / 1_000 - self._budget.usable)
        return self._budget.usable - self._late(remaining)


def _remaining(context: Any) -> Optional[float]:
    """The seconds until Lambda ends the invocation; None if it is not known."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return float(remaining()) / 1_000 if callable(remaining) else None

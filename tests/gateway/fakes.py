"""Fakes around the Lambda that a test controls: a runtime client, a clock and a context."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastai_deploy.runtime.gateway.endpoint import Endpoint, GatewaySettings
from fastai_deploy.runtime.gateway.gateway import Gateway

ANSWER = b'{"label":"positive","score":0.98}'
SETTINGS = GatewaySettings(endpoint="demo-dev", cors_origins=("https://app.example",))


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


class FakeRuntime:
    """A ``sagemaker-runtime`` client; each of ``outcomes`` is an answer or an exception to raise.

    The last one is used again and again. ``took`` is how long an attempt takes.
    """

    def __init__(
        self, *outcomes: bytes | Exception, took: Callable[[], None] = lambda: None
    ) -> None:
        self._outcomes = list(outcomes) or [ANSWER]
        self._took = took
        self.calls: list[dict[str, Any]] = []

    def invoke_endpoint(self, **request: Any) -> Mapping[str, Any]:
        self.calls.append(request)
        self._took()
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return {"Body": io.BytesIO(outcome), "ContentType": "application/json"}


@dataclass(frozen=True)
class FakeContext:
    remaining_ms: int = 29_000
    aws_request_id: str = "8f5b6a1e-0000-4000-8000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


@dataclass
class World:
    """A gateway with fakes for everything that it calls."""

    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    settings: GatewaySettings = SETTINGS
    clock: FakeClock = field(default_factory=FakeClock)
    log: io.StringIO = field(default_factory=io.StringIO)
    documents: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gateway = Gateway(
            Endpoint(
                self.runtime,
                self.settings.endpoint,
                clock=self.clock,
                sleep=self.clock.sleep,
                jitter=lambda: 1.0,
            ),
            self.settings,
            log=self.log,
            clock=self.clock,
            now=lambda: 1_700_000_000.0,
            shipped=self.documents.get,
        )

    def answer(self, event: Any, context: Any = None) -> Response:
        return Response(self.gateway.handle(event, context or FakeContext()))

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


class Response:
    """A valid proxy response; anything else fails the test."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        json.dumps(value)  # Lambda does the same
        assert set(value) == {"statusCode", "headers", "body", "isBase64Encoded"}
        assert type(value["statusCode"]) is int
        assert 200 <= value["statusCode"] <= 599
        assert value["isBase64Encoded"] is False
        self.status: int = value["statusCode"]
        self.headers: dict[str, str] = value["headers"]
        self.text: str = value["body"]
        for name, text in self.headers.items():
            assert name == name.lower()
            assert text.isascii()
            assert text.isprintable()
        self.text.encode("utf-8")

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        error = self.json["error"]
        assert set(error) == {"code", "message", "hint"}
        return str(error["code"])

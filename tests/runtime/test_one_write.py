from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from fastai_deploy.runtime.asgi import Receive, Scope, Send
from fastai_deploy.runtime.one_write import Gathering, OneWrite

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def write(self, data: Any) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def told(act: Callable[[Gathering], None]) -> list[Any]:
    wire = Wire()

    async def step() -> None:
        act(Gathering(wire, asyncio.get_running_loop()))
        await asyncio.sleep(0)

    asyncio.run(step())
    return wire.told


def test_head_and_body_go_in_one_write() -> None:
    def answer(transport: Gathering) -> None:
        transport.write(b"head")
        transport.write(b"body")

    assert told(answer) == [b"headbody"]


def test_what_is_written_before_a_close_is_sent() -> None:
    def answer(transport: Gathering) -> None:
        transport.write(b"head")
        transport.write(b"body")
        transport.close()

    assert told(answer) == [b"headbody", "close"]


def test_an_abort_sends_nothing() -> None:
    def hang_up(transport: Gathering) -> None:
        transport.write(b"head")
        transport.abort()

    assert told(hang_up) == ["abort"]


def test_each_step_has_its_own_write() -> None:
    wire = Wire()

    async def steps() -> None:
        transport = Gathering(wire, asyncio.get_running_loop())
        for data in (b"one", b"two"):
            transport.write(data)
            await asyncio.sleep(0)

    asyncio.run(steps())
    assert wire.told == [b"one", b"two"]


class App:
    """Answers with the body, in capitals; refuses while it is full."""

    full = True

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, dict[bytes, bytes]]] = []

    def refused(
        self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]
    ) -> bytes | None:
        self.asked.append((method, url, dict(headers)))
        return REFUSAL if self.full else None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body.upper()})


class Connection:
    """A connection to the app; ``send`` tells what it has written since."""

    def __init__(self, app: App) -> None:
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        self.wire = Wire()
        self.protocol = OneWrite(config, ServerState(), {})
        self.protocol.connection_made(self.wire)

    async def send(self, data: bytes) -> list[Any]:
        buffer = self.protocol.get_buffer(-1)
        buffer[: len(data)] = data
        self.protocol.buffer_updated(len(data))
        for _ in range(5):
            await asyncio.sleep(0)
        told, self.wire.told = self.wire.told, []
        return told


def request(body: bytes, *headers: bytes) -> bytes:
    head = [b"POST /invocations HTTP/1.1", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def connected(use: Callable[[Connection, App], Any]) -> None:
    app = App()
    connection = Connection(app)
    await use(connection, app)
    connection.protocol.connection_lost(None)


def answered(body: bytes) -> bytes:
    return b"\r\n\r\n" + body


def test_a_refusal_goes_out_at_once_and_the_connection_serves_on() -> None:
    async def use(connection: Connection, app: App) -> None:
        assert await connection.send(request(b"one", b"X-Request-Id: 7")) == [REFUSAL]
        assert app.asked[0][:2] == (b"POST", b"/invocations")
        assert app.asked[0][2][b"x-request-id"] == b"7"
        app.full = False
        (answer,) = await connection.send(request(b"two"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(answered(b"TWO"))
        app.full = True
        assert await connection.send(request(b"three")) == [REFUSAL]

    asyncio.run(connected(use))


def test_the_body_of_what_is_refused_is_skipped() -> None:
    async def use(connection: Connection, app: App) -> None:
        whole = request(b"POST / HTTP/1.1")
        assert await connection.send(whole[:-9]) == [REFUSAL]
        app.full = False
        assert await connection.send(whole[-9:]) == []
        (answer,) = await connection.send(request(b"next"))
        assert answer.endswith(answered(b"NEXT"))

    asyncio.run(connected(use))


def test_requests_sent_together_are_each_refused() -> None:
    async def use(connection: Connection, _app: App) -> None:
        assert await connection.send(request(b"one") + request(b"two")) == [REFUSAL * 2]

    asyncio.run(connected(use))


def test_a_request_behind_one_under_way_waits_for_its_turn() -> None:
    async def use(connection: Connection, app: App) -> None:
        app.full = False
        first = request(b"first")
        assert await connection.send(first[:-2]) == []
        app.full = True
        both = await connection.send(first[-2:] + request(b"second"))
        assert [answer.split(b"\r\n\r\n")[1] for answer in both] == [b"FIRST", b"SECOND"]

    asyncio.run(connected(use))


@pytest.mark.parametrize("header", [b"expect: 100-continue", b"connection: close"])
def test_what_needs_care_goes_the_long_way(header: bytes) -> None:
    async def use(connection: Connection, app: App) -> None:
        answers = await connection.send(request(b"one", header))
        assert b"HTTP/1.1 200 " in answers[0]
        assert not app.asked

    asyncio.run(connected(use))

from __future__ import annotations

import asyncio
import errno
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from fastai_deploy.runtime.app import Invocation, Receive, Scope, Send
from fastai_deploy.runtime.codec import Answer
from fastai_deploy.runtime.connections import ConnectionLimits, Connections
from fastai_deploy.runtime.host_check import HostCheck
from fastai_deploy.runtime.http_connection import Connection as Served
from fastai_deploy.runtime.http_connection import Gathering
from fastai_deploy.runtime.log import Log, OncePerMinute

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """Records what the protocol does with the transport."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.unread = 0
        self.reset = False

    def write_eof(self) -> None:
        if self.reset:
            raise OSError(errno.ENOTCONN, "the client is gone")
        self.told.append("eof")

    def get_write_buffer_size(self) -> int:
        return self.unread

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
    """Answers with the body in capitals; refuses requests while it is full.

    While it is ``direct``, it does so without the application, when the test calls ``reply``.
    """

    full = True
    direct = False

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, dict[bytes, bytes]]] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.invoked: list[bytes] = []
        self.abandoned: list[str] = []
        self._replies: list[Callable[[], None]] = []

    def begin(
        self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> Invocation | bytes | None:
        self.asked.append((method, url, dict(headers)))
        if self.full:
            return REFUSAL
        return Invocation("id-1", None, 0.0) if self.direct else None

    def invoke(self, _invocation: Invocation, body: bytes, reply: Callable[[Answer], None]) -> None:
        self.invoked.append(body)
        self._replies.append(lambda: reply(Answer(200, body.upper())))

    def abandon(self, invocation: Invocation) -> None:
        self.abandoned.append(invocation.id)

    def reply(self) -> None:
        """Answer the oldest request that is under way."""
        self._replies.pop(0)()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.headers.append(scope["headers"])
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body.upper()})


LIMITS = ConnectionLimits(
    connections=4, head_bytes=1_000, small_body=100, largest_body=400, unfinished=450
)


class Server:
    """A server's connections to the app, and a clock that the test sets."""

    def __init__(self, app: App, hosts: HostCheck | None = None) -> None:
        self.now = 0.0
        self.log = io.StringIO()
        self.app = app
        self.all = Connections(LIMITS, OncePerMinute(Log(self.log)), lambda: self.now)
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        self._config, self._hosts = config, hosts

    def connect(self) -> Connection:
        protocol = Served(
            self._config,
            ServerState(),
            {},
            connections=self.all,
            hosts=self._hosts,
            direct=self.app,
        )
        return Connection(protocol)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.all.tick()


class Connection:
    """A connection to the app; ``send`` returns what it has written since the last call."""

    def __init__(self, protocol: Served) -> None:
        self.wire = Wire()
        self.protocol = protocol
        self.protocol.connection_made(self.wire)

    async def send(self, data: bytes) -> list[Any]:
        for start in range(0, len(data), 65_536):
            part = data[start : start + 65_536]
            buffer = self.protocol.get_buffer(-1)
            buffer[: len(part)] = part
            self.protocol.buffer_updated(len(part))
        return await self.told()

    async def told(self) -> list[Any]:
        for _ in range(5):
            await asyncio.sleep(0)
        told, self.wire.told = self.wire.told, []
        return told

    def drop(self) -> None:
        self.protocol.connection_lost(None)


def request(body: bytes, *headers: bytes) -> bytes:
    head = [b"POST /invocations HTTP/1.1", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def connected(use: Callable[[Connection, App], Any]) -> None:
    app = App()
    connection = Server(app).connect()
    await use(connection, app)
    connection.drop()


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
        assert await connection.send(request(b"five")) == [REFUSAL]

    asyncio.run(connected(use))


def test_the_body_of_a_refused_request_is_skipped() -> None:
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


JAVA = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAEAAEAA", b"Upgrade: h2c")


@pytest.mark.parametrize(
    "wish", [JAVA, (b"upgrade: websocket", b"connection: , upgrade"), (b"upgrade: h2c",)]
)
@pytest.mark.parametrize("piece", [1, 70, 100_000])
def test_a_wish_for_another_protocol_is_ignored(wish: tuple[bytes, ...], piece: int) -> None:
    async def use(connection: Connection, app: App) -> None:
        app.full = False
        sent = request(b"one", *wish) + request(b"two", *wish) + request(b"three")
        parts = [sent[start : start + piece] for start in range(0, len(sent), piece)]
        told = b"".join([piece for part in parts for piece in await connection.send(part)])
        told += b"".join(await connection.told())
        bodies = [part.partition(b"HTTP/")[0] for part in told.split(b"\r\n\r\n")[1:]]
        assert bodies == [b"ONE", b"TWO", b"THREE"]
        assert not {b"connection", b"http2-settings"} & {name for name, _ in app.headers[0]}

    asyncio.run(connected(use))


def test_a_chunked_body_behind_a_wish_for_another_protocol_is_read() -> None:
    async def use(connection: Connection, app: App) -> None:
        app.full = False
        head = b"\r\n".join((b"POST / HTTP/1.1", b"transfer-encoding: chunked", *JAVA))
        (answer,) = await connection.send(head + b"\r\n\r\n3\r\none\r\n0\r\n\r\n")
        assert answer.endswith(answered(b"ONE"))

    asyncio.run(connected(use))


def test_a_wish_for_another_protocol_does_not_avoid_the_limits() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        (answer, *_) = await connection.send(request(b"", b"x: " + b"a" * 1_000, *JAVA))
        assert answer.startswith(b"HTTP/1.1 431 ")

    served(use)


def test_blanks_behind_a_value_are_not_part_of_it() -> None:
    async def use(connection: Connection, app: App) -> None:
        await connection.send(request(b"one", b"x-api-key: \t secret \t "))
        assert app.asked[0][2][b"x-api-key"] == b"secret"

    asyncio.run(connected(use))


async def directly(use: Callable[[Connection, App], Any]) -> None:
    async def with_direct_answers(connection: Connection, app: App) -> None:
        app.full, app.direct = False, True
        await use(connection, app)

    await connected(with_direct_answers)


def test_a_direct_answer_is_one_write_and_the_connection_serves_on() -> None:
    async def use(connection: Connection, app: App) -> None:
        for body in (b"one", b"two"):
            whole = request(body)
            assert await connection.send(whole[:-1]) == []
            assert await connection.send(whole[-1:]) == []
            app.reply()
            (answer,) = await connection.told()
            head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
            assert head[0] == b"HTTP/1.1 200 OK"
            assert {b"content-length: 3", b"x-request-id: id-1"} < set(head)
            assert answer.endswith(answered(body.upper()))
        assert app.invoked == [b"one", b"two"]
        assert not app.headers  # the application has not been called

    asyncio.run(directly(use))


def test_a_request_behind_a_direct_one_waits_for_its_turn() -> None:
    async def use(connection: Connection, app: App) -> None:
        assert await connection.send(request(b"first") + request(b"second")) == []
        app.reply()
        both = b"".join(await connection.told())
        assert [part.partition(b"HTTP")[0] for part in both.split(b"\r\n\r\n")[1:]] == [
            b"FIRST",
            b"SECOND",
        ]
        assert app.invoked == [b"first"]

    asyncio.run(directly(use))


def test_a_direct_request_is_abandoned_when_the_client_goes() -> None:
    async def use(connection: Connection, app: App) -> None:
        assert await connection.send(request(b"one")) == []
        connection.drop()
        assert app.abandoned == ["id-1"]

    asyncio.run(directly(use))


def test_the_answer_to_a_direct_request_is_the_last_after_bytes_that_are_not_http() -> None:
    async def use(connection: Connection, app: App) -> None:
        assert await connection.send(request(b"one") + b"\x16\x03\x01\r\n\r\n") == []
        app.reply()
        answer, end = await connection.told()
        assert b"\r\nconnection: close\r\n" in answer
        assert end == "close"

    asyncio.run(directly(use))


def test_a_server_that_ends_answers_direct_requests_first() -> None:
    async def use(connection: Connection, app: App) -> None:
        whole = request(b"one")
        await connection.send(whole[:-1])
        connection.protocol.shutdown()
        assert await connection.send(whole[-1:]) == []
        app.reply()
        answer, end = await connection.told()
        assert answer.endswith(answered(b"ONE"))
        assert b"\r\nconnection: close\r\n" in answer
        assert end == "close"

    asyncio.run(directly(use))


def test_the_body_of_a_direct_request_must_arrive_in_time() -> None:
    async def use() -> None:
        app = App()
        app.full, app.direct = False, True
        server = Server(app)
        connection = server.connect()
        assert await connection.send(request(b"one")[:-1]) == []
        server.after(LIMITS.body)
        assert refusal(408, "timeout", await connection.told())
        assert not app.invoked

    asyncio.run(use())


def test_nothing_is_answered_directly_while_the_client_does_not_read() -> None:
    async def use(connection: Connection, app: App) -> None:
        connection.protocol.pause_writing()
        assert await connection.send(request(b"one")) == []
        connection.protocol.resume_writing()
        assert answered(b"ONE") in b"".join(await connection.told())
        assert not app.invoked

    asyncio.run(directly(use))


def refusal(status: int, code: str, told: list[Any]) -> bool:
    """Whether this is a refusal in the contract's format, with nothing after it."""
    answer, *end = told
    head, _, body = answer.partition(b"\r\n\r\n")
    return (
        head.startswith(b"HTTP/1.1 %d " % status)
        and b"connection: close" in head
        and json.loads(body)["error"]["code"] == code
        and end == ["eof"]
    )


def served(use: Callable[[Server], Any], hosts: HostCheck | None = None) -> None:
    """Run ``use`` on a server whose app answers; no connection may leave anything behind."""
    app = App()
    app.full = False

    async def used() -> None:
        await use(Server(app, hosts))

    asyncio.run(used())


HEAD = b"POST /invocations HTTP/1.1\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
MUCH = b"x" * 200_000
BUSY = HEAD + b"content-length: 9\r\n\r\nhalf"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"a: " + MUCH,
        HEAD + b"a" * 2_000 + b": b",
        HEAD + b"a: b\r\n" * 300,
        HEAD + b"a: " + b"b" * 1_000 + b"\r\n\r\n",
        HEAD + b"a: b\r\n" * 300 + b"\r\n",
        HEAD + b"a: b\r\n" * 20_000 + b"\r\n",
        b"POST /" + MUCH,
        b"POST /" + b"x" * 2_000 + b" HTTP/1.1\r\n\r\n",
        CHUNKED + b"3\r\none\r\n0\r\na: " + MUCH,
        CHUNKED + b"3\r\none\r\n0\r\n" + b"a: b\r\n" * 20_000,
        CHUNKED + b"3;" + MUCH,
    ],
    ids=lambda data: f"{data[:60]!r}",
)
def test_a_head_above_the_limit_is_refused(data: bytes) -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        assert refusal(431, "headers_too_large", await connection.send(data))
        assert await connection.send(MUCH) == []
        server.after(LIMITS.refused)
        assert await connection.told() == ["abort"]
        assert not server.app.asked or b"chunked" in data

    served(use)


def test_a_head_at_the_limit_is_read_also_where_a_body_comes_with_it() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        (answer,) = await connection.send(request(b"y" * 60_000, b"a: " + b"x" * 900))
        assert answer.startswith(b"HTTP/1.1 200 ")
        two = request(b"y" * 60_000) + request(b"", b"a: " + b"x" * 900)
        await connection.send(two[:-50])
        assert (await connection.send(two[-50:]))[0].startswith(b"HTTP/1.1 200 ")

    served(use)


def test_trailers_are_not_headers() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        answers = await connection.send(CHUNKED + b"3\r\none\r\n0\r\nx-late: 1\r\n\r\n")
        assert answers[0].endswith(answered(b"ONE"))
        assert server.app.headers == [[(b"transfer-encoding", b"chunked")]]

    served(use)


@pytest.mark.parametrize(
    ("sent", "seconds", "told"),
    [
        (b"", LIMITS.silent, ["close"]),
        (b"\r\n", LIMITS.head, 408),
        (b"GET /", LIMITS.head, 408),
        (HEAD + b"host: a\r\nb", LIMITS.head, 408),
        (HEAD + b"content-length: 9\r\n\r\n", LIMITS.body, 408),
        (HEAD + b"content-length: 9\r\n\r\nhalf", LIMITS.body, 408),
        (CHUNKED + b"5\r\nhalf", LIMITS.body, 408),
        (HEAD + b"content-length: 1\r\n\r\na", LIMITS.idle, ["close"]),
    ],
)
def test_stalled_connections_are_closed_in_time(
    sent: bytes, seconds: float, told: list[Any] | int
) -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        if sent:
            await connection.send(sent)
        server.after(seconds - 0.1)
        assert await connection.told() == []
        server.after(0.1)
        ended = await connection.told()
        assert refusal(told, "timeout", ended) if isinstance(told, int) else ended == told

    served(use)


def test_a_client_that_resets_its_connection_does_no_harm() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        await connection.send(b"GET /")
        connection.wire.reset = True
        server.after(LIMITS.head)
        assert (await connection.told())[-1] == "abort"

    served(use)


def test_a_head_that_comes_byte_by_byte_is_ended_in_time() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        await connection.send(b"GET /")
        for _ in range(int(LIMITS.head)):
            assert await connection.send(b"a") == []
            server.after(1)
        assert refusal(408, "timeout", await connection.told())

    served(use)


def test_a_body_that_goes_on_is_waited_for() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        await connection.send(HEAD + b"content-length: 9\r\n\r\n")
        for _ in range(8):
            server.after(LIMITS.body - 1)
            assert await connection.send(b"a") == []
        (answer,) = await connection.send(b"a")
        assert answer.endswith(answered(b"AAAAAAAAA"))

    served(use)


def test_an_unread_answer_is_not_kept() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        await connection.send(request(b"one"))
        connection.wire.unread = 3
        server.after(LIMITS.idle)
        assert await connection.told() == ["abort"]
        other = server.connect()
        other.protocol.pause_writing()
        server.after(LIMITS.idle)
        assert await other.told() == ["abort"]

    served(use)


def test_data_after_an_early_answer_is_not_awaited() -> None:
    async def use(server: Server) -> None:
        server.app.full = True
        connection = server.connect()
        assert await connection.send(HEAD + b"content-length: 999\r\n\r\n") == [REFUSAL]
        for _ in range(int(LIMITS.rest)):
            assert await connection.send(b"a") == []
            server.after(1)
        assert await connection.told() == ["abort"]

    served(use)


@pytest.mark.parametrize("sent", [b"", b"POST", request(b"one")])
def test_above_the_limit_connections_without_a_request_are_closed(sent: bytes) -> None:
    async def use(server: Server) -> None:
        for _ in range(3):
            await server.connect().send(BUSY)
        idle = server.connect()
        await idle.send(sent)
        fifth = server.connect()
        assert await idle.told() == ["close"]
        (answer,) = await fifth.send(request(b"five"))
        assert answer.endswith(answered(b"FIVE"))

    served(use)


def test_beyond_the_bound_of_busy_connections_it_is_overloaded() -> None:
    async def use(server: Server) -> None:
        for _ in range(4):
            await server.connect().send(BUSY)
        server.after(1)
        fifth = server.connect()
        told = await fifth.told()
        assert b"retry-after: 1" in told[0]
        assert refusal(503, "overloaded", told)
        fifth.drop()
        server.after(LIMITS.head)
        assert "too many connections are open" in server.log.getvalue()

    served(use)


def test_a_flood_of_refused_connections_gets_no_reason() -> None:
    async def use(server: Server) -> None:
        for _ in range(4):
            await server.connect().send(BUSY)
        told = [await server.connect().told() for _ in range(80)]
        assert told[-1] == ["abort"]
        assert refusal(503, "overloaded", told[0])

    served(use)


@pytest.mark.parametrize("head", [HEAD + b"content-length: 900\r\n\r\n", CHUNKED])
def test_unfinished_bodies_are_bounded_together(head: bytes) -> None:
    def part(size: int) -> bytes:
        return b"%x\r\n%b\r\n" % (size, b"a" * size) if head == CHUNKED else b"a" * size

    async def use(server: Server) -> None:
        first, second = server.connect(), server.connect()
        for connection in (first, second):
            assert await connection.send(head + part(80)) == []
            assert await connection.send(part(220)) == []  # 100 are not counted, 200 are
        told = await second.send(part(120))
        assert b"retry-after: 1" in told[0]
        assert refusal(503, "overloaded", told)
        assert await first.send(part(300)) == []  # the other connection has freed its share
        first.drop()
        second.drop()
        again = server.connect()
        assert await again.send(head + part(400)) == []
        again.drop()
        assert server.all.take(LIMITS.unfinished)

    served(use)


def test_small_bodies_are_always_taken() -> None:
    async def use(server: Server) -> None:
        assert server.all.take(LIMITS.unfinished)
        (answer,) = await server.connect().send(request(b"a" * LIMITS.small_body))
        assert answer.startswith(b"HTTP/1.1 200 ")

    served(use)


def test_a_refusal_waits_for_the_answer_before_it() -> None:
    async def use(server: Server) -> None:
        connection = server.connect()
        told = await connection.send(request(b"one") + b"GET / HTTP/1.1\r\na: " + MUCH)
        assert b"".join(told[:-1]).endswith(answered(b"ONE"))
        assert told[-1] == "close"

    served(use)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", 403),
        (b"GET http://evil.example/ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: 127.0.0.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\norigin: http://a.example\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\norigin: http://b.example\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nhost: hub.example\r\n\r\n", 200),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_hosts_are_checked_where_they_are_to_be(head: bytes, status: int) -> None:
    async def use(server: Server) -> None:
        told = await server.connect().send(head)
        assert told[0].startswith(b"HTTP/1.1 %d " % status)

    async def anywhere(server: Server) -> None:
        told = await server.connect().send(head)
        assert told[0].startswith(b"HTTP/1.1 200 ")

    served(use, HostCheck(["hub.example"], ["http://b.example"]))
    served(anywhere)


def test_head_is_refused_without_a_body() -> None:
    async def use(server: Server) -> None:
        told = await server.connect().send(b"HEAD / HTTP/1.1\r\nhost: evil.example\r\n\r\n")
        assert told[0].startswith(b"HTTP/1.1 403 ")
        assert told[0].endswith(b"\r\n\r\n")

    served(use, HostCheck())

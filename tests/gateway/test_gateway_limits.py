"""Rate, quota, concurrency and time at the local gateway."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.gateway.conftest import Start
from tests.gateway.servers import Received, Reply, Server, echo


class Gate:
    """A model that answers only after the test opens the gate."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, received: Received) -> Reply:
        self.arrived.release()
        self.opened.wait(30)
        return echo(received)


def test_above_the_rate_is_throttled(start: Start, model: Server) -> None:
    client = start(rate=0.001, burst=3).client()
    assert [client.send().status for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = client.send()
    assert answer.code == "throttled"
    assert 900 < int(answer.headers["retry-after"]) <= 1_000
    assert len(model.received) == 3
    assert client.send(None, method="GET", path="/health").status == 200


def test_wrong_keys_do_not_use_up_the_rate(start: Start) -> None:
    gateway = start(rate=0.001, burst=1)
    assert [gateway.client("wrong").send().status for _ in range(3)] == [403] * 3
    assert gateway.client().send().status == 200


def test_above_the_quota_is_refused(start: Start) -> None:
    client = start(quota=2, quota_period="MONTH").client()
    assert [client.send().status for _ in range(3)] == [200, 200, 429]
    answer = client.send()
    assert answer.code == "quota_exceeded"
    assert 0 < int(answer.headers["retry-after"]) <= 31 * 86_400


def test_a_slow_model_is_a_timeout(start: Start, model: Server) -> None:
    gate = Gate()
    model.script = gate
    gateway = start(timeout_ms=1_000)
    try:
        answer = gateway.client().send()
    finally:
        gate.opened.set()
    assert (answer.status, answer.code) == (504, "timeout")


def test_more_at_once_than_the_function_may_is_overload(start: Start, model: Server) -> None:
    gate = Gate()
    model.script = gate
    client = start(concurrency=2).client()
    with ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(client.send) for _ in range(2)]
        try:
            for _ in waiting:
                assert gate.arrived.acquire(timeout=30)
            refused = client.send()
        finally:
            gate.opened.set()
        assert [answer.result().status for answer in waiting] == [200, 200]
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert client.send().status == 200


def test_a_missing_model_server_is_not_ready(start: Start, model: Server) -> None:
    gateway = start(timeout_ms=20_000)
    state = Path(gateway.config.endpoint_state)
    with Server(echo).running() as gone:
        state.write_bytes(gone.state)
    answer = gateway.client().send()
    assert (answer.status, answer.code) == (503, "not_ready")
    assert "retry-after" in answer.headers
    state.unlink()
    answer = gateway.client().send()
    assert (answer.status, answer.code) == (503, "not_ready")
    assert "retry-after" in answer.headers
    assert model.received == []


def test_a_redeployed_model_server_is_followed(start: Start, model: Server) -> None:
    gateway = start()
    assert gateway.client().send().status == 200
    with Server(lambda _received: Reply(body=b'{"label": "new"}')).running() as redeployed:
        Path(gateway.config.endpoint_state).write_bytes(redeployed.state)
        assert gateway.client().send().json == {"label": "new"}
    assert len(model.received) == 1

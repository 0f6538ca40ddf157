from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastai_deploy.runtime.one_write import Gathering


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

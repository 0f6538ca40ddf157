"""What the servers on this machine have in common: a socket, uvicorn, and its housekeeping."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import uvicorn

from .connections import ConnectionLimits, Connections, most_connections
from .host_check import HostCheck
from .http_connection import Connection, RefusedEarly
from .log import Log, LogRotation, OncePerMinute

HOST = "127.0.0.1"
_BACKLOG = 2048
# asyncio accepts as many in one step, each with a descriptor, before it looks at any of them.
_ACCEPTED_AT_ONCE = 100


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1; port 0 takes a free one. Raises OSError."""
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol is spelt out.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        # Not only bound: two sockets may be bound to one port as long as neither listens.
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class HttpServer(uvicorn.Server):
    """Serves an ASGI application until it is told to end.

    ``ready`` is called when requests are answered; ``grace`` is how many seconds a request in
    flight gets at the end. ``hosts`` and ``refused_early`` are those of Connection. ``log_file`` is
    where stdout and stderr go, if it is to be rotated.
    """

    def __init__(
        self,
        app: Any,
        log: Log,
        *,
        ready: Callable[[], None],
        grace: int,
        hosts: Optional[HostCheck] = None,
        refused_early: Optional[RefusedEarly] = None,
        log_file: Optional[Path] = None,
        limits: Optional[ConnectionLimits] = None,
    ) -> None:
        limits = limits or ConnectionLimits(most_connections())
        self._ready = ready
        self._report = OncePerMinute(log)
        connections = Connections(limits, self._report, time.monotonic)
        protocol: Any = functools.partial(
            Connection, connections=connections, hosts=hosts, refused_early=refused_early
        )

        rotation = LogRotation(log_file) if log_file else None

        async def tick() -> None:
            try:
                connections.tick()
                if rotation is not None:
                    rotation.rotate_if_large()
            except Exception as error:  # noqa: BLE001  # uvicorn would end the server
                log.defect("-", error)

        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                loop="asyncio",
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                backlog=min(_ACCEPTED_AT_ONCE, max(1, limits.connections // 4)),
                timeout_keep_alive=int(limits.idle),
                timeout_graceful_shutdown=grace,
                callback_notify=tick,
                timeout_notify=0,
            )
        )

    async def startup(self, sockets: Optional[List[socket.socket]] = None) -> None:
        """Begin to serve."""
        asyncio.get_running_loop().set_exception_handler(self._report_accept)
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_BACKLOG)
        self._ready()

    def end(self, *_signal: object) -> None:
        """A signal handler: finish what is in flight, then return from ``serve``.

        uvicorn puts handlers of its own in place while it serves, and raises the signal again
        afterwards; that one, too, comes here and not to the handler that would kill the process.
        """
        self.should_exit = True

    def _report_accept(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        """Log that a connection could not be accepted; asyncio says so thousands of times."""
        error = context.get("exception")
        if isinstance(error, OSError) and "accept" in context["message"]:
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            self._report("accept_failed", reason=reason)
        else:
            loop.default_exception_handler(context)

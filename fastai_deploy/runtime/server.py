"""The model server: ``python -m fdeploy_runtime.server --model-dir DIR --announce FILE``."""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import uvicorn

from . import hardware
from .app import ROUTES, App
from .backends import leave_out_converter
from .batching import Batcher
from .bundle import ModelError
from .connections import ConnectionLimits, Connections, most_connections
from .contract import Encoded, Outcome
from .hardware import freeze_gc, plan_threads
from .host_check import CLIENTS_VARIABLE, HostCheck
from .http_connection import Connection, Direct
from .loading import VERSION_VARIABLE, Loaded, load
from .log import LOG_VARIABLE, Log, LoggingBridge, LogRotation, OncePerMinute
from .request_queue import Capacity

HOST = "127.0.0.1"
_BACKLOG = 2048
# asyncio accepts this many in one step, each with a descriptor, before it checks any of them.
_ACCEPTED_AT_ONCE = 100


def bind(port: int, host: str = HOST) -> socket.socket:
    """A socket bound to an address, which refuses connections until it listens.

    Port 0 takes a free one. Raises OSError if another socket listens on the port.
    """
    # asyncio disables Nagle's delay (40 ms per answer) only if the protocol is given explicitly.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def listen(port: int) -> socket.socket:
    """A socket listening on 127.0.0.1; port 0 takes a free one. Raises OSError."""
    listener = bind(port)
    try:
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class HttpServer(uvicorn.Server):
    """Serves an ASGI application until ``end`` is called.

    ``ready`` is called when requests are answered; ``grace`` is how many seconds requests in flight
    get at the end. ``hosts`` and ``direct`` are those of Connection. ``log_file`` is the
    file of stdout and stderr, if it is to be rotated.
    """

    def __init__(
        self,
        app: Any,
        log: Log,
        *,
        ready: Callable[[], None],
        grace: int,
        hosts: Optional[HostCheck] = None,
        direct: Optional[Direct] = None,
        log_file: Optional[Path] = None,
        limits: Optional[ConnectionLimits] = None,
    ) -> None:
        limits = limits or ConnectionLimits(most_connections())
        self._ready = ready
        self._report = OncePerMinute(log)
        connections = Connections(limits, self._report, time.monotonic)
        protocol: Any = functools.partial(
            Connection, connections=connections, hosts=hosts, direct=direct
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
        """Start serving."""
        asyncio.get_running_loop().set_exception_handler(self._report_accept)
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_BACKLOG)
        self._ready()

    def end(self, *_signal: object) -> None:
        """Signal handler: finish what is in flight, then return from ``serve``.

        uvicorn installs its own handlers while it serves, and raises the signal again afterwards;
        that signal comes here too, not to the handler that would kill the process.
        """
        self.should_exit = True

    def _report_accept(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        """Log that a connection could not be accepted; asyncio reports it thousands of times."""
        error = context.get("exception")
        if isinstance(error, OSError) and "accept" in context["message"]:
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            self._report("accept_failed", reason=reason)
        else:
            loop.default_exception_handler(context)


EXIT_MODEL = 3
EXIT_PORT = 4

_READERS = 2
_STDIN = 0


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the server until a signal ends it. Returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.announce and not options.announce.parent.is_dir():
        parser.error(f"the folder {options.announce.parent} for --announce does not exist")
    if options.until_eof:
        _end_with_stdin()
    log = Log(sys.stderr)
    logging.getLogger().addHandler(LoggingBridge(log))
    leave_out_converter()

    def port_refused(error: OSError) -> int:
        log("refused", reason=f"port {options.port} cannot be used: {error.strerror}")
        return EXIT_PORT

    try:
        listener = bind(options.port, options.host)
    except OSError as error:
        return port_refused(error)
    with listener:
        started = time.perf_counter()
        found = hardware.detect()
        planned = plan_threads(found)
        threads = options.threads or planned.threads
        try:
            loaded = load(
                options.model_dir,
                found,
                threads,
                alone=options.alone,
                most_runs=options.workers or threads,
                version=os.environ.get(VERSION_VARIABLE),
            )
        except ModelError as error:
            log("refused", reason=str(error))
            return EXIT_MODEL
        workers = options.workers or max(planned.workers, loaded.runs)
        freeze_gc()
        try:
            # Not before: until the model answers, whoever asks is refused instead of kept waiting.
            listener.listen(_BACKLOG)
        except OSError as error:  # two sockets may bind a port as long as neither listens
            return port_refused(error)

        def ready() -> None:
            port = listener.getsockname()[1]
            if options.announce:
                _announce(options.announce, port)
            log(
                "ready",
                port=port,
                seconds=round(time.perf_counter() - started, 2),
                threads=threads,
                workers=workers,
                **loaded.facts,
                tokens_per_second=round(loaded.tokens_per_second),
            )

        asyncio.run(_serve(loaded, workers, listener, options, log, ready=ready))
    log("ended")
    return 0


async def _serve(
    loaded: Loaded,
    workers: int,
    listener: socket.socket,
    options: argparse.Namespace,
    log: Log,
    *,
    ready: Callable[[], None],
) -> None:
    predictor = loaded.predictor
    batcher: Batcher[Encoded, Outcome] = Batcher(
        predictor.run,
        predictor.limits,
        Capacity(loaded.tokens_per_second, options.max_wait, options.timeout),
        workers=workers,
        deliver=asyncio.get_running_loop().call_soon_threadsafe,
    )
    clients = os.environ.get(CLIENTS_VARIABLE)
    hosts = HostCheck(**json.loads(clients)) if clients else None
    log_file = os.environ.get(LOG_VARIABLE)
    with batcher, ThreadPoolExecutor(_READERS) as readers:
        app = App(
            predictor, batcher, readers, log, timeout=options.timeout, aliases=dict(options.alias)
        )
        server = HttpServer(
            app,
            log,
            ready=ready,
            grace=int(options.timeout) + 1,
            hosts=hosts,
            direct=app,
            log_file=Path(log_file) if log_file else None,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.end)
        await server.serve(sockets=[listener])


def _end_with_stdin() -> None:
    """End this process when standard input is closed, at the latest by the end of its parent."""

    def wait() -> None:
        # Not sys.stdin: its lock, held by a thread that waits, makes the end of Python fatal.
        while os.read(_STDIN, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()


def _alias(text: str) -> Tuple[str, str]:
    path, _, route = text.partition("=")
    if route not in ROUTES:
        raise argparse.ArgumentTypeError(f"{route!r} is not one of {', '.join(ROUTES)}")
    return path, route


def _announce(path: Path, port: int) -> None:
    """Write the file completely or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps({"pid": os.getpid(), "port": port}))
    partial.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fdeploy_runtime.server", allow_abbrev=False)
    parser.add_argument("--model-dir", type=Path, required=True, help="the unpacked artifact")
    parser.add_argument("--announce", type=Path, help="file to write when ready")
    parser.add_argument("--host", default=HOST, help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--home", help="the owner of this server, to identify it in process lists")
    parser.add_argument(
        "--threads", type=int, help="threads of the model; default: the number of cores"
    )
    parser.add_argument("--workers", type=int, help="concurrent runs of the model")
    parser.add_argument("--alone", action="store_true", help="no other process needs the cores")
    parser.add_argument(
        "--timeout",
        type=float,
        default=float(os.environ.get("FDEPLOY_TIMEOUT", "60")),
        help="seconds; default FDEPLOY_TIMEOUT, else 60, as for InvokeEndpoint",
    )
    parser.add_argument(
        "--alias",
        type=_alias,
        action="append",
        default=[],
        metavar="PATH=ROUTE",
        help="another path of a route, for hosts that ask other paths than SageMaker",
    )
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input is closed"
    )
    parser.add_argument("--max-wait", type=float, default=5.0, help="maximum seconds in the queue")
    return parser


if __name__ == "__main__":
    sys.exit(main())

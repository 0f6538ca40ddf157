"""The model server's process: ``python -m fdeploy_runtime.server --model-dir DIR --announce FILE``.

    bind -> load, verify, self-check -> serve -> announce -> (SIGTERM) -> answer what is left -> end

It listens on 127.0.0.1 only. FILE appears when the server is ready, as ``{"pid": ..., "port":
...}``; until then connections wait. Events go to stderr, one JSON object a line. Exit codes: 0
ended by SIGTERM or SIGINT, 2 wrong arguments, 3 the model cannot be served, 4 the port is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, List, Optional

from . import hardware
from .app import App
from .batching import Batcher
from .bundle import ModelError
from .contract import Outcome
from .encoded import Encoded
from .host_check import CLIENTS_VARIABLE, HostCheck
from .http_server import HttpServer, listen
from .loading import VERSION_VARIABLE, Loaded, load
from .log import LOG_VARIABLE, Log, LoggingBridge
from .memory import let_go
from .planning import plan
from .waiting_line import Capacity

EXIT_MODEL = 3
EXIT_PORT = 4

_READERS = 2


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the server until a signal ends it; the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.announce.parent.is_dir():
        parser.error(f"there is no folder {options.announce.parent} to announce in")
    log = Log(sys.stderr)
    logging.getLogger().addHandler(LoggingBridge(log))
    try:
        listener = listen(options.port)
    except OSError as error:
        log("refused", reason=f"port {options.port} cannot be used: {error.strerror}")
        return EXIT_PORT
    with listener:
        started = time.perf_counter()
        found = hardware.detect()
        planned = plan(found)
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
        let_go()

        def ready() -> None:
            port = listener.getsockname()[1]
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
        app = App(predictor, batcher, readers, log, timeout=options.timeout)
        server = HttpServer(
            app,
            log,
            ready=ready,
            grace=int(options.timeout) + 1,
            hosts=hosts,
            refused_early=app.refused,
            log_file=Path(log_file) if log_file else None,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.end)
        await server.serve(sockets=[listener])


def _announce(path: Path, port: int) -> None:
    """Write the file whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps({"pid": os.getpid(), "port": port}))
    partial.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fdeploy_runtime.server", allow_abbrev=False)
    parser.add_argument("--model-dir", type=Path, required=True, help="the unpacked artifact")
    parser.add_argument("--announce", type=Path, required=True, help="file to write when ready")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--home", help="whose server this is; only to be read in process lists")
    parser.add_argument("--threads", type=int, help="of the model; by default the cores")
    parser.add_argument("--workers", type=int, help="runs of the model at a time")
    parser.add_argument("--alone", action="store_true", help="nothing else needs the cores")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds; InvokeEndpoint's 60")
    parser.add_argument("--max-wait", type=float, default=5.0, help="seconds in the queue, at most")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The model server as a process of its own, which is started again whenever it ends."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

from ..bundle import ModelError
from ..log import Log
from ..server import EXIT_MODEL

_SOON = 60.0  # seconds; a server that ends within them has not recovered from the end before
_MOST = 5  # such ends in a row
_POLL = 0.05  # seconds


class OwnServer:
    """Keeps ``command`` running, which is ``server.py`` without ``--announce`` and ``--until-eof``.

    A server that ends is started again at once; one that ends again within a minute, after a pause
    (``pause`` seconds, longer each time). If that does not help, or the model cannot be served,
    ``gave_up`` is called on a thread. The server ends with this process, however that ends. It logs
    to ``stderr``, by default this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Log,
        gave_up: Callable[[], None],
        *,
        environment: Mapping[str, str],
        stderr: Optional[int] = None,
        pause: float = 1.0,
    ) -> None:
        self._announced = Path(tempfile.mkdtemp(prefix="fdeploy-"), "announced.json")
        self._command = [*command, "--announce", str(self._announced), "--until-eof"]
        self._log = log
        self._gave_up = gave_up
        self._environment = dict(environment)
        self._stderr = stderr
        self._pause = pause
        self._ending = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, name="own-server", daemon=True)
        self._keeper.start()

    def until_ready(self) -> None:
        """Return when it answers. Raises ModelError after ``gave_up`` has returned."""
        while not self._announced.exists():
            if not self._keeper.is_alive():
                raise ModelError("the model server does not stay up; its log says why")
            time.sleep(_POLL)

    def close(self) -> None:
        """End the server, and wait for it."""
        self._ending.set()
        self._process.terminate()
        self._keeper.join()

    def _start(self) -> subprocess.Popen[bytes]:
        # The server reads this pipe until it is closed; nothing is written to it.
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stderr=self._stderr, env=self._environment
        )

    def _keep(self) -> None:
        try:
            self._restart()
        finally:
            shutil.rmtree(self._announced.parent, ignore_errors=True)
            if not self._ending.is_set():
                self._gave_up()

    def _restart(self) -> None:
        ends = 0
        while True:
            started = time.monotonic()
            with self._process as process:
                code = process.wait()
            seconds = time.monotonic() - started
            ends = ends + 1 if seconds < _SOON else 1
            if self._ending.is_set():
                return
            self._log("server_ended", code=code, seconds=round(seconds, 1), ends=ends)
            if code == EXIT_MODEL or ends > _MOST:
                return
            # What keeps it from serving may pass: a port that its predecessor still holds.
            self._ending.wait((ends - 1) * self._pause)
            self._process = self._start()
            if self._ending.is_set():
                self._process.terminate()

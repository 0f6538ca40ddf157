"""The container of an endpoint: the artifact's own model server, in a separate process.

It is treated as SageMaker treats a container (AWS: "Use Your Own Inference Code with Hosting
Services"): the artifact is unpacked into the model folder, the server must answer ``GET /ping``
with 200, and its output goes to the endpoint's log group.

The image of an account's own repository brings the serving code; of its files, only that is used,
because the libraries are those of this machine.

In AWS's Ray Serve image, an adapter asks Ray for ``/ping``, or what ``RAYSERVE_BACKEND_URL`` names
(aws/deep-learning-containers, ``scripts/docker/ray/sagemaker_serve.py``). Only artifacts with a
server of their own listen there.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_HOST = "127.0.0.1"
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
_POLL_SECONDS = 0.02
_LOG_LINES = 50
_CODE = "fdeploy_runtime"


class NotHealthy(Exception):
    """The server did not come up; ``log`` are its last lines."""

    def __init__(self, log: list[str]) -> None:
        super().__init__("the container did not pass the ping health check")
        self.log = log


class Container:
    """One running model server; ``python`` is the interpreter that has its packages."""

    def __init__(
        self,
        artifact: bytes,
        environment: Mapping[str, str],
        python: str,
        layers: Sequence[bytes] = (),
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="double-model-"))
        self._log = self._folder / "container.log"
        self._announce = self._folder / "announce.json"
        self._artifact = artifact
        self._environment = dict(environment)
        self._python = python
        self._layers = layers
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self, seconds: float) -> list[str]:
        """Start it and wait until it is healthy; its log so far. Raises NotHealthy."""
        try:
            self._unpack(self._artifact, self._folder)
            self._check_backend()
            self._run(seconds)
        except BaseException:
            self.stop()
            raise
        return self._lines()

    def stop(self) -> None:
        """End the server and remove its files."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def invoke(
        self, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> tuple[int, str, bytes]:
        """Status, content type and body of ``POST /invocations``. Raises OSError."""
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=seconds)
        try:
            connection.request("POST", "/invocations", body, dict(headers))
            response = connection.getresponse()
            kind = response.headers.get("content-type", "application/octet-stream")
            return response.status, kind, response.read()
        finally:
            connection.close()

    def _code(self) -> Path:
        """The folder of the serving code: in an image of the account, or in the artifact."""
        if not self._layers:
            return self._folder / "code"
        root = self._folder / "image"
        for layer in self._layers:
            self._unpack(layer, root, only=f"{_CODE}/")
        found = next(root.rglob(f"{_CODE}/server.py"), None)
        if found is None:
            raise NotHealthy([f"exec: {_CODE}: not found"])
        return found.parents[1]

    def _unpack(self, packed: bytes, folder: Path, only: str = "") -> None:
        try:
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
                members = [each for each in tar if only in each.name]
                if hasattr(tarfile, "data_filter"):
                    tar.extractall(folder, members, filter="data")
                else:  # a Python before 3.10.12 or 3.11.4, such as Debian 12's
                    tar.extractall(folder, members)  # noqa: S202 - it is the project's own
        except (tarfile.TarError, OSError, EOFError) as error:
            raise NotHealthy([f"the artifact cannot be unpacked: {error}"]) from None

    def _check_backend(self) -> None:
        own = self._folder / "code" / "model_server.py"
        if "RAYSERVE_BACKEND_URL" in self._environment and not own.exists():
            raise NotHealthy(["Health check failed: All connection attempts failed"])

    def _run(self, seconds: float) -> None:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(self._python, "-m", "fdeploy_runtime.server"),
                    *("--model-dir", str(self._folder), "--announce", str(self._announce)),
                ],
                env={**inherited, **self._environment, "PYTHONPATH": str(self._code())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        while not self._announce.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NotHealthy(self._lines())
            time.sleep(_POLL_SECONDS)
        self.port = int(json.loads(self._announce.read_bytes())["port"])
        if not self._ping():
            raise NotHealthy(self._lines())

    def _ping(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=10)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _lines(self) -> list[str]:
        try:
            return self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        except OSError:
            return []

"""The double for tests: start it, inject faults, read its journal of calls, stop it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.loaders import Loader, create_loader

from tests.aws_double import venv
from tests.aws_double.faults import Fault

REGION = "eu-central-1"
_START_SECONDS = 60.0


def _loader() -> Loader:
    loader: Loader = create_loader(None)
    return loader


@dataclass(frozen=True)
class Double:
    """The running double at ``url``."""

    url: str
    loader: Loader = field(default_factory=_loader)

    def session(self, account: str, region: str = REGION) -> boto3.Session:
        """A session whose every client speaks to the double, as the account of 12 digits."""
        return DoubleSession(self, account, region)

    def environment(self, account: str, region: str = REGION) -> dict[str, str]:
        """The variables with which any AWS tool speaks to the double.

        One that uses botocore checks its requests strictly, by botocore's variable for plugins.
        """
        return {
            "BOTOCORE_EXPERIMENTAL__PLUGINS": "strict=tests.aws_double.strict",
            "PYTHONPATH": str(venv.ROOT),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": account,
            "AWS_SECRET_ACCESS_KEY": "of-the-double",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            # No test downloads a base: one that wants an image of the own server brings one.
            "FDEPLOY_PACKAGE_BASE_IMAGE": "nowhere.example/NO/BASE",
        }

    def do_wrong(self, account: str, *faults: Fault) -> None:
        """Inject these faults into an account's calls from now on, instead of earlier ones."""
        self._ask("POST", f"{account}/faults", [asdict(fault) for fault in faults])

    def calls(self, account: str) -> list[dict[str, Any]]:
        """The calls of the account's fdeploy since :meth:`do_wrong`."""
        calls: list[dict[str, Any]] = self._ask("GET", f"{account}/calls")
        return calls

    def actions(self, account: str) -> list[str]:
        """The IAM actions that the account was asked for while its policies were enforced."""
        actions: list[str] = self._ask("GET", f"{account}/actions")
        return actions

    def behave(self, account: str, region: str = REGION, **behaviour: Any) -> None:
        """Change how SageMaker behaves for an account: see ``sagemaker.Behaviour``."""
        self._ask("POST", f"{account}/{region}/behaviour", behaviour)

    def run_schedules(self, account: str, now: datetime, region: str = REGION) -> list[str]:
        """Let the time be ``now`` for EventBridge Scheduler; the stacks that it deletes."""
        stacks: list[str] = self._ask("POST", f"{account}/{region}/time", now.isoformat())
        return stacks

    def end(self, account: str) -> None:
        """Let the account's model servers end; nobody uses the account again."""
        self._ask("POST", f"{account}/end")

    def _ask(self, method: str, path: str, values: Any = None) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, f"/_double/{path}", json.dumps(values).encode())
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class DoubleSession(boto3.Session):  # type: ignore[misc]
    """A session with one endpoint for all services."""

    def __init__(self, double: Double, account: str, region: str) -> None:
        core = botocore.session.Session()
        # Each session would read the services' models anew, which takes most of a test.
        core.register_component("data_loader", double.loader)
        super().__init__(
            aws_access_key_id=account,
            aws_secret_access_key="of-the-double",
            region_name=region,
            botocore_session=core,
        )
        self._url = double.url
        self._clients: dict[str, Any] = {}

    def client(self, service_name: str, *arguments: Any, **options: Any) -> Any:
        """A client; one without options is made once, which takes 20 ms."""
        if arguments or options:
            given = {"endpoint_url": self._url, **options}
            return super().client(service_name, *arguments, **given)
        if service_name not in self._clients:
            made = super().client(service_name, endpoint_url=self._url)
            self._clients[service_name] = made
        return self._clients[service_name]


@contextlib.contextmanager
def running_double() -> Iterator[Double]:
    """The double, running inside the block."""
    with tempfile.TemporaryDirectory(prefix="double-") as folder:
        announce = Path(folder) / "announce.json"
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(
                [
                    *(venv.python(), "-m", "tests.aws_double.serve"),
                    *("--announce", announce, "--python", sys.executable),
                ],
                cwd=venv.ROOT,
                # What its functions and model servers leave behind goes with the folder.
                env={**os.environ, "TMPDIR": folder},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
            try:
                yield Double(f"http://127.0.0.1:{_port(process, announce, Path(log.name))}")
            finally:
                assert process.stdin is not None
                process.stdin.close()  # which ends it
                process.wait(timeout=30)


def _port(process: subprocess.Popen[bytes], announce: Path, log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while not announce.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the double did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.01)
    return int(json.loads(announce.read_bytes())["port"])

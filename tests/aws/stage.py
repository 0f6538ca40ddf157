"""A user's project folder, with an account of the double for the real commands."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from tests.aws_double.account import everything
from tests.aws_double.process import Double
from tests.conftest import Fdeploy
from tests.packaged import Model

ACCOUNTS = itertools.count(1)


@dataclass
class Stage:
    """A project folder in which ``package`` has run, and an account of the double."""

    double: Double
    folder: Path
    account: str

    @property
    def environ(self) -> dict[str, str]:
        return {**self.double.environment(self.account), "FDEPLOY_PROJECT_NAME": "demo"}

    @property
    def run(self) -> Fdeploy:
        return Fdeploy(self.folder, self.environ)

    @cached_property
    def _session(self) -> boto3.Session:
        return self.double.session(self.account)

    def client(self, service: str) -> Any:
        make: Any = self._session.client
        return make(service)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The running command."""
        with subprocess.Popen(
            [sys.executable, "-m", "fastai_deploy", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            yield process

    def everything(self) -> list[str]:
        return everything(self._session)


def fresh_account() -> str:
    """An account id of 12 digits that no other test uses."""
    return f"77{os.getpid() % 10**5:05}{next(ACCOUNTS):05}"


Open = Callable[[Model, str], Stage]

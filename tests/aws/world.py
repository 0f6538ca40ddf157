"""An account of the double, with a project and the artifacts to deploy."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.public_api import PublicApi
from fastai_deploy.aws.session import Aws
from fastai_deploy.progress import Event, Reporter
from fastai_deploy.settings import Settings, load_settings
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.aws.serving import FindImage
from fastai_deploy.targets.aws.stacks import SettingsStackDefinitions
from fastai_deploy.targets.aws.target import AwsTarget
from tests.aws_double.account import everything
from tests.aws_double.process import REGION, Double
from tests.aws_double.strict import check_strictly

PROJECT = "demo"
_numbers = itertools.count(1)


@dataclass
class World:
    """One account, one stage of a project, and fdeploy's events."""

    double: Double
    root: Path
    account: str = field(default_factory=lambda: f"{os.getpid() % 10**6:06}{next(_numbers):06}")
    region: str = REGION
    stage: str = "dev"
    attempts: int = 2
    read_seconds: float = 70.0
    operator: Operator = field(default_factory=lambda: Operator("ada", "laptop"))
    clock: Callable[[], float] = time.monotonic
    longest_sleep: float = 0.02  # seconds
    events: list[Event] = field(default_factory=list)
    flags: dict[tuple[str, str], Any] = field(default_factory=dict)
    find_image: FindImage | None = None  # no image is made of a base from elsewhere

    @property
    def owner(self) -> Owner:
        return Owner(PROJECT, self.stage)

    @cached_property
    def _beside(self) -> boto3.Session:
        """The test's own session: its calls are not counted, and meet no fault."""
        return self.double.session(self.account, self.region)

    def client(self, service: str) -> Any:
        """A client of the test's own session."""
        make: Any = self._beside.client
        return make(service)

    @property
    def settings(self) -> Settings:
        wanted = {("project", "name"): PROJECT, ("project", "region"): self.region, **self.flags}
        file = self.root / "fdeploy.toml"
        file.write_text(f"[stages.{self.stage}]\n" if self.stage != "dev" else "")
        return load_settings(
            folder=self.root,
            stage=self.stage,
            environ={},
            flags={key: ("a test", value) for key, value in wanted.items()},
        )

    def aws(self) -> Aws:
        session = self.double.session(self.account, self.region)
        check_strictly(session)
        return Aws(
            session,
            region=self.region,
            clock=self.clock,
            sleep=lambda seconds: time.sleep(min(seconds, self.longest_sleep)),
            attempts=self.attempts,
            read_seconds=self.read_seconds,
        )

    def target(self, report: Reporter | None = None) -> AwsTarget:
        """A new target, as each command creates it, without state from earlier calls."""
        aws, bundle = self.aws(), self.root / "bundle"
        return AwsTarget(
            Context(
                settings=self.settings,
                home=self.root / "home",
                bundle=bundle,
                report=report or self.events.append,
                aws=aws,
                definitions=SettingsStackDefinitions(self.settings, aws, bundle),
                public=PublicApi(self.double.url),
                operator=self.operator,
                find_image=self.find_image,
            )
        )

    def everything(self) -> list[str]:
        return everything(self._beside)

    @property
    def said(self) -> str:
        """fdeploy's events so far, one per line."""
        return "\n".join(getattr(event, "message", "") for event in self.events)

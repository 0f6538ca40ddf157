"""An account of the double, a project in it, and the artifacts to deploy."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3

from fastai_deploy.artifact import write_artifact
from fastai_deploy.aws.image_tables import installed_tables
from fastai_deploy.aws.ownership import Operator, Owner
from fastai_deploy.aws.public_api import PublicApi
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import ParityError
from fastai_deploy.progress import Event, Reporter
from fastai_deploy.records import Artifact
from fastai_deploy.settings import Settings, load_settings
from fastai_deploy.targets.aws.blueprints import SettingsBlueprints
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.aws.target import AwsTarget
from fastai_deploy.targets.base import Invoke
from fastai_deploy.workspace import Workspace
from tests.aws_double.account import everything
from tests.aws_double.process import REGION, Double
from tests.aws_double.strict import check_strictly
from tests.runtime.bundles import GOLDEN_TEXTS, TinyBundle, write_bundle

PROJECT = "demo"
TOLERANCE = 1e-4
_LONGEST_SLEEP = 0.02
_numbers = itertools.count(1)
TABLES = installed_tables()


@dataclass(frozen=True)
class Model:
    """A bundle and its artifact; ``verify`` asks the goldens through an invoke."""

    bundle: TinyBundle
    artifact: Artifact

    def verify(self, invoke: Invoke) -> None:
        for text in GOLDEN_TEXTS:
            answer = invoke({"text": text})
            assert answer["model"]["version"] == self.artifact.version
            for label, expected in self.bundle.expected(text).items():
                if abs(answer["probabilities"][label] - expected) > TOLERANCE:
                    raise ParityError(f"{text!r} is answered otherwise", hint="none")


def write_model(folder: Path, name: str, **options: Any) -> Model:
    """A tiny model, packed as ``package`` packs it."""
    bundle = write_bundle(folder / name, **options)
    return pack(bundle, folder / f"{name}.tar.gz")


def pack(bundle: TinyBundle, path: Path) -> Model:
    """A bundle, packed."""
    versions = {"numpy": "2", "onnxruntime": "1", "tokenizers": "0"}
    learner = {"file": "learner.pkl", "sha256": "0" * 64, "bytes": 1, "fastai": "2"}
    manifest = json.loads((bundle.folder / "manifest.json").read_bytes())
    bundle.edit_manifest(
        provenance={"learner": learner, "converter": versions},
        model={**manifest["model"], "architecture": "tiny", "parameters": 1},
    )
    written = write_artifact(
        bundle.folder, path, name=path.name.partition(".")[0], told=lambda _done, _total: None
    )
    return Model(bundle, Artifact(str(path), written.sha256, written.bytes, "test"))


def bring(model: Model, folder: Path, stage: str = "dev") -> Path:
    """A project folder in which ``package`` has run."""
    workspace = Workspace(folder, stage)
    workspace.folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model.bundle.folder, workspace.bundle, dirs_exist_ok=True)
    shutil.copyfile(model.artifact.path, workspace.artifact)
    workspace.save(replace(model.artifact, path=str(workspace.artifact)))
    return folder


@dataclass
class World:
    """One account, one stage of a project, and what fdeploy said."""

    double: Double
    root: Path
    account: str = field(default_factory=lambda: f"{os.getpid() % 10**6:06}{next(_numbers):06}")
    region: str = REGION
    stage: str = "dev"
    attempts: int = 2
    read_seconds: float = 70.0
    operator: Operator = field(default_factory=lambda: Operator("ada", "laptop"))
    clock: Callable[[], float] = time.monotonic
    events: list[Event] = field(default_factory=list)
    flags: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def owner(self) -> Owner:
        return Owner(PROJECT, self.stage)

    @property
    def session(self) -> boto3.Session:
        return self.double.session(self.account, self.region)

    def client(self, service: str) -> Any:
        """A client beside fdeploy's: its calls are not counted, and meet no fault."""
        make: Any = self.session.client
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
        session = self.session
        check_strictly(session)
        return Aws(
            session,
            region=self.region,
            clock=self.clock,
            sleep=lambda seconds: time.sleep(min(seconds, _LONGEST_SLEEP)),
            attempts=self.attempts,
            read_seconds=self.read_seconds,
        )

    def target(self, report: Reporter | None = None) -> AwsTarget:
        """A target as a new command makes it: it remembers nothing."""
        aws = self.aws()
        return AwsTarget(
            Context(
                settings=self.settings,
                home=self.root / "home",
                report=report or self.events.append,
                aws=aws,
                blueprints=SettingsBlueprints(self.settings, aws, TABLES),
                public=PublicApi(self.double.url),
                operator=self.operator,
            )
        )

    def everything(self) -> list[str]:
        return everything(self.session)

    @property
    def said(self) -> str:
        """What fdeploy has said so far, one event a line."""
        return "\n".join(getattr(event, "message", "") for event in self.events)

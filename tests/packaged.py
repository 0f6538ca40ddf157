"""Tiny models as ``package`` writes them, in a folder where the later stages can run."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastai_deploy.errors import ParityError
from fastai_deploy.packaging.artifact import write_artifact
from fastai_deploy.packaging.container_files import BACKEND_URL
from fastai_deploy.packaging.wheels import Container, Wheel
from fastai_deploy.parity import Invoke
from fastai_deploy.records import Artifact
from fastai_deploy.workspace import Workspace
from tests.runtime.bundles import GOLDEN_TEXTS, TinyBundle, write_bundle

TOLERANCE = 1e-4
# `create-api` tests the throttle with more requests than a burst. With the default burst these are
# hundreds, two thirds of the time of an `up`; tests/flow/test_flow.py covers the default.
SMALL_BURST = "[api]\nrate = 5\nburst = 20\n"


@dataclass(frozen=True)
class Model:
    """A bundle and its artifact; ``verify`` checks the goldens with an invoke function."""

    bundle: TinyBundle
    artifact: Artifact

    def verify(self, invoke: Invoke) -> None:
        for text in GOLDEN_TEXTS:
            answer = invoke({"text": text})
            assert answer["model"]["version"] == self.artifact.version
            for label, expected in self.bundle.expected(text).items():
                if abs(answer["probabilities"][label] - expected) > TOLERANCE:
                    raise ParityError(f"{text!r} is answered otherwise", hint="none")


def write_model(
    folder: Path, name: str, *, container: Container | None = None, **options: Any
) -> Model:
    """A tiny model, packed as ``package`` packs it, without wheels."""
    bundle = write_bundle(folder / name, **options)
    return pack(bundle, folder / f"{name}.tar.gz", container)


def pack(
    bundle: TinyBundle,
    path: Path,
    container: Container | None = None,
    wheels: Sequence[Wheel] = (),
) -> Model:
    """A bundle, packed; with a container for that."""
    versions = {"numpy": "2", "onnxruntime": "1", "tokenizers": "0"}
    learner = {"file": "learner.pkl", "sha256": "0" * 64, "bytes": 1, "fastai": "2"}
    manifest = json.loads((bundle.folder / "manifest.json").read_bytes())
    bundle.edit_manifest(
        provenance={"learner": learner, "converter": versions},
        model={**manifest["model"], "architecture": "tiny", "parameters": 1},
    )
    written = write_artifact(
        bundle.folder,
        path,
        name=path.name.partition(".")[0],
        notify=lambda _done, _total: None,
        container=container,
        wheels=wheels,
    )
    artifact = Artifact(str(path), written.sha256, written.bytes, "test", backend_url=BACKEND_URL)
    if container and container.complete:
        artifact = replace(
            artifact, backend_url="", server="fdeploy", image_tag=container.image_tag
        )
    return Model(bundle, artifact)


def of_earlier_version(model: Model, path: Path) -> Model:
    """The model as an earlier version packed it: it answers through Ray, without its own port."""
    with tarfile.open(model.artifact.path) as packed, tarfile.open(path, "w:gz") as written:
        for member in packed:
            if member.name != "code/model_server.py":
                written.addfile(member, packed.extractfile(member))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(model.bundle, Artifact(str(path), sha256, path.stat().st_size, "test"))


def bring(model: Model, folder: Path, stage: str = "dev") -> Path:
    """A project folder in which ``package`` has run."""
    workspace = Workspace(folder, stage)
    workspace.folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model.bundle.folder, workspace.bundle, dirs_exist_ok=True)
    shutil.copyfile(model.artifact.path, workspace.artifact)
    workspace.save(replace(model.artifact, path=str(workspace.artifact)))
    return folder

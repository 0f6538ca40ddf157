"""`fdeploy image`: the real command, on a small base and the real wheels."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastai_deploy.image.build import BASE_DIGEST
from tests.conftest import Fdeploy
from tests.flow.conftest import Exports
from tests.flow.learners import CONVERTIBLE
from tests.image.bases import put_base
from tests.registry import Registry, running_registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        put_base(running)
        yield running


def configure(fdeploy: Fdeploy, base: str) -> None:
    path = fdeploy.folder / "fdeploy.toml"
    path.write_text(f'[project]\nname = "demo"\n[package]\nbase_image = "{base}"\n')


def image_of(archive: Path) -> tuple[dict[str, object], set[str]]:
    """The configuration of the image, and the files in it."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            content = tar.extractfile(name)
            assert content is not None
            return content.read()

        (loaded,) = json.loads(read("manifest.json"))
        config = json.loads(read(loaded["Config"]))
        paths = set()
        for name in loaded["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(name)) as layer:
                paths |= {info.name for info in layer if info.isreg()}
    return config, paths


def test_an_image_with_the_model(fdeploy: Fdeploy, exports: Exports, registry: Registry) -> None:
    exports.bring(CONVERTIBLE[2], fdeploy.folder)
    configure(fdeploy, f"{registry.address}/library/python:3.13-slim")
    options = ("--with-model", "--machine", "x86_64", "--sbom", "sbom.json", "--json")
    made = fdeploy.ok("image", "--output", "image.tar", *options).json
    assert made["name"] == f"demo-dev:{made['model']}"
    archive = fdeploy.folder / "image.tar"
    assert archive.stat().st_size == made["bytes"]
    config, paths = image_of(archive)
    assert {"opt/ml/model/manifest.json", "opt/ml/model/model.onnx"} <= paths
    assert "opt/fdeploy/packages/onnxruntime/__init__.py" in paths
    assert not any(path.startswith("opt/ml/model/code/fdeploy_runtime") for path in paths)
    assert config["config"]["User"] == "1000:1000"  # type: ignore[index]
    listed = json.loads((fdeploy.folder / "sbom.json").read_bytes())
    assert {"numpy", "onnxruntime", "uvicorn"} <= {each["name"] for each in listed["components"]}

    # A newer build of the base is taken when it is asked for.
    first = config["config"]["Labels"][BASE_DIGEST]  # type: ignore[index]
    second = put_base(registry, config={"created": "2026-12-01T00:00:00Z"})
    again = fdeploy.ok("image", "--output", "again.tar", *options).json
    assert again["base"].endswith(first)
    assert again["digest"] == made["digest"]
    assert archive.read_bytes() == (fdeploy.folder / "again.tar").read_bytes()
    newer = fdeploy.ok("image", "--output", "again.tar", "--pull", "--overwrite", *options).json
    assert newer["base"].endswith(second)


def test_what_is_refused(fdeploy: Fdeploy, exports: Exports, registry: Registry) -> None:
    configure(fdeploy, f"{registry.address}/library/python:gone")
    assert fdeploy("image", "--output", "i.tar", "--with-model", "--json").error["exit_code"] == 7
    exports.bring(CONVERTIBLE[2], fdeploy.folder)
    configure(fdeploy, f"{registry.address}/library/python:gone")
    error = fdeploy("image", "--output", "i.tar", "--json").error
    assert error["code"] == "image"
    assert "has no image gone" in error["message"]
    error = fdeploy("image", "--output", ".", "--overwrite", "--json").error
    assert (error["code"], error["message"]) == ("usage", ". is a folder")
    (fdeploy.folder / "i.tar").write_text("mine")
    error = fdeploy("image", "--output", "i.tar", "--json").error
    assert (error["code"], (fdeploy.folder / "i.tar").read_text()) == ("usage", "mine")

"""The image: the same bytes for the same input, what is in it, and how it is pushed."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from fastai_deploy.errors import HashMismatch, ImageError
from fastai_deploy.files import sha256
from fastai_deploy.image.archive import write_archive
from fastai_deploy.image.build import BASE_DIGEST, BASE_NAME, BuiltImage, Model, ServingImage
from fastai_deploy.image.bytecode import BYTECODE
from fastai_deploy.image.names import MANIFEST, OCI_MANIFEST, Destination
from tests.image.bases import SmallWheels, based, put_base
from tests.registry import Registry, Trouble, digest_of, running_registry


def image(
    registry: Registry,
    folder: Path,
    *,
    openvino: bool = False,
    python: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> ServingImage:
    base, store = based(registry, folder)
    return ServingImage(
        base.reference,
        "x86_64",
        lambda: base,
        store,
        notify,
        openvino=openvino,
        wheels=SmallWheels(folder / "wheels"),
        find=lambda _: python,
    )


def config_of(built: BuiltImage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(built.config)
    return found


def files_of(built: BuiltImage) -> dict[str, tarfile.TarInfo]:
    found = {}
    for path in built.paths:
        with tarfile.open(path) as tar:
            found.update({info.name: info for info in tar if info.isreg()})
    return found


def test_the_same_input_gives_the_same_bytes(registry: Registry, tmp_path: Path) -> None:
    put_base(registry)
    archives = []
    for number, umask in enumerate((0o022, 0o077)):
        before = os.umask(umask)
        try:
            made = image(registry, tmp_path / str(number))
            built = made.build()
            archive = tmp_path / f"{number}.tar"
            write_archive(built, "a:1", archive, made.machine, lambda *_: None)
        finally:
            os.umask(before)
        archives.append((made.tag, archive.read_bytes()))
    assert archives[0] == archives[1]


def test_what_is_in_the_image(registry: Registry, tmp_path: Path) -> None:
    put_base(registry)
    built = image(registry, tmp_path).build()
    found = files_of(built)
    assert "opt/fdeploy/packages/numpy/__init__.py" in found
    assert "opt/fdeploy/packages/numpy/more.py" in found
    assert not any("scripts" in path or path.endswith("/bin/numpy") for path in found)
    assert "opt/fdeploy/code/fdeploy_runtime/hosts/container.py" in found
    assert not any(path.startswith("opt/fdeploy/packages/openvino") for path in found)
    assert not any(path.startswith("opt/ml") for path in found)
    own = [info for path, info in found.items() if path.startswith("opt/fdeploy")]
    assert {(info.uid, info.gid, info.mtime, info.mode) for info in own} == {(0, 0, 0, 0o644)}


def test_bytecode_is_in_the_image_where_it_can_be_made_and_no_part_of_the_tag(
    registry: Registry, tmp_path: Path
) -> None:
    put_base(registry)
    said: list[str] = []
    python = Path(sys.executable)  # stands for Python 3.13
    compiled = image(registry, tmp_path, python=python, notify=said.append)
    path = f"{BYTECODE}/opt/fdeploy/code/fdeploy_runtime/server.{sys.implementation.cache_tag}.pyc"
    assert path in files_of(compiled.build())
    assert not any("there is no Python" in each for each in said)
    plain = image(registry, tmp_path, notify=said.append)
    assert not any(str(BYTECODE) in path for path in files_of(plain.build()))
    assert any("there is no Python 3.13 here" in each for each in said)
    assert plain.tag == compiled.tag


def test_the_list_of_contents(registry: Registry, tmp_path: Path) -> None:
    put_base(registry)
    built = image(registry, tmp_path).build()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(built.sbom.decode()) is None
    listed = {each["name"]: each for each in json.loads(built.sbom)["components"]}
    assert listed["numpy"]["licenses"] == [{"expression": "MIT"}]
    wheel = next((tmp_path / "wheels").glob("numpy-*"))
    assert listed["numpy"]["hashes"][0]["content"] == sha256(wheel)
    assert listed["host.example/python"]["version"] == "3.13-slim"


def test_openvino_is_there_where_it_is_needed(registry: Registry, tmp_path: Path) -> None:
    put_base(registry)
    lean, full = image(registry, tmp_path), image(registry, tmp_path, openvino=True)
    assert lean.tag != full.tag
    assert "opt/fdeploy/packages/openvino/__init__.py" in files_of(full.build())


def test_the_configuration(registry: Registry, tmp_path: Path) -> None:
    digest = put_base(registry)
    config = config_of(image(registry, tmp_path).build())
    run = config["config"]
    assert run["Entrypoint"] == [
        *("/usr/local/bin/python3.13", "-P", "-m", "fdeploy_runtime.hosts.container")
    ]
    assert run["Cmd"] == ["serve"]
    assert "8080/tcp" in run["ExposedPorts"]
    assert run["User"] == ""  # SageMaker expects root
    assert "PYTHON_VERSION=3.13.9" in run["Env"]  # of the base
    assert "ORT_DISABLE_TELEMETRY=1" in run["Env"]
    assert run["Labels"][BASE_DIGEST] == digest
    assert run["Labels"][BASE_NAME] == "host.example/python:3.13-slim"
    assert config["created"] == "2026-11-01T00:00:00Z"  # of the base


def test_the_manifest_is_one_that_sagemaker_reads(registry: Registry, tmp_path: Path) -> None:
    put_base(registry)
    built = image(registry, tmp_path).build()
    for media_type, family in ((MANIFEST, "vnd.docker."), (OCI_MANIFEST, "vnd.oci.")):
        document = built.manifest(media_type)
        manifest = json.loads(document.data)
        named = [manifest["config"], *manifest["layers"]]
        assert document.media_type == manifest["mediaType"]
        assert all(f"application/{family}" in each["mediaType"] for each in named)
        assert [each["digest"] for each in manifest["layers"]] == [
            digest_of(path.read_bytes()) for path in built.paths
        ]


def test_a_model_in_the_image(registry: Registry, tmp_path: Path) -> None:
    put_base(registry)
    artifact = tmp_path / "model.tar.gz"
    with tarfile.open(artifact, "w:gz") as tar:
        (tmp_path / "manifest.json").write_text("{}")
        tar.add(tmp_path / "manifest.json", "manifest.json")
    built = image(registry, tmp_path).build(Model(artifact, "0" * 64, "cafe"), user="1000:1000")
    assert files_of(built)["opt/ml/model/manifest.json"].size == 2
    run = config_of(built)["config"]
    assert "FDEPLOY_VERSION=cafe" in run["Env"]
    assert run["User"] == "1000:1000"


def test_the_tag_names_the_input(registry: Registry, tmp_path: Path) -> None:
    put_base(registry)
    first = image(registry, tmp_path).tag
    put_base(registry, config={"created": "2026-12-01T00:00:00Z"})
    second = image(registry, tmp_path).tag
    assert first != second
    assert first.startswith("0.1.0-x86_64-")


def destination(registry: Registry, repository: str = "fdeploy/demo") -> Destination:
    return Destination(registry.address, repository, "AWS", "secret", insecure=True)


@pytest.fixture
def ecr() -> Iterator[Registry]:
    def namespace(user: str, password: str) -> str | None:
        return "" if (user, password) == ("AWS", "secret") else None

    with running_registry(access="basic", namespace=namespace, redirects=True) as running:
        running.repository("fdeploy/demo", immutable=True)
        yield running


def uploads(registry: Registry) -> int:
    return sum(each.method == "PUT" and "/blobs/" in each.path for each in registry.asked)


def test_a_push_and_another_of_the_same(registry: Registry, ecr: Registry, tmp_path: Path) -> None:
    put_base(registry)
    made = image(registry, tmp_path)
    digest = made.push(destination(ecr))
    stored = ecr.repositories["fdeploy/demo"]
    assert stored.tags == {made.tag: digest}
    assert stored.manifests[digest][0] == MANIFEST
    # No layer is sent in vain only to learn that a password is needed.
    assert all(each.status != 401 for each in ecr.asked)
    ecr.trouble()
    newer = image(registry, tmp_path, openvino=True)
    newer.push(destination(ecr))
    assert uploads(ecr) == 3  # OpenVINO, the code with the list of contents, the configuration


def test_an_interrupted_push_goes_on(registry: Registry, ecr: Registry, tmp_path: Path) -> None:
    put_base(registry)
    made = image(registry, tmp_path)
    ecr.trouble(Trouble("400", method="PUT", path="/blobs/", skip=4, times=0))
    with pytest.raises(ImageError, match="answered 400"):
        made.push(destination(ecr))
    assert ecr.repositories["fdeploy/demo"].tags == {}
    there = len(ecr.repositories["fdeploy/demo"].blobs)
    assert there == 4
    ecr.trouble()
    made.push(destination(ecr))
    assert uploads(ecr) == len(ecr.repositories["fdeploy/demo"].blobs) - there


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble("429", method="POST", times=2, headers={"Retry-After": "0"}),
        Trouble("503", method="PUT", path="manifests", times=1),
        Trouble("reset", method="PUT", path="/blobs/", times=1),
        Trouble("lost", method="PUT", path="/blobs/", times=1),
    ],
)
def test_a_push_through_trouble(
    registry: Registry, ecr: Registry, tmp_path: Path, trouble: Trouble
) -> None:
    put_base(registry)
    ecr.trouble(trouble)
    made = image(registry, tmp_path)
    assert ecr.repositories["fdeploy/demo"].tags.get(made.tag) is None
    digest = made.push(destination(ecr))
    assert ecr.repositories["fdeploy/demo"].tags[made.tag] == digest


def test_a_wrong_password_is_told_at_once(
    registry: Registry, ecr: Registry, tmp_path: Path
) -> None:
    put_base(registry)
    wrong = replace(destination(ecr), password="wr0ng")
    with pytest.raises(ImageError, match="refuses access to") as caught:
        image(registry, tmp_path).push(wrong)
    assert len(ecr.asked) <= 2
    assert "wr0ng" not in f"{caught.value}{caught.value.hint}{wrong!r}"


def test_a_registry_that_stores_something_else(
    registry: Registry, ecr: Registry, tmp_path: Path
) -> None:
    put_base(registry)
    ecr.trouble(Trouble("html", method="PUT", path="manifests"))
    made = image(registry, tmp_path)
    with pytest.raises(HashMismatch, match="does not have its hash"):
        made.push(destination(ecr))

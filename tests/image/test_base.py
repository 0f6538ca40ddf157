"""Base images: how they are named, found and read."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.errors import HashMismatch, ImageError
from fastai_deploy.image.base import Base, fetch_base
from fastai_deploy.image.blobs import BlobStore
from fastai_deploy.image.names import Reference
from fastai_deploy.image.registry import Repository
from tests.image.bases import CONTENT, put_base
from tests.registry import DOCKER, OCI, Registry, Trouble, digest_of, running_registry

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry(access="token") as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "image")


def fetched(
    registry: Registry,
    store: BlobStore,
    reference: str = "library/python:3.13-slim",
    **options: Any,
) -> Base:
    named = Reference.parse(f"{registry.address}/{reference}")
    machine = options.get("machine", "x86_64")
    return fetch_base(named, machine, store, Repository(named.place), lambda _: None)


@pytest.mark.parametrize(
    ("text", "full", "place"),
    [
        ("python", "docker.io/library/python:latest", "registry-1.docker.io/library/python"),
        ("python:3.13", "docker.io/library/python:3.13", "registry-1.docker.io/library/python"),
        ("me/app", "docker.io/me/app:latest", "registry-1.docker.io/me/app"),
        ("localhost/app:1", "localhost/app:1", "localhost/app"),
        ("host:5000/a/b:1", "host:5000/a/b:1", "host:5000/a/b"),
        (f"host.example/a@{DIGEST}", f"host.example/a@{DIGEST}", "host.example/a"),
        (f"host.example/a:1@{DIGEST}", f"host.example/a:1@{DIGEST}", "host.example/a"),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, full: str, place: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.place) == (full, place)


@pytest.mark.parametrize("text", ["", "UPPER/x", "a b", "x:", "https://host/x", "x@sha256:12"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="is not the name of an image"):
        Reference.parse(text)


@pytest.mark.parametrize("kind", [OCI, DOCKER])
def test_a_base_is_read_and_not_downloaded_again(
    registry: Registry, store: BlobStore, kind: str
) -> None:
    digest = put_base(registry, kind=kind)
    base = fetched(registry, store)
    assert base.reference.digest == digest
    assert (base.python, base.glibc) == ("/usr/local/bin/python3.13", 34)
    assert base.platform == "manylinux_2_34_x86_64"
    registry.trouble()
    assert fetched(registry, store, f"library/python:3.13-slim@{digest}") == base
    assert registry.asked == []


def test_an_index_names_the_image_for_the_processor(registry: Registry, store: BlobStore) -> None:
    amd = put_base(registry, tag="amd")
    arm = put_base(registry, tag="arm", machine="arm64")
    images = {"linux/amd64": amd, "linux/arm64/v8": arm, "unknown/unknown": amd}
    index = registry.put_index("library/python", "3.13-slim", images)
    base = fetched(registry, store, machine="aarch64")
    assert base.reference.digest == index
    assert base.config["architecture"] == "arm64"


def test_a_damaged_layer_in_the_cache_is_downloaded_again(
    registry: Registry, store: BlobStore, tmp_path: Path
) -> None:
    digest = put_base(registry)
    base = fetched(registry, store)
    path = tmp_path / "image/blobs/sha256" / base.layers[0].digest.removeprefix("sha256:")
    path.write_bytes(b"x" * path.stat().st_size)
    assert fetched(registry, store, f"library/python@{digest}").layers == base.layers
    assert store.find(base.layers[0].digest, base.layers[0].size)


MUSL = {**CONTENT, "usr/lib/x86_64-linux-gnu/libc.so.6": b"", "lib/ld-musl-x86_64.so.1": b""}


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (
            [{**CONTENT, "usr/local/bin/python3.13": b""}, {"usr/local/bin/.wh.python3.13": b""}],
            "no Python 3.13",
        ),
        ([CONTENT, {"usr/local/.wh..wh..opq": b""}], "no Python 3.13"),
        ([CONTENT, {".wh.usr": b"", "usr/bin/python3.12": b""}], "no Python 3.13"),
        ([MUSL], "no glibc (it has musl, as Alpine has)"),
        ([{"usr/bin/python3.13": b""}], "no glibc,"),
        (
            [{path: data for path, data in CONTENT.items() if "c++" not in path}],
            "no libstdc++.so.6",
        ),
    ],
)
def test_a_base_in_which_the_server_cannot_run_is_refused(
    registry: Registry, store: BlobStore, layers: list[Mapping[str, bytes]], reason: str
) -> None:
    put_base(registry, *layers)
    with pytest.raises(ImageError, match=re.escape(reason)) as caught:
        fetched(registry, store)
    assert "base_image in [package]" in caught.value.hint


def test_a_file_that_a_later_layer_brings_back_counts(registry: Registry, store: BlobStore) -> None:
    put_base(registry, CONTENT, {".wh.usr": b""}, CONTENT)
    assert fetched(registry, store).glibc == 34


def test_another_processor_is_refused(registry: Registry, store: BlobStore) -> None:
    put_base(registry, machine="arm64")
    with pytest.raises(ImageError, match="is for linux/arm64"):
        fetched(registry, store)
    digest = put_base(registry, tag="arm", machine="arm64")
    registry.put_index("library/python", "3.13-slim", {"linux/arm64": digest})
    with pytest.raises(ImageError, match="has no image for x86_64"):
        fetched(registry, store)


@pytest.mark.parametrize(
    "config",
    [
        {"rootfs": {}},
        {"rootfs": {"diff_ids": []}},
        {"os": None},
        {"architecture": ["amd64"]},
    ],
)
def test_a_damaged_configuration_is_refused(
    registry: Registry, store: BlobStore, config: Mapping[str, Any]
) -> None:
    put_base(registry, config=config)
    with pytest.raises(ImageError, match=r"damaged|is for"):
        fetched(registry, store)


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"no tar at all" * 99, mtime=0), b""])
def test_a_broken_layer_is_refused(registry: Registry, store: BlobStore, data: bytes) -> None:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": [digest_of(data)]},
    }
    registry.put_image("library/python", "3.13-slim", layers=[data], config=config)
    with pytest.raises(ImageError, match=r"damaged|no Python"):
        fetched(registry, store)


@pytest.mark.parametrize(
    "manifest",
    [
        b"[]",
        b"{}",
        b'{"config": 1, "layers": 2}',
        b'{"config": {"digest": 1, "size": 1}, "layers": []}',
        b'{"config": {"digest": "sha256:0", "size": 1}, "layers": []}',
        b'{"config": {"digest": "../../../etc/passwd", "size": 1}, "layers": []}',
        b"\xff",
    ],
)
def test_a_broken_manifest_is_refused(
    registry: Registry, store: BlobStore, manifest: bytes
) -> None:
    registry.put_manifest("library/python", "3.13-slim", f"{OCI}.manifest.v1+json", manifest)
    with pytest.raises(ImageError, match="damaged"):
        fetched(registry, store)


def test_a_layer_that_sagemaker_cannot_read_is_refused(
    registry: Registry, store: BlobStore
) -> None:
    registry.put_manifest(
        "library/python",
        "3.13-slim",
        f"{OCI}.manifest.v1+json",
        b'{"config": {"digest": "%(digest)b", "size": 1}, "layers": [{"digest": "%(digest)b", '
        b'"size": 1, "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}]}'
        % {b"digest": DIGEST.encode()},
    )
    with pytest.raises(ImageError, match=r"tar\+zstd"):
        fetched(registry, store)


def test_a_base_that_vanished(registry: Registry, store: BlobStore) -> None:
    with pytest.raises(ImageError, match=r"has no image 3.13-slim"):
        fetched(registry, store)


@pytest.mark.parametrize(
    ("trouble", "error", "reason"),
    [
        (Trouble("html", path="manifests"), ImageError, "text/html, not a manifest"),
        (Trouble("altered", path="blobs"), HashMismatch, "does not have its hash"),
        (Trouble("403", path="manifests", times=0), ImageError, "refuses access to"),
        (Trouble("418", path="manifests"), ImageError, "answered 418"),
    ],
)
def test_a_registry_that_misbehaves(
    registry: Registry, store: BlobStore, trouble: Trouble, error: type[Exception], reason: str
) -> None:
    put_base(registry)
    registry.trouble(trouble)
    with pytest.raises(error, match=reason):
        fetched(registry, store)


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble("429", path="manifests", times=2, headers={"Retry-After": "0"}),
        Trouble("500", path="blobs", times=2),
        Trouble("reset", path="manifests", times=1),
    ],
)
def test_what_passes_is_tried_again(registry: Registry, store: BlobStore, trouble: Trouble) -> None:
    put_base(registry)
    registry.trouble(trouble)
    assert fetched(registry, store).glibc == 34


def test_nobody_there(store: BlobStore) -> None:
    with running_registry() as ended:
        pass
    with pytest.raises(ImageError, match="cannot be reached: the connection fails"):
        fetched(ended, store)

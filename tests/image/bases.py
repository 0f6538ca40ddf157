"""Small base images in a registry of this process, and small wheels."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastai_deploy.files import sha256
from fastai_deploy.image.base import Base, fetch_base
from fastai_deploy.image.blobs import BlobStore
from fastai_deploy.image.names import Reference
from fastai_deploy.image.registry import Repository
from fastai_deploy.packaging.wheels import Container, Wheel
from tests.registry import OCI, Registry, digest_of

GLIBC = b"GNU C Library (Debian GLIBC 2.34-1) stable release version 2.34.\n"
CONTENT: Mapping[str, bytes] = {
    "usr/local/bin/python3.13": b"#!",
    "usr/lib/x86_64-linux-gnu/libc.so.6": GLIBC,
    "usr/lib/x86_64-linux-gnu/libstdc++.so.6": b"",
}


def layer(content: Mapping[str, bytes]) -> bytes:
    """A compressed layer of these files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for path, data in content.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(tar.getvalue(), mtime=0)


def put_base(
    registry: Registry,
    *layers: Mapping[str, bytes],
    tag: str = "3.13-slim",
    name: str = "library/python",
    machine: str = "amd64",
    kind: str = OCI,
    config: Mapping[str, Any] | None = None,
) -> str:
    """Put a base of these layers into the registry, by default a good one; its digest."""
    blobs = [layer(each) for each in layers or (CONTENT,)]
    document = {
        "os": "linux",
        "architecture": machine,
        "created": "2026-11-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin", "PYTHON_VERSION=3.13.9"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [digest_of(gzip.decompress(each)) for each in blobs],
        },
        **(config or {}),
    }
    return registry.put_image(name, tag, layers=blobs, config=document, kind=kind)


def based(registry: Registry, folder: Path) -> tuple[Base, BlobStore]:
    """The base in the registry, and the store below a folder that it was downloaded to."""
    store = BlobStore(folder / "image")
    named = Reference.parse(f"{registry.address}/library/python:3.13-slim")
    base = fetch_base(named, "x86_64", store, Repository(named.place), lambda _: None)
    # The same in every test, though the port is not.
    return replace(base, reference=replace(base.reference, repository="host.example/python")), store


class SmallWheels:
    """Makes wheels of a few bytes where the real ones would be downloaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, container: Container, versions: Mapping[str, str]) -> Sequence[Wheel]:
        """A wheel for each version."""
        return [self._wheel(container, *each) for each in versions.items()]

    def _wheel(self, container: Container, package: str, version: str) -> Wheel:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{package}-{version}-cp313-cp313-{container.platform}.whl"
        about = f"{package}-{version}.dist-info"
        content = {
            f"{package}/__init__.py": f"version = {version!r}\n",
            f"{package}-{version}.data/purelib/{package}/more.py": "",
            f"{package}-{version}.data/scripts/{package}": "#!python\n",
            f"{about}/METADATA": f"Name: {package}\nLicense-Expression: MIT\n",
        }
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in content.items():
                archive.writestr(zipfile.ZipInfo(name), text)
        return Wheel(package, version, path, sha256(path))

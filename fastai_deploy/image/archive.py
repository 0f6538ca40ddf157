"""Writes an image as one file, for ``docker load`` and every tool that reads OCI archives.

oci-layout, index.json      what OCI's tools read (image specification, "Image Layout")
manifest.json               what ``docker load`` of any age reads
blobs/sha256/<hex>          manifest, configuration and layers
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.image.base import ARCHITECTURES
from fastai_deploy.image.build import BuiltImage
from fastai_deploy.image.names import OCI_INDEX, OCI_MANIFEST, digest_of

_Opened = Callable[[], AbstractContextManager[BinaryIO]]


def write_archive(
    image: BuiltImage,
    name: str,
    destination: Path,
    machine: str,
    notify: Callable[[int, int], None],
) -> int:
    """Write the image under a name such as ``fdeploy-server:0.1.0``; returns the file's bytes.

    ``destination`` is replaced once the whole file is written. ``notify`` is called with the bytes
    written so far and in all. Raises FileError.
    """
    members = sorted(_members(image, name, machine), key=lambda member: member[0])
    total = sum(size for _, size, _ in members)
    done = 0
    with files.needing(total, destination.parent), files.replacing(destination) as raw:
        with tarfile.open(fileobj=raw, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for path, size, opened in members:
                info = tarfile.TarInfo(path)
                info.size = size
                with opened() as content:
                    tar.addfile(info, content)
                done += size
                notify(done, total)
        return raw.tell()


def _members(image: BuiltImage, name: str, machine: str) -> Iterator[tuple[str, int, _Opened]]:
    manifest = image.manifest(OCI_MANIFEST)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": manifest.media_type,
                "digest": manifest.digest,
                "size": len(manifest.data),
                "platform": {"os": "linux", "architecture": ARCHITECTURES[machine]},
                "annotations": {
                    "io.containerd.image.name": f"docker.io/library/{name}",
                    "org.opencontainers.image.ref.name": name.partition(":")[2],
                },
            }
        ],
    }
    loaded = [
        {
            "Config": _path(digest_of(image.config)),
            "RepoTags": [name],
            "Layers": [_path(layer.digest) for layer in image.layers],
        }
    ]
    yield _from_bytes("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    yield _from_bytes("index.json", _json(index))
    yield _from_bytes("manifest.json", _json(loaded))
    yield _from_bytes(_path(manifest.digest), manifest.data)
    yield _from_bytes(_path(digest_of(image.config)), image.config)
    for digest, size, path in sorted(
        {
            (layer.digest, layer.size, path)
            for layer, path in zip(image.layers, image.paths, strict=True)
        }
    ):
        yield _path(digest), size, _reading(path)


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _from_bytes(path: str, data: bytes) -> tuple[str, int, _Opened]:
    return path, len(data), lambda: io.BytesIO(data)


def _reading(path: Path) -> _Opened:
    return lambda: files.reading(path)

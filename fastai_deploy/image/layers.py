"""The layers that fdeploy adds to a base, with the same bytes for the same input.

    /opt/fdeploy/packages/    the wheels' content, a layer for each wheel
    /opt/fdeploy/code/        the serving code, and the list of what is in the image
    /opt/ml/model/            the artifact's files, if it is in the image

Members are sorted, belong to root and have the same date and mode, whatever they have on this disk.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from fastai_deploy import files
from fastai_deploy.errors import ImageError
from fastai_deploy.image.blobs import BlobStore, Layer
from fastai_deploy.packaging.artifact import StoredGzip, Writable
from fastai_deploy.packaging.wheels import Wheel

PACKAGES = "opt/fdeploy/packages"
CODE = "opt/fdeploy/code"
MODEL = "opt/ml/model"
_FORMAT = "1"  # another number makes the layers in the cache obsolete
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
# Stored in the image, weights are read at once; compressed, they are 7 % smaller at a twentieth
# of the speed. Code and libraries shrink to a third.
_LEVEL = 6


def wheel_layer(wheel: Wheel, store: BlobStore) -> Layer:
    """The layer of an installed wheel. Raises ImageError or FileError.

    Its scripts, headers and data are left out (PEP 427, "The .data directory"): serving imports the
    packages alone.
    """

    def write(file: BinaryIO) -> str:
        try:
            with zipfile.ZipFile(wheel.path) as archive:
                members = {
                    path: archive.getinfo(name)
                    for name in archive.namelist()
                    if (path := _installed(name))
                }
                contents = ((path, archive.read(members[path])) for path in sorted(members))
                return _write(file, contents, PACKAGES)
        except (OSError, zipfile.BadZipFile) as error:
            raise ImageError(
                f"{wheel.path.name} cannot be unpacked: {error}",
                hint=f"rm {wheel.path}, and run the command again",
            ) from None

    return store.layer(f"wheel-{_FORMAT}-{wheel.sha256}", write)


def code_layer(content: Mapping[str, bytes], store: BlobStore) -> Layer:
    """The layer of the serving code, by path. Raises FileError."""
    digest = hashlib.sha256()
    for path, data in sorted(content.items()):
        digest.update(path.encode() + b"\0" + hashlib.sha256(data).digest())
    return store.layer(
        f"code-{_FORMAT}-{digest.hexdigest()}",
        lambda file: _write(file, sorted(content.items()), CODE),
    )


def model_layer(artifact: Path, sha256: str, store: BlobStore) -> Layer:
    """The layer of an artifact's files, stored without compression. Raises FileError."""

    def write(file: BinaryIO) -> str:
        with files.reading(artifact) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
            stream = StoredGzip(file)
            hashed = _Hashed(stream)
            with _layer(hashed) as layer:
                made: set[PurePosixPath] = set()
                for info in tar:
                    content = tar.extractfile(info)
                    if content is not None:
                        path = PurePosixPath(MODEL, info.name)
                        _add_folders(layer, path, made)
                        _add(layer, path, info.size, content)
            stream.close()
        return hashed.digest

    return store.layer(f"model-{_FORMAT}-{sha256}", write)


def _installed(name: str) -> str:
    """Where a file of a wheel is installed, below the packages; empty if it is not."""
    path = PurePosixPath(name)
    if name.endswith("/") or path.is_absolute() or ".." in path.parts:
        return ""
    folder, *rest = path.parts
    if not folder.endswith(".data"):
        return str(path)
    return str(PurePosixPath(*rest[1:])) if rest[0] in ("purelib", "platlib") else ""


class _Hashed(io.RawIOBase):
    """Passes on what is written, and has its digest."""

    def __init__(self, sink: Writable) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._digest.update(data)
        return self._sink.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def _layer(file: BinaryIO | _Hashed) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)


def _write(file: BinaryIO, contents: Iterable[tuple[str, bytes]], root: str) -> str:
    """Write a compressed layer of files below ``root``; returns the digest of the tar in it."""
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as stream:
        hashed = _Hashed(stream)
        with _layer(hashed) as layer:
            made: set[PurePosixPath] = set()
            for name, data in contents:
                path = PurePosixPath(root, name)
                _add_folders(layer, path, made)
                _add(layer, path, len(data), io.BytesIO(data))
    return hashed.digest


def _add_folders(layer: tarfile.TarFile, path: PurePosixPath, made: set[PurePosixPath]) -> None:
    """Add the folders of a path that are not there yet, but for those of any base."""
    for folder in _folders(path):
        if folder not in made:
            made.add(folder)
            info = _info(folder, _FOLDER_MODE)
            info.type = tarfile.DIRTYPE
            layer.addfile(info)


def _folders(path: PurePosixPath) -> Iterator[PurePosixPath]:
    parents = list(path.parents)[:-2]  # neither the root nor /opt
    return reversed(parents)


def _add(layer: tarfile.TarFile, path: PurePosixPath, size: int, content: IO[bytes]) -> None:
    info = _info(path, _FILE_MODE)
    info.size = size
    layer.addfile(info, content)


def _info(path: PurePosixPath, mode: int) -> tarfile.TarInfo:
    """A member of root's from 1970."""
    info = tarfile.TarInfo(str(path))
    info.mode = mode
    return info

"""The layers that fdeploy adds to a base, with the same bytes for the same input.

    /opt/fdeploy/packages/    the wheels' content, a layer for each wheel
    /opt/fdeploy/code/        the serving code, and the list of what is in the image
    /opt/fdeploy/bytecode/    see :mod:`fastai_deploy.image.bytecode`
    /opt/ml/model/            the artifact's files, if it is in the image

Members are sorted, belong to root and have the same date and mode, whatever they have on this disk.
Nothing is compressed here: the files of a wheel are in the layer as the wheel has them, deflated,
each in a gzip member of its own (RFC 1952, section 2.2: a file may have several), and the rest is
stored. That takes no time, and no deflate library has a part in the bytes.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from fastai_deploy import files
from fastai_deploy.errors import ImageError
from fastai_deploy.image.blobs import BlobStore, Layer
from fastai_deploy.packaging.artifact import GZIP_HEADER, StoredGzip, Writable, gzip_trailer
from fastai_deploy.packaging.wheels import Wheel

PACKAGES = "opt/fdeploy/packages"
CODE = "opt/fdeploy/code"
MODEL = "opt/ml/model"
_FORMAT = "2"  # another number makes the layers in the cache obsolete
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)  # of a tar
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip's entry: the lengths of what follows it


def wheel_layer(wheel: Wheel, store: BlobStore) -> Layer:
    """The layer of an installed wheel. Raises ImageError or FileError.

    Its scripts, headers and data are left out (PEP 427, "The .data directory"): serving imports the
    packages alone.
    """

    def write(layer: LayerWriter) -> None:
        for path, content, deflated in _unpacked(wheel):
            layer.add(PurePosixPath(PACKAGES, path), content, deflated)

    size = files.size_of(wheel.path) or 0
    return store.layer(f"wheel-{_FORMAT}-{wheel.sha256}", writing(write), size=size)


def code_layer(content: Mapping[str, bytes], store: BlobStore) -> Layer:
    """The layer of the serving code, by path. Raises FileError."""
    digest = hashlib.sha256()
    for path, data in sorted(content.items()):
        digest.update(path.encode() + b"\0" + hashlib.sha256(data).digest())

    def write(layer: LayerWriter) -> None:
        for path, data in sorted(content.items()):
            layer.add(PurePosixPath(CODE, path), data)

    size = sum(map(len, content.values()))
    return store.layer(f"code-{_FORMAT}-{digest.hexdigest()}", writing(write), size=size)


def model_layer(artifact: Path, sha256: str, store: BlobStore) -> Layer:
    """The layer of an artifact's files. Raises FileError."""

    def write(layer: LayerWriter) -> None:
        with files.reading(artifact) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
            for info in tar:
                content = tar.extractfile(info)
                if content is not None:
                    layer.copy(PurePosixPath(MODEL, info.name), info.size, content)

    size = files.size_of(artifact) or 0
    return store.layer(f"model-{_FORMAT}-{sha256}", writing(write), size=size)


def wheel_files(wheel: Wheel, suffix: str) -> Iterator[tuple[str, bytes]]:
    """The installed files of a wheel whose names end so, in order. Raises ImageError."""
    for path, content, _ in _unpacked(wheel, suffix):
        yield path, content


def _unpacked(wheel: Wheel, suffix: str = "") -> Iterator[tuple[str, bytes, bytes | None]]:
    """The installed files of a wheel in order: path, content, and the content as it is deflated."""
    try:
        with zipfile.ZipFile(wheel.path) as archive, wheel.path.open("rb") as raw:
            entries = [(_installed(info.filename), info) for info in archive.infolist()]
            for path, info in sorted(entries, key=lambda each: each[0]):
                if path and path.endswith(suffix):
                    yield path, archive.read(info), _deflated(raw, info)
    except (OSError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise ImageError(
            f"{wheel.path.name} cannot be unpacked: {error}",
            hint=f"rm {wheel.path}, and run the command again",
        ) from None


def _deflated(raw: BinaryIO, info: zipfile.ZipInfo) -> bytes | None:
    """An entry's data as it is in the wheel; None if that is not deflated."""
    if info.compress_type != zipfile.ZIP_DEFLATED:
        return None
    raw.seek(info.header_offset)
    name, extra = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    raw.seek(name + extra, io.SEEK_CUR)
    return raw.read(info.compress_size)


def _installed(name: str) -> str:
    """Where a file of a wheel is installed, below the packages; empty if it is not."""
    path = PurePosixPath(name)
    if name.endswith("/") or path.is_absolute() or ".." in path.parts:
        return ""
    folder, *rest = path.parts
    if not folder.endswith(".data"):
        return str(path)
    return str(PurePosixPath(*rest[1:])) if rest[0] in ("purelib", "platlib") else ""


def writing(write: Callable[[LayerWriter], None]) -> Callable[[Writable], str]:
    """What :meth:`BlobStore.layer` calls: write a layer, and return the digest of its tar."""

    def to(file: Writable) -> str:
        layer = LayerWriter(file)
        write(layer)
        return layer.close()

    return to


class LayerWriter:
    """Writes a tar of root's files from 1970 into ``raw``, compressed with gzip; see above."""

    def __init__(self, raw: Writable) -> None:
        self._raw = raw
        self._tar = hashlib.sha256()
        self._stored: StoredGzip | None = None
        self._folders: set[PurePosixPath] = set()

    def add(self, path: PurePosixPath, content: bytes, deflated: bytes | None = None) -> None:
        """Add a file; ``deflated`` is its content compressed (RFC 1951)."""
        if deflated is None:
            self.copy(path, len(content), io.BytesIO(content))
            return
        self._header(path, len(content))
        self._end_stored()
        self._tar.update(content)
        self._raw.write(GZIP_HEADER)
        self._raw.write(deflated)
        self._raw.write(gzip_trailer(zlib.crc32(content), len(content)))
        self._pad(len(content))

    def copy(self, path: PurePosixPath, size: int, content: IO[bytes]) -> None:
        """Add a file of so many bytes, stored."""
        self._header(path, size)
        while chunk := content.read(files.CHUNK):
            self._store(chunk)
        self._pad(size)

    def close(self) -> str:
        """End the layer, not ``raw``; the digest of the tar in it."""
        self._store(_END)
        self._end_stored()
        return f"sha256:{self._tar.hexdigest()}"

    def _header(self, path: PurePosixPath, size: int) -> None:
        """Begin a file, after the folders of its path that are not there yet."""
        for folder in reversed(list(path.parents)[:-2]):  # neither the root nor /opt
            if folder not in self._folders:
                self._folders.add(folder)
                info = tarfile.TarInfo(str(folder))
                info.type, info.mode = tarfile.DIRTYPE, _FOLDER_MODE
                self._member(info)
        info = tarfile.TarInfo(str(path))
        info.size, info.mode = size, _FILE_MODE
        self._member(info)

    def _member(self, info: tarfile.TarInfo) -> None:
        self._store(info.tobuf(tarfile.PAX_FORMAT, encoding="utf-8"))

    def _pad(self, size: int) -> None:
        self._store(bytes(-size % _BLOCK))

    def _store(self, data: bytes) -> None:
        self._tar.update(data)
        if self._stored is None:
            self._stored = StoredGzip(self._raw)
        self._stored.write(data)

    def _end_stored(self) -> None:
        if self._stored is not None:
            self._stored.close()
            self._stored = None

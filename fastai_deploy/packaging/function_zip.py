"""Builds the zip of a Lambda function that holds the model, from its artifact.

    fdeploy_runtime/...             the artifact's own serving code and the public API's
    fdeploy_runtime/gateway/...     with the documents that it serves
    numpy/, onnxruntime/, ...       the artifact's wheels, without what serving never imports
    */__pycache__/*.pyc             compiled, or Lambda would compile them at every cold start
    model/...                       the bundle; model/parts.json if its larger files do not fit

The files of wheels are copied as they are compressed there, and nothing else is compressed, so the
same artifact gives the same bytes on any machine (with the same Python to compile with, or none).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from fastai_deploy import files
from fastai_deploy.errors import FileError, SettingsError
from fastai_deploy.json_reader import parse
from fastai_deploy.packaging.bytecode import compile_folder
from fastai_deploy.runtime.bundle import GRAPH_SUFFIX, weights_file
from fastai_deploy.runtime.stored_model import PARTS, ranges

PACKAGE = "fdeploy_runtime"
HANDLER = f"{PACKAGE}.hosts.lambda_function.handler"
MAX_UNPACKED = 262_144_000
"""Bytes of an unpacked package (AWS: "Lambda quotas", 250 MB)."""

# What serving never imports: tests, types, headers, other tools of the libraries, and the C library
# that ONNX Runtime's Python module does not link. The goldens are asked of what is left.
_UNUSED_FOLDERS = frozenset(
    (
        *("numpy/f2py", "numpy/_core/include", "numpy/_core/lib", "numpy/_pyinstaller"),
        *("onnxruntime/backend", "onnxruntime/datasets", "onnxruntime/quantization"),
        *("onnxruntime/tools", "onnxruntime/transformers"),
    )
)
_UNUSED_SUFFIXES = (".pyi", ".pxd", ".a", ".h")
_UNUSED_START = "onnxruntime/capi/libonnxruntime.so."
_MODEL = "model/"
_WHEELS = "code/wheels/"
_CODE = f"code/{PACKAGE}/"
_LARGE = (GRAPH_SUFFIX, weights_file(GRAPH_SUFFIX))
_DATE = 0x21  # 1980-01-01, the earliest date in a zip
_MODE = 0o100644 << 16  # a regular file that Lambda's user can read
_UNIX_2_0, _VERSION = (3 << 8) | 20, 20
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_ROOM = 64 * 1024  # for what the size of the members leaves out


class Writable(Protocol):
    """Where a member is copied to."""

    def write(self, data: bytes, /) -> int:
        """Write all of the data; return its length."""


@dataclass(frozen=True)
class FunctionPackage:
    """A zip; ``unpacked`` bytes in all.

    ``reads``: the larger files of the model are read from the artifact in the bucket. ``compiled``:
    it holds bytecode.
    """

    path: Path
    sha256: str
    bytes: int
    unpacked: int
    reads: bool
    compiled: bool


@dataclass(frozen=True)
class _Member:
    """A file: what its bytes are, as they stand in the zip."""

    name: str
    size: int
    crc: int
    packed: int
    method: int
    copy: Callable[[Writable], None]


def build_function_package(
    artifact: Path,
    destination: Path,
    documents: Mapping[str, bytes],
    *,
    python: Path | None,
    room: int = MAX_UNPACKED,
) -> FunctionPackage:
    """Write the zip to ``destination``.

    ``python`` is an interpreter of Lambda's version that compiles, None if there is none here.
    ``room`` is how many bytes it may have unpacked. Raises FileError if the artifact is damaged,
    SettingsError if not even the libraries fit.
    """
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as scratch:
        folder = Path(scratch)
        try:
            parts = _unpacked(artifact, folder)
        except (tarfile.TarError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise FileError(
                f"{artifact} is damaged or not an artifact: {error}", hint="run fdeploy package"
            ) from None
        for name, data in documents.items():
            files.write(folder / PACKAGE / "gateway" / name, data)
        members = list(_of_wheels(folder))
        if python is not None:
            _compile(python, folder, members)
        large = {name for name in parts if name.endswith(_LARGE)}
        members += _of_folder(folder)
        unpacked = sum(member.size for member in members)
        reads = unpacked + _ROOM > room
        if reads:
            listed = {
                name: {**parts[name], "sha256": _hashes(folder / _MODEL / name, **parts[name])}
                for name in sorted(large)
            }
            data = json.dumps(listed, indent=2, sort_keys=True).encode()
            members = [each for each in members if each.name.removeprefix(_MODEL) not in large]
            files.write(folder / _MODEL / PARTS, data)
            members.append(_stored(folder, folder / _MODEL / PARTS))
            unpacked = sum(member.size for member in members)
        if unpacked > room:
            raise SettingsError(
                f"the function's code has {unpacked:,} bytes, and Lambda takes {room:,}",
                hint='set kind to "serverless" or "real-time" in [endpoint]',
            )
        digest, size = _write(destination, sorted(members, key=lambda member: member.name))
    return FunctionPackage(destination, digest, size, unpacked, reads, python is not None)


def _unpacked(artifact: Path, folder: Path) -> dict[str, dict[str, int]]:
    """Unpack the code, the wheels and the model; the place of each of the model's files."""
    places: dict[str, dict[str, int]] = {}
    manifest: set[str] = set()
    with files.reading(artifact) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
        for info in tar:
            target = _target(info.name)
            content = tar.extractfile(info) if target and info.isreg() else None
            if content is None or target is None:
                continue
            with content, files.creating(folder / target) as file:
                shutil.copyfileobj(content, file, files.CHUNK)
            if target.startswith(_MODEL) and info.size:
                name = target.removeprefix(_MODEL)
                places[name] = {"offset": info.offset_data, "bytes": info.size}
    try:
        listed = parse(files.read(folder / _MODEL / "manifest.json"))["files"]
        manifest = {"manifest.json", *listed}
    except (ValueError, LookupError, TypeError) as error:
        raise FileError(
            f"the manifest in {artifact} is damaged: {error}", hint="run fdeploy package"
        ) from None
    for name in [each for each in places if each not in manifest]:  # files of other containers
        (folder / _MODEL / name).unlink()
        del places[name]
    return places


def _hashes(path: Path, offset: int, bytes: int) -> list[str]:  # noqa: A002 - as parts.json has it
    """The SHA-256 of each range in which a file is read from the bucket."""
    with files.reading(path) as file:
        return [
            hashlib.sha256(file.read(each.end - each.start)).hexdigest()
            for each in ranges(offset, bytes)
        ]


def _target(name: str) -> str | None:
    """Where a file of the artifact stands in the package, or for now; None leaves it out."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return None
    if name.startswith(_CODE):
        return name.removeprefix("code/")
    if name.startswith(_WHEELS):
        return f".wheels/{path.name}" if path.suffix == ".whl" else None
    return None if name.startswith("code/") else f"{_MODEL}{name}"


def _of_wheels(folder: Path) -> Iterator[_Member]:
    """The files of the wheels that serving may import, which stay compressed as they are."""
    for wheel in sorted((folder / ".wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                if not info.is_dir() and not _is_unused(info.filename):
                    yield _copied(wheel, info)


def _is_unused(name: str) -> bool:
    path = PurePosixPath(name)
    folders = {str(parent) for parent in path.parents}
    if not _UNUSED_FOLDERS.isdisjoint(folders) or "tests" in path.parts[:-1]:
        return True
    return path.suffix in _UNUSED_SUFFIXES or name.startswith(_UNUSED_START)


def _copied(wheel: Path, info: zipfile.ZipInfo) -> _Member:
    def copy(to: Writable) -> None:
        with files.reading(wheel) as source:
            source.seek(info.header_offset)
            fields = _LOCAL.unpack(source.read(_LOCAL.size))
            source.seek(fields[-2] + fields[-1], 1)  # its name and extra field
            to.write(source.read(info.compress_size))

    return _Member(
        info.filename, info.file_size, info.CRC, info.compress_size, info.compress_type, copy
    )


def _of_folder(folder: Path) -> Iterator[_Member]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_relative_to(folder / ".wheels"):
            yield _stored(folder, path)


def _stored(folder: Path, path: Path) -> _Member:
    crc = 0
    with files.reading(path) as file:
        while chunk := file.read(files.CHUNK):
            crc = zlib.crc32(chunk, crc)
    size = path.stat().st_size

    def copy(to: Writable) -> None:
        with files.reading(path) as file:
            shutil.copyfileobj(file, to, files.CHUNK)

    return _Member(path.relative_to(folder).as_posix(), size, crc, size, zipfile.ZIP_STORED, copy)


def _compile(python: Path, folder: Path, members: list[_Member]) -> None:
    """Add the bytecode of all sources."""
    sources = folder / ".sources"
    for wheel in sorted((folder / ".wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in members:
                if member.name.endswith(".py") and member.name in archive.NameToInfo:
                    files.write(sources / member.name, archive.read(member.name))
    shutil.copytree(folder / PACKAGE, sources / PACKAGE)
    # Nothing but the sources beside it can be in the package, so none is compared.
    compiled = compile_folder(python, sources, "/var/task", checked=False)
    for path, made in compiled.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
    shutil.rmtree(sources)


def _write(destination: Path, members: list[_Member]) -> tuple[str, int]:
    """Write the members in order; the SHA-256 and the size of the zip."""
    with files.replacing(destination) as file:
        out = _Counted(file)
        central = []
        for member in members:
            name = member.name.encode()
            fields = (member.method, 0, _DATE, member.crc, member.packed, member.size)
            central.append((name, fields, out.size))
            out.write(_LOCAL.pack(b"PK\3\4", _VERSION, 0, *fields, len(name), 0) + name)
            member.copy(out)
        began = out.size
        for name, fields, offset in central:
            more = (len(name), 0, 0, 0, 0, _MODE, offset)
            out.write(_CENTRAL.pack(b"PK\1\2", _UNIX_2_0, _VERSION, 0, *fields, *more) + name)
        count, length = len(central), out.size - began
        out.write(_END.pack(b"PK\5\6", 0, 0, count, count, length, began, 0))
        return out.digest.hexdigest(), out.size


class _Counted:
    """Hashes and counts what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write to the file."""
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

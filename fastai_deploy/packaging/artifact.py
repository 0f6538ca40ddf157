"""``model.tar.gz``: written from a bundle, byte for byte the same on every machine, and read back.

    code/wheels/wheels.json    the Python, the processor and the wheels that it was packed for
    manifest.json              the bundle's own manifest

The gzip stream is stored, not compressed: weights shrink by 7 % at a twentieth of the speed, and
deflate libraries differ in their bytes. So the hash of the file can be the version of the model.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast

from fastai_deploy import files
from fastai_deploy.bundle.manifest import EXPORT_AGAIN
from fastai_deploy.errors import FileError
from fastai_deploy.json_reader import parse, read_object
from fastai_deploy.packaging.container_files import ADAPTERS
from fastai_deploy.packaging.wheels import SERVING, Container, Wheel
from fastai_deploy.runtime.bundle import GRAPH_SUFFIX, weights_file

# RFC 1952: magic, deflate, no flags, no time, no extra flags, unknown operating system.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_BLOCK = 0xFFFF  # the longest stored block


class Writable(Protocol):
    """What the stream is written to."""

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data; return its length."""


class StoredGzip:
    """A write-only binary file that wraps ``raw``; ``close`` writes the trailer, not ``raw``'s."""

    def __init__(self, raw: Writable) -> None:
        self._raw = raw
        self._crc = 0
        self._size = 0
        self._pending = bytearray()
        raw.write(_HEADER)

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``; full blocks are written at once, so that the cuts never vary."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._pending += data
        whole = len(self._pending) - len(self._pending) % _BLOCK
        with memoryview(self._pending) as view:
            for start in range(0, whole, _BLOCK):
                with view[start : start + _BLOCK] as block:
                    self._block(block, last=False)
        del self._pending[:whole]
        return len(data)

    def close(self) -> None:
        """End the stream."""
        with memoryview(self._pending) as block:
            self._block(block, last=True)
        self._raw.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _block(self, data: memoryview, *, last: bool) -> None:
        size = len(data)
        self._raw.write(struct.pack("<BHH", last, size, size ^ 0xFFFF))
        self._raw.write(data)


_INDEX = "code/wheels/wheels.json"
_MANIFEST = "manifest.json"
_EVERYWHERE = "any"


@dataclass(frozen=True)
class ArtifactContents:
    """``python`` such as ``3.13``, ``machine`` such as ``x86_64``; None where it is for no image.

    ``wheels`` are file names; ``learner`` is the Python of a learner that is served as it is.
    """

    python: str | None
    machine: str | None
    wheels: tuple[str, ...]
    learner: str | None

    def misfits(self, container: Container) -> Iterator[str]:
        """Why it cannot be served in a container, a reason each."""
        if self.learner and self.learner != container.python:
            yield f"its learner needs Python {self.learner}"
        if self.python and self.python != container.python:
            yield f"it is packed for Python {self.python}"
        if self.machine and self.machine != container.machine:
            yield f"it is packed for {self.machine}"
        foreign = [wheel for wheel in self.wheels if not _runs(wheel, container)]
        if foreign:
            yield f"of its wheels {', '.join(foreign)} do not run there"


def read_contents(artifact: Path) -> ArtifactContents:
    """Read an artifact. Raises FileError when it is missing or not sound."""
    found: dict[str, Any] = {}
    try:
        with files.reading(artifact) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
            for info in tar:
                if info.name in (_INDEX, _MANIFEST) and (content := tar.extractfile(info)):
                    found[info.name] = parse(content.read())
                if len(found) == 2:  # noqa: PLR2004 - both
                    break
        index = found.get(_INDEX, {})
        runtime = found[_MANIFEST].get("runtime") or {}
        return ArtifactContents(
            index.get("python"),
            index.get("machine"),
            tuple(wheel["file"] for wheel in index.get("wheels", ())),
            runtime.get("python"),
        )
    except (
        *(tarfile.TarError, EOFError, zlib.error),
        *(ValueError, LookupError, TypeError, AttributeError),
    ) as error:
        raise FileError(
            f"{artifact} is not a sound model.tar.gz: {type(error).__name__}: {error}",
            hint="run fdeploy package",
        ) from None


def _runs(wheel: str, container: Container) -> bool:
    """Whether a wheel's tags are the container's: ``-python-abi-platform`` (PEP 427).

    A wheel of the stable ABI runs in every later Python than its own, too.
    """
    *_, python, abi, platform = wheel.removesuffix(".whl").split("-")
    minor = int(container.python.partition(".")[2])
    versions = [int(tag[3:]) for tag in python.split(".") if tag[:3] == "cp3" and tag[3:]]
    fits = not versions or minor in versions
    if abi in ("abi3", "none"):
        fits = not versions or min(versions) <= minor
    platforms = {*container.tags, _EVERYWHERE}
    return fits and not platforms.isdisjoint(platform.split("."))


_RUNTIME = Path(__file__).parents[1] / "runtime"
# Serving reads one graph; the torch weights and other graphs would double the artifact.
_MODELS = (".safetensors", GRAPH_SUFFIX, weights_file(GRAPH_SUFFIX))


@dataclass(frozen=True)
class Written:
    """The file that was written."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], AbstractContextManager[BinaryIO]]
    sha256: str | None = None


def write_artifact(
    bundle: Path,
    destination: Path,
    *,
    name: str,
    told: Callable[[int, int], None],
    container: Container | None = None,
    wheels: Sequence[Wheel] = (),
    lock: str | None = None,
) -> Written:
    """Pack a bundle; ``destination`` is replaced when the whole file is written, or not at all.

    ``name`` is what answers call the model; ``told`` hears the bytes packed so far and in all;
    ``wheels`` are those for ``container``, None where the libraries are there already; ``lock`` is
    what it installs for a learner that is served as it is.
    Raises FileError when a file of the bundle is not the one that its manifest names.
    """
    members = [*_members(bundle, name, container, lock), *_wheels(container, wheels)]
    members.sort(key=lambda member: member.name)
    total = sum(member.size for member in members)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        told(done, total)

    with files.replacing(destination) as raw:
        hashed = _Hashed(raw)
        stream = StoredGzip(hashed)
        for member in members:
            stream.write(_header(member))
            with member.open() as content:
                digest = _copy(content, stream, advance)
            if member.sha256 not in (None, digest):
                raise _changed(bundle, member.name)
            stream.write(bytes(-member.size % tarfile.BLOCKSIZE))
        stream.write(bytes(2 * tarfile.BLOCKSIZE))  # the end of a tar file
        stream.close()
    return Written(hashed.digest.hexdigest(), hashed.size)


def unpack(artifact: Path, folder: Path) -> None:
    """Unpack an artifact into a new folder. Raises FileError when it is not sound.

    Regular files alone are written, below ``folder``, and never twice.
    """
    try:
        with files.reading(artifact) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
            for info in tar:
                content = tar.extractfile(info) if _is_ours(info) else None
                if content is None:
                    raise FileError(
                        f"{artifact} holds {info.name!r}, which no artifact of fdeploy holds",
                        hint="run fdeploy package",
                    )
                with content, files.creating(folder / info.name) as file:
                    shutil.copyfileobj(content, file, files.CHUNK)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FileError(
            f"{artifact} is not a sound model.tar.gz: {error}", hint="run fdeploy package"
        ) from None


def _is_ours(info: tarfile.TarInfo) -> bool:
    path = PurePosixPath(info.name)
    return info.isreg() and not path.is_absolute() and ".." not in path.parts


def runtime_digest() -> str:
    """The SHA-256 over the serving code: another code makes another artifact."""
    digest = hashlib.sha256()
    for source in _runtime_sources():
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for path, data in sorted(ADAPTERS.items()):
        digest.update(path.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()


def serving_versions(bundle: Path) -> dict[str, str]:
    """The versions of the serving libraries that the parity gate was passed with.

    Empty for a learner that is served as it is: it brings its own requirements.
    """
    manifest = _manifest(bundle)
    if _is_learner(manifest):
        return {}
    versions = manifest["provenance"]["converter"]
    missing = [package for package in SERVING if package not in versions]
    if missing:
        raise FileError(
            f"{bundle / 'manifest.json'}: provenance.converter lacks {', '.join(missing)}",
            hint=EXPORT_AGAIN,
        )
    return {package: versions[package] for package in SERVING}


def _members(
    bundle: Path, name: str, container: Container | None, lock: str | None
) -> Iterator[_Member]:
    manifest = _manifest(bundle)
    manifest["name"] = name
    if container is not None and container.gpu:
        model = manifest["model"]
        manifest["model"] = {**model, "file": model["gpu"], "precision": "fp32", "device": "gpu"}
    served = manifest.get("model", {}).get("file", "model.onnx")
    manifest["files"] = {
        path: entry
        for path, entry in manifest["files"].items()
        if path in (served, weights_file(served)) or not path.endswith(_MODELS)
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    yield _from_bytes("manifest.json", text.encode())
    for path, entry in manifest["files"].items():
        yield _from_file(path, bundle / path, entry["sha256"])
    for path, data in ADAPTERS.items():
        yield _from_bytes(path, data)
    if container is None or _is_learner(manifest):
        # Containers install from it at start, from the network: not where wheels are on board.
        listed = lock or _requirements(bundle, manifest)
        yield _from_bytes("code/requirements.txt", listed.encode())
    for source in _runtime_sources():
        yield _from_file(f"code/fdeploy_runtime/{source.relative_to(_RUNTIME).as_posix()}", source)


def _manifest(bundle: Path) -> dict[str, Any]:
    path = bundle / "manifest.json"
    return cast("dict[str, Any]", read_object(path, EXPORT_AGAIN).value)


def _wheels(container: Container | None, wheels: Sequence[Wheel]) -> Iterator[_Member]:
    if container is None:
        return
    index = {
        "python": container.python,
        "machine": container.machine,
        "wheels": [
            {
                "package": wheel.package,
                "version": wheel.version,
                "file": wheel.path.name,
                "sha256": wheel.sha256,
                "spare": wheel.spare,
            }
            for wheel in wheels
        ],
    }
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    yield _from_bytes("code/wheels/wheels.json", text.encode())
    for wheel in wheels:
        yield _from_file(f"code/wheels/{wheel.path.name}", wheel.path, wheel.sha256)


def _requirements(bundle: Path, manifest: dict[str, Any]) -> str:
    """The versions that the parity gate was passed with; a learner as it is states its own."""
    if _is_learner(manifest):
        return files.read(bundle / "requirements.txt").decode("utf-8", "replace")
    versions = serving_versions(bundle)
    return "".join(f"{package}=={version}\n" for package, version in versions.items())


def _is_learner(manifest: dict[str, Any]) -> bool:
    """Whether the bundle holds a learner that is served as it is."""
    return "runtime" in manifest


def _changed(bundle: Path, name: str) -> FileError:
    if name.startswith("code/"):
        return FileError(f"{name} has changed while it was packed", hint="run fdeploy package")
    return FileError(f"{bundle / name} has changed since export made it", hint="run fdeploy export")


def _runtime_sources() -> list[Path]:
    """What the model server needs: all of the runtime but the Lambda's part."""
    return sorted((*_RUNTIME.glob("*.py"), *_RUNTIME.glob("hosts/*.py")))


def _from_bytes(name: str, data: bytes) -> _Member:
    return _Member(name, len(data), lambda: io.BytesIO(data))


def _from_file(name: str, path: Path, sha256: str | None = None) -> _Member:
    with files.reading(path) as file:
        size = os.fstat(file.fileno()).st_size
    return _Member(name, size, lambda: files.reading(path), sha256)


def _header(member: _Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size = member.size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _copy(content: BinaryIO, stream: StoredGzip, advance: Callable[[int], None]) -> str:
    """Copy a member's content; return its SHA-256."""
    digest = hashlib.sha256()
    while chunk := content.read(files.CHUNK):
        digest.update(chunk)
        stream.write(chunk)
        advance(len(chunk))
    return digest.hexdigest()


class _Hashed:
    """A file that hashes and counts what goes through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Pass the data on."""
        self.digest.update(data)
        self.size += len(data)
        return self._raw.write(data)

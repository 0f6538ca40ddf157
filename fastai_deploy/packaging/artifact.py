"""Writes ``model.tar.gz`` from a bundle, with the same bytes on every machine, and reads it.

    code/wheels/wheels.json    the Python, the processor and the wheels that it was packed for
    manifest.json              the bundle's own manifest

The gzip stream is stored, not compressed: weights shrink by 7 % at a twentieth of the speed, and
deflate libraries differ in their output. So the file's hash can be the version of the model.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
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
from fastai_deploy.bundle import Manifest, read_manifest
from fastai_deploy.bundle.manifest import EXPORT_AGAIN, form_entry
from fastai_deploy.errors import FileError
from fastai_deploy.json_reader import parse, read_object
from fastai_deploy.packaging.container_files import ADAPTERS
from fastai_deploy.packaging.served_model import for_function, graph_bytes
from fastai_deploy.packaging.wheels import OPENVINO, SERVING, Container, Wheel, newest
from fastai_deploy.parity.gate import GOLDENS, stored_goldens
from fastai_deploy.parity.goldens import Labels, carried, render
from fastai_deploy.runtime.backends import computable, in_openvino
from fastai_deploy.runtime.bundle import FP32, GRAPH_SUFFIX, Form, weights_file

# RFC 1952: magic, deflate, no flags, no time, no extra flags, unknown operating system.
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_BLOCK = 0xFFFF  # the longest stored block


class Writable(Protocol):
    """Where the stream is written."""

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data; return its length."""


def gzip_trailer(crc: int, size: int) -> bytes:
    """The end of a gzip member whose content has this CRC-32 and so many bytes."""
    return struct.pack("<II", crc, size & 0xFFFFFFFF)


class StoredGzip:
    """A write-only binary file that wraps ``raw``; ``close`` writes the trailer, not ``raw``'s."""

    def __init__(self, raw: Writable) -> None:
        self._raw = raw
        self._crc = 0
        self._size = 0
        self._pending = bytearray()
        raw.write(GZIP_HEADER)

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``. Blocks are always full, so the bytes do not depend on the calls."""
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
        self._raw.write(gzip_trailer(self._crc, self._size))

    def _block(self, data: memoryview, *, last: bool) -> None:
        size = len(data)
        self._raw.write(struct.pack("<BHH", last, size, size ^ 0xFFFF))
        self._raw.write(data)


_INDEX = "code/wheels/wheels.json"
_MANIFEST = "manifest.json"
_EVERYWHERE = "any"


@dataclass(frozen=True)
class ArtifactContents:
    """What an artifact was packed for.

    ``python`` is a version such as ``3.13``, ``machine`` an architecture such as ``x86_64``; both
    are None if it was packed for no image. ``wheels`` are file names; ``learner`` is the Python
    version of an original learner, None for a converted one. ``bare``: it has no serving code,
    which the image of the own server has.
    """

    python: str | None
    machine: str | None
    wheels: tuple[str, ...]
    learner: str | None
    bare: bool = False

    def mismatches(self, container: Container) -> Iterator[str]:
        """Each reason why the artifact cannot be served in a container."""
        if self.bare and not container.complete:
            yield "it has no serving code, because it is packed for the image of fdeploy's server"
        if self.learner and self.learner != container.python:
            yield f"its learner needs Python {self.learner}"
        if self.python and self.python != container.python:
            yield f"it is packed for Python {self.python}"
        if self.machine and self.machine != container.machine:
            yield f"it is packed for {self.machine}"
        foreign = [wheel for wheel in self.wheels if not _runs(wheel, container)]
        if foreign:
            yield f"these wheels in it do not run there: {', '.join(foreign)}"


def read_contents(artifact: Path) -> ArtifactContents:
    """Read an artifact. Raises FileError if it is missing or damaged."""
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
            bool(index.get("complete")),
        )
    except (
        *(tarfile.TarError, EOFError, zlib.error),
        *(ValueError, LookupError, TypeError, AttributeError),
    ) as error:
        raise FileError(
            f"{artifact} is damaged or not an artifact: {type(error).__name__}: {error}",
            hint="run fdeploy package",
        ) from None


def read_member(artifact: BinaryIO, name: str, where: str) -> bytes:
    """The content of a file in an artifact, which is read up to there. Raises FileError."""
    try:
        with tarfile.open(fileobj=artifact, mode="r|gz") as tar:
            for info in tar:
                if info.name == name and (content := tar.extractfile(info)):
                    return content.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FileError(f"{where} is damaged: {error}", hint="run fdeploy package") from None
    raise FileError(f"{where} has no {name}", hint="run fdeploy package")


def _runs(wheel: str, container: Container) -> bool:
    """Whether a wheel's tags (``-python-abi-platform``, PEP 427) match the container.

    A wheel for the stable ABI also runs in every later Python.
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
# Serving needs one graph; the torch weights and other graphs would double the artifact.
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
    notify: Callable[[int, int], None],
    container: Container | None = None,
    wheels: Sequence[Wheel] = (),
    lock: str | None = None,
) -> Written:
    """Pack a bundle; ``destination`` is replaced atomically once the whole file is written.

    ``name`` is the model's name in answers; ``notify`` is called with the bytes packed so far and
    in all; ``wheels`` are those for ``container``, which is None if the libraries are already
    installed; ``lock`` lists what the container installs for an original learner.
    Raises FileError if a file of the bundle differs from its manifest.
    """
    members = [*_members(bundle, name, container, lock), *_wheels(container, wheels)]
    members.sort(key=lambda member: member.name)
    total = sum(member.size for member in members)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        notify(done, total)

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
    """Unpack an artifact into a new folder. Raises FileError if it is damaged.

    Only regular files are accepted, below ``folder``, each path once.
    """
    try:
        with files.reading(artifact) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
            for info in tar:
                content = tar.extractfile(info) if _is_ours(info) else None
                if content is None:
                    raise FileError(
                        f"{artifact} contains {info.name!r}, which no artifact of fdeploy has",
                        hint="run fdeploy package",
                    )
                with content, files.creating(folder / info.name) as file:
                    shutil.copyfileobj(content, file, files.CHUNK)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FileError(
            f"{artifact} is damaged or not an artifact: {error}", hint="run fdeploy package"
        ) from None


def _is_ours(info: tarfile.TarInfo) -> bool:
    path = PurePosixPath(info.name)
    return info.isreg() and not path.is_absolute() and ".." not in path.parts


def runtime_digest() -> str:
    """The SHA-256 over the serving code; different code makes a different artifact."""
    digest = hashlib.sha256()
    for path, data in runtime_files().items():
        digest.update(path.encode() + b"\0" + data + b"\0")
    for path, data in sorted(ADAPTERS.items()):
        digest.update(path.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()


def serving_versions(bundle: Path, container: Container | None = None) -> dict[str, str]:
    """The versions of the serving libraries with which the bundle passed the parity gate.

    OpenVINO is one of them if a form in the artifact needs it. Empty for an original learner,
    which has its own requirements.
    """
    manifest, _ = read_manifest(bundle)
    if manifest.runtime is not None:
        return {}
    extra = [OPENVINO] if needs_openvino(manifest, container) else []
    # A machine that has no OpenVINO exports forms that are proven where they are served.
    versions = {**newest([OPENVINO]), **manifest.provenance.converter}
    needed = [*SERVING, *extra]
    missing = [package for package in needed if package not in versions]
    if missing:
        raise FileError(
            f"{bundle / 'manifest.json'}: provenance.converter lacks {', '.join(missing)}",
            hint=EXPORT_AGAIN,
        )
    return {package: versions[package] for package in needed}


def needs_openvino(manifest: Manifest, container: Container | None) -> bool:
    """Whether a form in the artifact is computed by OpenVINO."""
    if container is not None and container.function:
        return False
    machine = container.machine if container is not None else platform.machine()
    forms = packed_forms(manifest, container)
    return any(in_openvino(form.precision, machine) for form in forms)


def _members(
    bundle: Path, name: str, container: Container | None, lock: str | None
) -> Iterator[_Member]:
    parsed, stored = stored_goldens(bundle)
    labels = Labels(parsed.labels, several=parsed.several)
    # Asked when the server starts.
    goldens = render(carried(stored, parsed.threshold), labels)
    manifest = _manifest(bundle)
    manifest["name"] = name
    if not _is_learner(manifest):
        manifest["model"] = _packed_model(manifest["model"], parsed, container)
    served = {form["file"] for form in manifest["model"].get("forms", ())}
    served |= {weights_file(file) for file in served}
    manifest["files"] = {
        path: {"sha256": hashlib.sha256(goldens).hexdigest(), "bytes": len(goldens)}
        if path == GOLDENS
        else entry
        for path, entry in manifest["files"].items()
        if path in served or not path.endswith(_MODELS)
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    yield _from_bytes("manifest.json", text.encode())
    yield _from_bytes(GOLDENS, goldens)
    for path, entry in manifest["files"].items():
        if path != GOLDENS:
            yield _from_file(path, bundle / path, entry["sha256"])
    if container is not None and container.complete:
        return
    for path, data in ADAPTERS.items():
        yield _from_bytes(path, data)
    if container is None or _is_learner(manifest):
        # Containers download and install these at start; not needed if the artifact has wheels.
        listed = lock or _requirements(bundle, manifest)
        yield _from_bytes("code/requirements.txt", listed.encode())
    for path, source in _runtime_sources(gateway=container is not None and container.function):
        yield _from_file(f"code/fdeploy_runtime/{path}", source)


def packed_forms(manifest: Manifest, container: Container | None) -> tuple[Form, ...]:
    """The forms that go into an artifact: those that can be computed where it is served."""
    if container is not None and container.gpu and manifest.model.gpu:
        return (Form(FP32, manifest.model.gpu),)
    machine = container.machine if container is not None else platform.machine()
    forms = tuple(form for form in manifest.model.forms if computable(form.precision, machine))
    if container is not None and container.function:
        # A function starts while somebody waits: it neither measures forms nor has room for two.
        sizes = {name: entry.bytes for name, entry in manifest.files.items()}
        chosen = for_function([(each.precision, graph_bytes(sizes, each.file)) for each in forms])
        return (forms[chosen],)
    return forms


def _packed_model(
    model: dict[str, Any], manifest: Manifest, container: Container | None
) -> dict[str, Any]:
    """The manifest's model section with the forms of the artifact, in the newest format."""
    forms = [form_entry(form) for form in packed_forms(manifest, container)]
    device = {"device": "gpu"} if container is not None and container.gpu else {}
    kept = {key: value for key, value in model.items() if key not in ("file", "precision")}
    return {**kept, "forms": forms, **device}


def _manifest(bundle: Path) -> dict[str, Any]:
    path = bundle / "manifest.json"
    return cast("dict[str, Any]", read_object(path, EXPORT_AGAIN).value)


def _wheels(container: Container | None, wheels: Sequence[Wheel]) -> Iterator[_Member]:
    if container is None:
        return
    index = {
        "python": container.python,
        "machine": container.machine,
        **({"complete": True} if container.complete else {}),
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
    """The versions that passed the parity gate, or the original learner's own requirements."""
    if _is_learner(manifest):
        return files.read(bundle / "requirements.txt").decode("utf-8", "replace")
    versions = serving_versions(bundle)
    return "".join(f"{package}=={version}\n" for package, version in versions.items())


def _is_learner(manifest: dict[str, Any]) -> bool:
    """Whether the bundle holds an original learner."""
    return "runtime" in manifest


def _changed(bundle: Path, name: str) -> FileError:
    if name.startswith("code/"):
        return FileError(f"{name} changed while it was being packed", hint="run fdeploy package")
    return FileError(f"{bundle / name} has changed since the export", hint="run fdeploy export")


def runtime_files() -> dict[str, bytes]:
    """The serving code, by path in its package. Raises FileError."""
    return {path: files.read(source) for path, source in _runtime_sources(gateway=False)}


def _runtime_sources(*, gateway: bool) -> list[tuple[str, Path]]:
    """The sources of the model server, and with ``gateway`` those of the public API."""
    public = _RUNTIME.glob("gateway/*.py") if gateway else ()
    found = sorted((*_RUNTIME.glob("*.py"), *_RUNTIME.glob("hosts/*.py"), *public))
    return [(source.relative_to(_RUNTIME).as_posix(), source) for source in found]


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
    """A file that hashes and counts the data written to it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write the data to the underlying file."""
        self.digest.update(data)
        self.size += len(data)
        return self._raw.write(data)

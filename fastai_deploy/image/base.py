"""The base image: which layers it has for a processor, and whether the serving code runs in it.

It needs Python 3.13, glibc and libstdc++, which wheels for Linux are built against. What is in it
is read from the listings of its layers; nothing of it is run.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.errors import ImageError
from fastai_deploy.image.blobs import BlobStore, Layer
from fastai_deploy.image.names import ANOTHER_BASE, DIGEST, INDEXES, Document, Reference

if TYPE_CHECKING:
    from fastai_deploy.image.registry import Repository

PYTHON = "3.13"
# Docker's names of the processors.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_GZIP = ("tar.gzip", "tar+gzip")  # the ends of the media types of compressed layers
_INTERPRETERS = (f"usr/local/bin/python{PYTHON}", f"usr/bin/python{PYTHON}")
_MOST_LIBC = 64 << 20  # bytes
_LIBC = re.compile(rb"GNU C Library .{0,80}release version 2\.(\d+)")
_DELETED, _OPAQUE = ".wh.", ".wh..wh..opq"  # OCI image specification, "Whiteouts"


@dataclass(frozen=True)
class Base:
    """A base image for one processor.

    ``reference`` has the digest of what was asked for, an index or a manifest; ``config`` is the
    image's configuration; ``python`` is the interpreter's path; ``glibc`` is 36 for 2.36.
    """

    reference: Reference
    machine: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    python: str
    glibc: int

    @property
    def platform(self) -> str:
        """The newest platform tag whose wheels run in it."""
        return f"manylinux_2_{self.glibc}_{self.machine}"


def fetch_base(
    reference: Reference,
    machine: str,
    store: BlobStore,
    repository: Repository,
    notify: Callable[[str], None],
) -> Base:
    """Download a base for a processor (``x86_64`` or ``aarch64``) and read what is in it.

    With a digest that was fetched before, nothing is asked of the registry. Raises ImageError,
    HashMismatch or FileError.
    """
    if not reference.digest:
        document = repository.document(reference.tag)
        reference = replace(reference, digest=document.digest)
    found = known_base(reference, machine, store)
    if found is not None:
        return found
    notify(f"downloading the base image {reference.named}")
    manifest = _manifest(repository, repository.document(reference.digest), machine, reference)
    layers = manifest["layers"]
    for each in (manifest["config"], *layers):
        repository.download(each["digest"], each["size"], store)
    config = _configuration(store, manifest["config"], machine, reference)
    base = _examined(reference, machine, layers, config, store)
    values = {**asdict(base), "reference": str(base.reference)}
    store.remember(_key(reference, machine), values)
    return base


def _key(reference: Reference, machine: str) -> str:
    return f"base-{reference.digest.removeprefix('sha256:')}-{machine}"


def known_base(reference: Reference, machine: str, store: BlobStore) -> Base | None:
    """The base as an earlier call fetched it, if all of its layers are still here."""
    values = store.recall(_key(reference, machine)) if reference.digest else None
    try:
        layers = tuple(Layer(**each) for each in values["layers"]) if values else ()
        if values is None or any(store.find(each.digest, each.size) is None for each in layers):
            return None
        return Base(
            reference, machine, layers, values["config"], values["python"], int(values["glibc"])
        )
    except (LookupError, TypeError, ValueError):
        return None


def _manifest(
    repository: Repository, document: Document, machine: str, reference: Reference
) -> dict[str, Any]:
    """The manifest for the processor; of an index, the one that it lists."""
    try:
        listed: dict[str, Any] = json.loads(document.data)
        if document.media_type in INDEXES:
            fitting = [each for each in listed["manifests"] if _fits(each, machine)]
            if not fitting:
                raise ImageError(
                    f"the base {reference.named} has no image for {machine}", hint=ANOTHER_BASE
                )
            chosen = repository.document(fitting[0]["digest"])
            if chosen.media_type in INDEXES:
                raise _damaged(reference)
            listed = json.loads(chosen.data)
        for each in (listed["config"], *listed["layers"]):
            if not DIGEST.fullmatch(each["digest"]) or not isinstance(each["size"], int):
                raise _damaged(reference)
        foreign = [each for each in listed["layers"] if not each["mediaType"].endswith(_GZIP)]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _damaged(reference) from None
    if foreign:
        raise ImageError(
            f"the base {reference.named} has a layer of type {foreign[0]['mediaType']}, and "
            "SageMaker takes layers compressed with gzip only",
            hint=ANOTHER_BASE,
        )
    return listed


def _fits(listed: Mapping[str, Any], machine: str) -> bool:
    platform = listed.get("platform", {})
    return (
        platform.get("os") == "linux"
        and platform.get("architecture") == ARCHITECTURES[machine]
        and platform.get("variant") in (None, "v8")
    )


def _configuration(
    store: BlobStore, listed: Mapping[str, Any], machine: str, reference: Reference
) -> dict[str, Any]:
    path = store.find(listed["digest"], listed["size"])
    try:
        config: dict[str, Any] = json.loads(files.read(path)) if path else {}
        found = (str(config["os"]), str(config["architecture"]))
        config["rootfs"]["diff_ids"]
    except (ValueError, LookupError, TypeError):
        raise _damaged(reference) from None
    if found != ("linux", ARCHITECTURES[machine]):
        raise ImageError(
            f"the base {reference.named} is for {'/'.join(found)}, not for {machine}",
            hint=ANOTHER_BASE,
        )
    return config


def _examined(
    reference: Reference,
    machine: str,
    listed: list[Mapping[str, Any]],
    config: Mapping[str, Any],
    store: BlobStore,
) -> Base:
    """Read the layers' listings. Raises ImageError if something is missing in the base."""
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(listed):
        raise _damaged(reference)
    layers = tuple(
        Layer(each["digest"], each["size"], diff_id)
        for each, diff_id in zip(listed, diff_ids, strict=True)
    )
    contents = _read(reference, layers, store)
    python = next((each for each in _INTERPRETERS if each in contents.paths), None)
    if python is None:
        raise ImageError(f"the base {reference.named} has no Python {PYTHON}", hint=ANOTHER_BASE)
    if contents.glibc is None:
        musl = " (it has musl, as Alpine has)" if contents.musl else ""
        raise ImageError(
            f"the base {reference.named} has no glibc{musl}, which ONNX Runtime needs",
            hint=ANOTHER_BASE,
        )
    if not any(PurePosixPath(each).name == "libstdc++.so.6" for each in contents.paths):
        raise ImageError(
            f"the base {reference.named} has no libstdc++.so.6, which ONNX Runtime needs",
            hint=ANOTHER_BASE,
        )
    return Base(reference, machine, layers, config, f"/{python}", contents.glibc)


def read_below(base: Base, folder: str, store: BlobStore) -> dict[str, bytes]:
    """The content of a base's files below a folder, which ends with a slash, by path.

    Raises ImageError or FileError.
    """
    return _read(base.reference, base.layers, store, folder).kept


def _read(
    reference: Reference, layers: Iterable[Layer], store: BlobStore, keep: str | None = None
) -> _Contents:
    contents = _Contents(keep)
    for layer in layers:
        path = store.find(layer.digest, layer.size)
        if path is None:
            raise _damaged(reference)
        with files.reading(path) as file:
            try:
                contents.apply(file)
            except (tarfile.TarError, EOFError, zlib.error, OSError):
                raise _damaged(reference) from None
    return contents


class _Contents:
    """The paths of an image, layer upon layer, and its C library.

    ``kept`` has the content of the files below ``keep``, a folder.
    """

    def __init__(self, keep: str | None = None) -> None:
        self._keep = keep
        self.kept: dict[str, bytes] = {}
        self.paths: set[str] = set()
        self.glibc: int | None = None
        self.musl = False

    def apply(self, layer: BinaryIO) -> None:
        """Add a layer. Raises TarError, EOFError, zlib.error or OSError if it is damaged."""
        added = set()
        # By itself, tarfile reads the first gzip member of a stream alone.
        with gzip.open(layer) as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as tar:
            for info in tar:
                path = PurePosixPath(info.name.removeprefix("/"))
                if path.name == _OPAQUE:
                    self._remove(f"{path.parent}/")
                elif path.name.startswith(_DELETED):
                    gone = str(path.with_name(path.name.removeprefix(_DELETED)))
                    self._remove(gone)
                elif not info.isdir():
                    added.add(str(path))
                    self._look(tar, info, path.name)
                    if self._keep and info.isreg() and str(path).startswith(self._keep):
                        content = tar.extractfile(info)
                        self.kept[str(path)] = content.read() if content else b""
        self.paths |= added

    def _remove(self, gone: str) -> None:
        below = gone if gone.endswith("/") else f"{gone}/"
        removed = {each for each in self.paths if each == gone or each.startswith(below)}
        self.paths -= removed
        for each in removed:
            self.kept.pop(each, None)

    def _look(self, tar: tarfile.TarFile, info: tarfile.TarInfo, name: str) -> None:
        if name.startswith("ld-musl-"):
            self.musl = True
        is_libc = name == "libc.so.6" or re.fullmatch(r"libc-2\.\d+\.so", name)
        if (
            is_libc
            and info.isreg()
            and info.size < _MOST_LIBC
            and (content := tar.extractfile(info))
        ):
            match = _LIBC.search(content.read())
            self.glibc = int(match[1]) if match else self.glibc


def _damaged(reference: Reference) -> ImageError:
    return ImageError(
        f"the base {reference.named} is damaged, or not a container image",
        hint=ANOTHER_BASE,
    )

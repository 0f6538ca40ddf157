"""The image of fdeploy's own server: a base, a layer for each wheel, the serving code, bytecode.

    ENTRYPOINT python3.13 -m fdeploy_runtime.hosts.container    CMD serve

It holds no model: SageMaker unpacks ``model.tar.gz`` to /opt/ml/model, so that one image serves
all models. The same input makes the same image, byte for byte, on a machine with the same Python
3.13; the bytecode in it is the only part that depends on the machine, and no part of the tag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastai_deploy import __version__, files
from fastai_deploy.cache import using
from fastai_deploy.errors import FileMissing, ImageError
from fastai_deploy.image.base import (
    ARCHITECTURES,
    PYTHON,
    Base,
    fetch_base,
    known_base,
)
from fastai_deploy.image.blobs import BlobStore, Layer
from fastai_deploy.image.bytecode import BYTECODE, bytecode_layer
from fastai_deploy.image.layers import CODE, MODEL, PACKAGES, code_layer, model_layer, wheel_layer
from fastai_deploy.image.names import (
    DIGEST,
    MANIFEST,
    OCI_MANIFEST,
    Destination,
    Document,
    Reference,
    digest_of,
)
from fastai_deploy.image.sbom import render_sbom
from fastai_deploy.interpreters import find_python
from fastai_deploy.naming import image_tag
from fastai_deploy.packaging.artifact import runtime_files
from fastai_deploy.packaging.lock_files import shipped_lock
from fastai_deploy.packaging.wheels import (
    OPENVINO,
    SERVING,
    Container,
    Wheel,
    default_cache,
    fetch,
    newest,
)
from fastai_deploy.runtime.telemetry import SWITCHES

if TYPE_CHECKING:
    from fastai_deploy.image.registry import Repository

# The server, and what it imports.
_SERVER = ("click", "h11", "httptools", "uvicorn")
PORT = 8080
SBOM = "sbom.cdx.json"
# By media type: those of a registry that SageMaker reads from, and those of an OCI archive.
# SageMaker refuses OCI's: aws/amazon-sagemaker-feedback issue 180.
_TYPES = {
    MANIFEST: (
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    OCI_MANIFEST: (
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
}
_LABEL = "org.opencontainers.image"
BASE_DIGEST, BASE_NAME = f"{_LABEL}.base.digest", f"{_LABEL}.base.name"
"""The labels that say which base an image has. Source: OCI image specification, "Annotations"."""

Fetch = Callable[[Container, Mapping[str, str]], Sequence[Wheel]]
"""Fetches the wheels of these versions for a container."""


@dataclass(frozen=True)
class Wanted:
    """Which image: for a processor (``x86_64`` or ``aarch64``), with OpenVINO or without.

    ``base`` is the digest of the base to take, empty if none is known. ``pull`` asks the registry
    which one the base's tag names now, whatever is known.
    """

    machine: str
    openvino: bool = False
    base: str = ""
    pull: bool = False


@dataclass(frozen=True)
class Model:
    """A model that goes into the image: the artifact, and its version in answers."""

    artifact: Path
    sha256: str
    version: str


@dataclass(frozen=True)
class BuiltImage:
    """An image: its layers from the first, their files, its configuration, and what is in it."""

    layers: tuple[Layer, ...]
    paths: tuple[Path, ...]
    config: bytes
    sbom: bytes

    @property
    def digest(self) -> str:
        """The digest of OCI's manifest, which an archive has."""
        return self.manifest(OCI_MANIFEST).digest

    def manifest(self, media_type: str) -> Document:
        """The manifest in Docker's format or OCI's."""
        of_config, of_layer = _TYPES[media_type]
        document = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _descriptor(of_config, digest_of(self.config), len(self.config)),
            "layers": [_descriptor(of_layer, each.digest, each.size) for each in self.layers],
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        return Document(digest_of(data), media_type, data)


class ServingImage:
    """What an image will consist of; nothing is downloaded or built before ``build``.

    ``reference`` names the base by its digest, and ``base`` downloads it. ``openvino`` adds
    OpenVINO, which some artifacts need. ``wheels`` fetches the wheels, and ``find`` the Python
    of a version on this machine.
    """

    def __init__(
        self,
        reference: Reference,
        machine: str,
        base: Callable[[], Base],
        store: BlobStore,
        notify: Callable[[str], None],
        *,
        openvino: bool = False,
        wheels: Fetch | None = None,
        find: Callable[[str], Path | None] = find_python,
    ) -> None:
        self._reference = reference
        self.machine = machine
        self._base = base
        self._store = store
        self._notify = notify
        self._find = find
        self._wheels = wheels or partial(fetch, cache=default_cache(), notify=notify)
        names = (*SERVING, *_SERVER, *((OPENVINO,) if openvino else ()))
        self._versions = newest(names)

    @property
    def base(self) -> str:
        """The base, with its digest."""
        return str(self._reference)

    @property
    def base_digest(self) -> str:
        """The base's digest."""
        return self._reference.digest

    @property
    def container(self) -> Container:
        """What an artifact for it must match."""
        return container_of(self.machine)

    @property
    def tag(self) -> str:
        """The name of this input: the same input, the same image."""
        parts: list[str] = [self.base_digest, self.machine, _config_code()]
        for pin in shipped_lock():
            if self._versions.get(pin.name) == pin.version:
                parts += [pin.name, pin.version, *sorted(pin.hashes)]
        for path, data in sorted(runtime_files().items()):
            parts += [path, hashlib.sha256(data).hexdigest()]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return image_tag(__version__, self.machine, digest)

    def build(self, model: Model | None = None, *, user: str = "") -> BuiltImage:
        """Download the base and make the layers, as far as this machine does not have them yet.

        ``model`` goes in too. ``user``: who runs it, if not root (see ``hosts/container.py``).
        Raises ImageError, WheelMissing, HashMismatch, ExtraMissing or FileError.
        """
        with using(self._store.folder):
            return self._build(model, user)

    def _build(self, model: Model | None, user: str) -> BuiltImage:
        base = self._base()
        fitting = Container("fdeploy image", PYTHON, base.platform)
        wheels = self._wheels(fitting, self._versions)
        self._notify(f"building the image for {self.machine}")
        content = {f"fdeploy_runtime/{path}": data for path, data in runtime_files().items()}
        sbom = content[SBOM] = render_sbom(base, wheels)
        store, python = self._store, self._find(PYTHON)
        if python is None:
            self._notify(
                f"there is no Python {PYTHON} here to compile sources with, so that each start of "
                "the image takes about a second longer"
            )
        # Hashing and unpacking take all of the time, outside Python's lock; compiling, a process.
        with ThreadPoolExecutor() as pool:
            compiled = (
                pool.submit(bytecode_layer, base, wheels, content, python, store)
                if python
                else None
            )
            made = {
                wheel: pool.submit(wheel_layer, wheel, store)
                for wheel in sorted(wheels, key=_size, reverse=True)
            }
            own = [made[wheel].result() for wheel in wheels]
            own.append(code_layer(content, store))
            if compiled is not None:
                own.append(compiled.result())
        if model is not None:
            own.append(model_layer(model.artifact, model.sha256, store))
        layers = [*base.layers, *own]
        paths = [self._path(layer) for layer in layers]
        config = _config(base, layers, model.version if model else "", user)
        return BuiltImage(tuple(layers), tuple(paths), config, sbom)

    def _path(self, layer: Layer) -> Path:
        path = self._store.find(layer.digest, layer.size)
        if path is None:
            raise ImageError(
                "a layer of the image is gone from this machine's cache",
                hint="run the command again, which downloads or makes it anew",
            )
        return path

    def push(self, to: Destination) -> str:
        """Upload what the repository lacks, and the manifest under the image's tag.

        Returns the digest. Raises as ``build`` does.
        """
        from fastai_deploy.image.registry import Repository  # noqa: PLC0415 - requests, jsonschema

        image = self.build()
        repository = Repository.of(to)
        for number, (layer, path) in enumerate(zip(image.layers, image.paths, strict=True), 1):
            self._notify(
                f"pushing the image: layer {number} of {len(image.layers)}, {layer.size:,} bytes"
            )
            repository.upload(layer.digest, layer.size, path)
        digest, size = self._store.add([image.config], size=len(image.config))
        made = self._store.find(digest, size)
        if made is not None:
            repository.upload(digest, size, made)
        manifest = image.manifest(MANIFEST)
        repository.put(self.tag, manifest)
        return manifest.digest


_ENVIRONMENT: Mapping[str, str] = {
    "PYTHONPATH": f"/{CODE}:/{PACKAGES}",
    "PYTHONDONTWRITEBYTECODE": "1",  # the file system may be read-only
    "PYTHONPYCACHEPREFIX": f"/{BYTECODE}",
    "PYTHONUNBUFFERED": "1",
    "HOME": "/tmp",  # noqa: S108 - in the container
    "FDEPLOY_MODEL_DIR": f"/{MODEL}",
    **SWITCHES,
}


def _config(base: Base, layers: Sequence[Layer], version: str, user: str) -> bytes:
    """The image's configuration, on top of the base's own."""
    own = dict(base.config.get("config") or {})
    environment = {
        **dict(each.partition("=")[::2] for each in own.get("Env") or ()),
        **_ENVIRONMENT,
        **({"FDEPLOY_VERSION": version} if version else {}),
    }
    of_base = (own.get("Labels") or {}).items()
    labels = {
        **{name: value for name, value in of_base if not name.startswith(_LABEL)},
        f"{_LABEL}.title": "fdeploy-server",
        f"{_LABEL}.version": __version__,
        f"{_LABEL}.licenses": "Apache-2.0",
        f"{_LABEL}.documentation": "https://pypi.org/project/fastai-deploy/",
        BASE_NAME: str(replace(base.reference, digest="")),
        BASE_DIGEST: base.reference.digest,
    }
    for inherited in ("Volumes", "OnBuild", "Healthcheck", "Shell", "StopSignal"):
        own.pop(inherited, None)
    created = str(base.config.get("created") or "1970-01-01T00:00:00Z")
    history = list(base.config.get("history") or ())
    added = len(layers) - len(base.layers)
    history += [{"created": created, "created_by": "fdeploy"}] * added
    document = {
        "architecture": ARCHITECTURES[base.machine],
        "os": "linux",
        "created": created,
        "config": {
            **own,
            "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
            "Entrypoint": [base.python, "-P", "-m", "fdeploy_runtime.hosts.container"],
            "Cmd": ["serve"],
            "ExposedPorts": {f"{PORT}/tcp": {}},
            "WorkingDir": "/",
            "User": user,
            "Labels": dict(sorted(labels.items())),
        },
        "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
        "history": history,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def container_of(machine: str) -> Container:
    """What an artifact for this image must match; the image brings wheels and serving code."""
    return Container(
        "image of fdeploy's server", PYTHON, f"manylinux_2_34_{machine}", complete=True
    )


def serving_image(
    reference: str,
    wanted: Wanted,
    notify: Callable[[str], None],
    *,
    store: BlobStore,
    record: Path,
) -> ServingImage:
    """Find which base an image has, and describe the image on it.

    The base is the one that ``reference`` names by its digest; else what ``wanted`` says; else the
    one in the file ``record``, which keeps the one of the last image; else, and to ``pull``, the
    registry is asked. Raises ImageError, HashMismatch or FileError.
    """
    asked = Reference.parse(reference)
    if asked.digest and wanted.pull:
        notify("--pull changes nothing: base_image in [package] names its build by a digest")
    digest = asked.digest or ("" if wanted.pull else wanted.base or _recorded(record, asked))
    base = replace(asked, digest=digest or _repository(asked).resolve(asked.tag))

    def fetched() -> Base:
        found = known_base(base, wanted.machine, store)
        if found is None:
            found = fetch_base(base, wanted.machine, store, _repository(asked), notify)
        _record(record, asked, base.digest)
        return found

    if wanted.base == base.digest:  # an image was made on it
        _record(record, asked, base.digest)
    return ServingImage(base, wanted.machine, fetched, store, notify, openvino=wanted.openvino)


def _size(wheel: Wheel) -> int:
    return files.size_of(wheel.path) or 0


def _repository(reference: Reference) -> Repository:
    from fastai_deploy.image.registry import Repository  # noqa: PLC0415 - requests, jsonschema

    return Repository(reference.place)


def _record(record: Path, asked: Reference, digest: str) -> None:
    """Keep the digest of a base, unless its name has it."""
    if not asked.digest and digest != _recorded(record, asked):
        kept = {"base": str(asked), "digest": digest}
        files.write(record, (json.dumps(kept, indent=2) + "\n").encode())


def _recorded(record: Path, asked: Reference) -> str:
    """The digest in the record, if that is about the same base; else empty."""
    try:
        kept = json.loads(files.read(record))
        if kept["base"] == str(asked) and DIGEST.fullmatch(kept["digest"]):
            return str(kept["digest"])
    except (FileMissing, ValueError, LookupError, TypeError):
        pass  # resolved again, and written anew
    return ""


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _config_code() -> str:
    return json.dumps(dict(_ENVIRONMENT), sort_keys=True)

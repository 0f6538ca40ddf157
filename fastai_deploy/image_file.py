"""``fdeploy image``: the image of the own server as a file, with or without the stage's model."""

from __future__ import annotations

import platform
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy import files, freshness, naming
from fastai_deploy.bundle import Manifest, read_manifest
from fastai_deploy.errors import UsageError
from fastai_deploy.image.archive import write_archive
from fastai_deploy.image.base import ARCHITECTURES
from fastai_deploy.image.blobs import default_store
from fastai_deploy.image.build import Model, ServingImage, Wanted, container_of, serving_image
from fastai_deploy.packaging.artifact import needs_openvino, write_artifact
from fastai_deploy.progress import Advanced, Step, Warned
from fastai_deploy.project import Project
from fastai_deploy.records import Bundle

_USER = "1000:1000"
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}  # as other systems call them


@dataclass(frozen=True)
class ImageRequest:
    """What to write: ``sbom`` is the file of its contents' list; ``pull`` asks for a newer base."""

    output: Path
    with_model: bool
    machine: str | None
    sbom: Path | None
    pull: bool
    overwrite: bool


@dataclass(frozen=True)
class ImageFile:
    """The file that was written, and the image in it.

    ``model`` is the version of the model in it, empty for none; ``digest`` is the manifest's.
    """

    path: str
    bytes: int
    name: str
    digest: str
    base: str
    machine: str
    model: str
    sbom: str

    def values(self) -> ImageFile:
        """The result itself is its shape."""
        return self

    def lines(self) -> Iterator[str]:
        """The file, and how to run it."""
        yield f"image    {self.path} ({self.bytes:,} bytes)"
        yield f"name     {self.name}"
        yield f"digest   {self.digest}"
        yield f"base     {self.base}"
        yield f"for      {self.machine}"
        yield f"model    {self.model or 'none: mount an unpacked model.tar.gz at /opt/ml/model'}"
        if self.sbom:
            yield f"sbom     {self.sbom}"
        mount = "" if self.model else " -v MODEL:/opt/ml/model:ro"
        yield f"run      docker load -i {shlex.quote(self.path)}"
        yield f"         docker run --read-only -p 8080:8080{mount} {self.name}"


def write_image(project: Project, request: ImageRequest) -> ImageFile:
    """Build the image and write it as a file.

    Raises UsageError, ImageError, HashMismatch, WheelMissing, ExtraMissing or FileError; with a
    model RecordMissing or RecordStale, if the stage has no bundle.
    """
    if request.output.is_dir():
        raise UsageError(f"{request.output} is a folder", hint="name a file, such as image.tar")
    if request.output.exists() and not request.overwrite:
        raise UsageError(
            f"{request.output} exists already", hint="add --overwrite, or name another --output"
        )
    machine = request.machine or _here()
    if machine not in ARCHITECTURES:
        raise UsageError(
            f"there is no image for {machine}", hint="add --machine x86_64 or --machine aarch64"
        )
    bundle = freshness.bundle(project) if request.with_model else project.workspace.find(Bundle)
    manifest = read_manifest(Path(bundle.path))[0] if bundle else None
    if manifest and manifest.runtime is not None:
        why = (
            "a learner served from its original pickle needs its own packages, which this image "
            "does not have"
        )
        way_out = "serve it with fdeploy up, on this machine or on AWS"
        if request.with_model:
            raise UsageError(why, hint=way_out)
        project.report(Warned(f"this image cannot serve the model of this stage: {why}", way_out))

    def notify(message: str) -> None:
        project.report(Step(message))

    image = serving_image(
        project.settings.sections.package.base_image,
        Wanted(machine, _openvino(manifest, machine), pull=request.pull),
        notify,
        store=default_store(),
        record=project.workspace.base_image,
    )
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        model = None
        if bundle and request.with_model:
            model = _model(project, bundle, image, Path(folder))
        built = image.build(model, user=_USER)
    version = model.version if model else ""
    stage = f"{project.settings.project_name}-{project.settings.stage}"
    name = f"{stage}:{version}" if version else f"fdeploy-server:{image.tag}"
    size = write_archive(
        built,
        name,
        request.output,
        machine,
        notify=lambda done, total: project.report(Advanced("image", done, total)),
    )
    if request.sbom is not None:
        files.write(request.sbom, built.sbom)
    return ImageFile(
        path=str(request.output),
        bytes=size,
        name=name,
        digest=built.digest,
        base=image.base,
        machine=machine,
        model=version,
        sbom=str(request.sbom or ""),
    )


def _here() -> str:
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


def _openvino(manifest: Manifest | None, machine: str) -> bool:
    """Whether the image needs OpenVINO; one for any model has it where there is one."""
    if manifest is None:
        return machine == "x86_64"
    return needs_openvino(manifest, container_of(machine))


def _model(project: Project, bundle: Bundle, image: ServingImage, folder: Path) -> Model:
    """Pack the bundle for the image."""
    artifact = folder / "model.tar.gz"
    written = write_artifact(
        Path(bundle.path),
        artifact,
        container=image.container,
        name=project.settings.sections.package.name or bundle.name,
        notify=lambda done, total: project.report(Advanced("package", done, total)),
    )
    return Model(artifact, written.sha256, naming.short(written.sha256))

"""What an artifact has to fit on AWS: the Python and the platform of the image that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.aws.image_tables import installed_tables
from fastai_deploy.aws.images import Image, choose_image
from fastai_deploy.aws.instances import Instance, known_types
from fastai_deploy.aws.specs import wanted_instance
from fastai_deploy.errors import FileError, SettingsError
from fastai_deploy.json_reader import parse
from fastai_deploy.settings import Settings
from fastai_deploy.wheels import Container

# The serving toolkits themselves need it, so that every image of AWS has it; what else an image has
# is of another version than the one that the parity gate was passed with.
_EVERY_IMAGE_HAS = frozenset({"numpy"})


def chosen_image(
    settings: Settings, region: str, served: ServedModel | None
) -> tuple[Instance, Image]:
    """The instance and the image of these settings, for the model that is there, if one is.

    Raises SettingsError or TargetUnavailable.
    """
    endpoint = settings.sections.endpoint
    on = wanted_instance(settings, known_types())
    image = choose_image(
        installed_tables(),
        on,
        region=region,
        server=endpoint.server,
        override=endpoint.image,
        python=served.python if served else None,
    )
    return on, image


@dataclass(frozen=True)
class ServedModel:
    """What a bundle has to be served: the size of its model, and the Python of a learner.

    ``bytes`` is of the file that a processor computes, ``gpu_bytes`` of the one for a GPU, None
    where there is none. ``python`` is None for a converted model, which runs in any.
    """

    bytes: int
    gpu_bytes: int | None
    python: str | None

    @property
    def learner(self) -> bool:
        """Whether the learner is served as it is."""
        return self.python is not None


def served_model(bundle: Path) -> ServedModel | None:
    """What the manifest of a bundle says; None where nothing sound is there yet."""
    try:
        manifest = parse(files.read(bundle / "manifest.json"))
        python = (manifest.get("runtime") or {}).get("python")
        listed, model = manifest["files"], manifest["model"]
        gpu = model.get("gpu")
        return ServedModel(
            bytes=int(listed[model["file"]]["bytes"]),
            gpu_bytes=int(listed[gpu]["bytes"]) if gpu else None,
            python=str(python) if python else None,
        )
    except (FileError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None


def serving_container(settings: Settings, region: str, bundle: Path) -> Container:
    """The container of these settings. Raises SettingsError or TargetUnavailable."""
    served = served_model(bundle)
    on, image = chosen_image(settings, region, served)
    if image.python is None:
        raise SettingsError(
            f"the name of the image does not tell its Python: {image.uri}",
            hint="give the image a tag with its Python in it, such as 1.0-py312",
        )
    known = settings.sections.endpoint.image is None
    has_gpu = image.accelerator == "gpu"
    return Container(
        name=f"{image.family} image",
        python=image.python,
        platform=image.platform,
        has=_EVERY_IMAGE_HAS if known else frozenset(),
        known=known,
        gpu=has_gpu and served is not None and served.gpu_bytes is not None,
        warnings=tuple(_unused(on, served)) if has_gpu and served else (),
    )


def _unused(on: Instance, served: ServedModel) -> Iterator[str]:
    """A warning, where the model cannot be computed on the GPU that is there."""
    if served.gpu_bytes is None:
        why = "its graph is not one that fdeploy computes on a GPU"
        if served.learner:
            why = "a learner that is served as it is computes there"
        yield (
            f"the artifact runs on the processor ({why}): "
            f"the GPU of {on.type} is paid for and not used"
        )

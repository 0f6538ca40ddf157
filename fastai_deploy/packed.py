"""What an artifact was packed for, as the artifact itself says: read from ``model.tar.gz``.

    code/wheels/wheels.json    the Python and the processor, and the wheels with their platforms
    manifest.json              the Python of a learner that is served as it is

A record may be lost, or be another machine's; the file is what the container is given.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.errors import FileError
from fastai_deploy.json_reader import parse
from fastai_deploy.wheels import Container

_INDEX = "code/wheels/wheels.json"
_MANIFEST = "manifest.json"
_EVERYWHERE = "any"


@dataclass(frozen=True)
class Packed:
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


def read_packed(artifact: Path) -> Packed:
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
        return Packed(
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

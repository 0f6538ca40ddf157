"""fdeploy's model server in its own container image, as it serves on SageMaker by default.

The image is built by the real code on a base that ``debootstrap`` makes, unpacked by ``umoci`` and
run by ``runc``: a read-only root file system, a user that is not root, the artifact mounted at
/opt/ml/model. So it needs root on Debian, with these three and ``skopeo``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.comparison.competitors.base import MARK, Competitor, Failed, Launch, Site
from benchmarks.comparison.models import DEFAULT, Model
from fastai_deploy.errors import FdeployError
from tests.containers.own_image import debootstrap, limited, put_base, unpack_image, write_image
from tests.registry import running_registry

MACHINE = "x86_64"
_FOLDER = "own-image"


def prepare(model: Model, _python: Path) -> None:
    """Unpack the image of today's code below the work folder, once a run."""
    place = model.work / _FOLDER
    try:
        with tempfile.TemporaryDirectory() as scratch, running_registry() as registry:
            put_base(registry, debootstrap(None))
            archive = Path(scratch, "image.tar")
            write_image(registry, archive, MACHINE, openvino=True)
            shutil.rmtree(place, ignore_errors=True)
            unpack_image(archive, place)
    except (OSError, subprocess.CalledProcessError, FdeployError) as error:
        raise Failed(f"the image cannot be made: {error}") from error


def _launch(site: Site, form: str) -> Launch:
    """The container; each start has its own configuration of the same root."""
    unpacked = site.model.work / _FOLDER / "container"
    config: dict[str, Any] = json.loads((unpacked / "config.json").read_bytes())
    config["root"]["path"] = str(unpacked / "rootfs")
    address = {"PORT": str(site.port), "FDEPLOY_HOST": "127.0.0.1", MARK: str(site.folder)}
    limited(config, address, model=site.model.artifact(form, "local"), memory=None)
    (site.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = ("runc", "run", "--bundle", str(site.folder), f"fdeploy-{site.port}")
    return Launch(command, site.folder)


def competitor(form: str) -> Competitor:
    """The container with a form of the model."""
    return Competitor(
        "fdeploy-image",
        "fdeploy (its own image)",
        "The artifact with default settings in a container of fdeploy's own image, which serves on "
        "SageMaker by default, run by `runc`.",
        lambda site: _launch(site, form),
        prepare=prepare,
        form=form,
    )


COMPETITOR = competitor(DEFAULT)

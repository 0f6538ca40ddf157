"""A virtual environment with pinned versions for each kind of server, created once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WORK = Path("~/.cache/fastai-deploy/comparison")
"""Where environments and learners are kept."""

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Environment:
    """Packages for one Python; ``without`` are dependencies to uninstall because they break it."""

    name: str
    requirements: tuple[str, ...]
    python: str = _PYTHON
    without: tuple[str, ...] = ()

    def make(self, folder: Path) -> Path:
        """Return its interpreter below ``folder``; create the environment if it is missing."""
        place = folder / self.name
        python = place / "bin" / "python"
        if (place / ".complete").exists():
            return python
        print(f"installing {self.name}: {' '.join(self.requirements)}", flush=True)
        make = [_interpreter(self.python), "-m", "venv", "--clear", str(place)]
        subprocess.run(make, check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *self.requirements]
        subprocess.run(install, check=True)
        if self.without:
            subprocess.run(
                [str(python), "-m", "pip", "uninstall", "-q", "-y", *self.without], check=True
            )
        (place / ".complete").touch()
        return python


def _interpreter(version: str) -> str:
    """A Python of this version: this one, one on the PATH, or one of pyenv's."""
    if version == _PYTHON:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"{version}.*/bin/python"))]
    for each in filter(None, found):
        # A shim of pyenv is on the PATH even if it starts nothing.
        if subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
            return each
    sys.exit(f"one of the servers needs python{version}, which is not on the PATH")


_TORCH = ("torch==2.13.0", "transformers==5.23.0")
_TORCHSERVE = (
    "sagemaker-pytorch-inference==2.0.25",
    "torchserve==0.12.0",
    "torch-model-archiver==0.12.0",
    "pyyaml==6.0.4",
    "setuptools<80",  # for pkg_resources
)

# fastai brings a torchvision built for CUDA, on which transformers fails with a torch for CPUs.
TOOLKIT = Environment(
    "toolkit", (*_TORCH, "fastai==2.8.12", *_TORCHSERVE), without=("torchvision",)
)
LITSERVE = Environment("litserve", (*_TORCH, "litserve==0.2.19"))
BENTOML = Environment("bentoml", (*_TORCH, "bentoml==1.4.40"))
RAY = Environment("ray", (*_TORCH, "ray[serve]==2.57.0"))
# Infinity needs sentence-transformers below 4, which needs transformers below 5.
INFINITY = Environment(
    "infinity",
    ("torch==2.13.0", "infinity-emb[server,torch]==0.0.78", "transformers==4.57.6"),
    without=("torchvision",),
)
OPENVINO = Environment(
    "openvino", (*_TORCH, "openvino==2026.4.1", "starlette==1.3.1", "uvicorn[standard]==0.41.0")
)
# The transformers of AWS's last image with this toolkit.
HUGGINGFACE = Environment(
    "huggingface",
    (
        "torch==2.13.0",
        "transformers==4.51.3",
        "sagemaker-huggingface-inference-toolkit[mms]==2.6.0",
        "sagemaker-inference==1.10.1",
        "multi-model-server==1.1.11",
        "setuptools<80",
    ),
    without=("torchvision",),
)
# The software of AWS's images; see docs/containers.md. torch is imported but not used.
IMAGE_TORCHSERVE = Environment("torchserve", ("torch==2.6.0", *_TORCHSERVE), "3.12")
IMAGE_RAY = Environment(
    "ray-serve",
    (
        "ray[serve]==2.57.0",
        "jinja2==3.1.6",
        "numpy==2.5.2",
        # for AWS's adapter
        "boto3==1.43.68",
        "fastapi==0.133.1",
        "httpx==0.28.1",
        "uvicorn[standard]==0.41.0",
    ),
    "3.13",
)

"""The software of each kind of image, from the package index, in a virtual environment.

Differences from AWS's images: there is no container, the operating system is this machine's, and
torch is the build on the package index (for CUDA, which finds no GPU).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Toolkit and TorchServe import pkg_resources, which setuptools 80 has no more.
_TOOLKIT = ("sagemaker-pytorch-inference", "torchserve", "torch-model-archiver", "pyyaml")


@dataclass(frozen=True)
class Family:
    """A kind of image; ``settings`` lead fdeploy to it, for an instance with a GPU."""

    name: str
    python: str
    requirements: tuple[str, ...]
    settings: str
    server: Literal["torchserve", "ray-serve", "fdeploy"]


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "torchserve",
            "3.12",
            ("torch==2.6.0", *_TOOLKIT, "setuptools<80"),
            'instance = "ml.g5.xlarge"\nserver = "torchserve"',
            "torchserve",
        ),
        Family(
            "ray-serve",
            "3.13",
            (
                *("ray[serve]==2.57.0", "uvicorn[standard]==0.41.0", "fastapi==0.133.1"),
                *("httpx==0.28.1", "boto3==1.43.68", "numpy==2.5.2", "torch==2.10.0"),
            ),
            'instance = "ml.g5.xlarge"\nserver = "ray-serve"',
            "ray-serve",
        ),
        Family(
            "p2",
            "3.8",
            (
                *("torch==1.12.1", "sagemaker-pytorch-inference==2.0.10", "torchserve==0.6.1"),
                *("torch-model-archiver==0.6.1", "pyyaml", "setuptools<80"),
            ),
            'instance = "ml.p2.xlarge"',
            "torchserve",
        ),
    )
}


OWN_IMAGE = Family("own-image", "3.13", (), "", "fdeploy")


def environment(family: Family, interpreter: Path, folder: Path) -> Path:
    """The Python of the family's environment below ``folder``, which is made if it is not there."""
    place = folder / family.name
    python = place / "bin" / "python"
    if not (place / ".complete").exists():
        subprocess.run([interpreter, "-m", "venv", "--clear", place], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *family.requirements], check=True
        )
        (place / ".complete").touch()
    return python

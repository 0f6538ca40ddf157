"""What is known of SageMaker's instance types, without asking AWS.

    ml.g5.xlarge -> family g5: a GPU, and a local disk that the user's KMS key cannot encrypt

Which types there are says the service model that botocore ships; what a family has says the table
here. Sources: "Instance types" of EC2 for processors and disks; "Amazon SageMaker AI pricing".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from botocore.loaders import Loader

from fastai_deploy.errors import SettingsError

DEFAULT_INSTANCE = "ml.m5.large"  # the type that most accounts and regions have
LIVING_GPUS = "ml.g4dn.xlarge, ml.g5.xlarge or ml.g6.xlarge"

Accelerator = Literal["none", "gpu", "neuron", "gaudi"]

# p6 and g7 carry Blackwell GPUs, which need a newer driver than the others.
_BLACKWELL = re.compile(r"(p6|g7)")
_GPU = re.compile(r"[pg][0-9]")
_NEURON = re.compile(r"(inf|trn)[0-9]")
# The last letters of a family tell its processor and its disk: c6gd is Graviton with a disk.
_GRAVITON = re.compile(r"[cmrt][0-9]+g")
_DISK = re.compile(r"([cmr][0-9]+[a-z]*d|[pg][0-9]+[a-z]*|p6-b[0-9]+|trn[0-9]+n?)$")
_BURSTABLE = re.compile(r"t[0-9]")
# GPUs of before 2018 (Kepler, Volta), whose instances have no disk of their own either.
_OLD_GPUS = frozenset(("p2", "p3"))


@dataclass(frozen=True)
class Instance:
    """An instance type, such as ``ml.c6gd.xlarge``, and what its name tells."""

    type: str

    @property
    def family(self) -> str:
        """``c6gd``."""
        return self.type.split(".")[1]

    @property
    def accelerator(self) -> Accelerator:
        """What it computes with beside its processor."""
        if _NEURON.match(self.family):
            return "neuron"
        if self.family.startswith("dl1"):
            return "gaudi"
        return "gpu" if _GPU.match(self.family) else "none"

    @property
    def arm(self) -> bool:
        """Whether its processor is a Graviton (or, beside a GPU, a Grace)."""
        return bool(_GRAVITON.match(self.family)) or self.family.startswith(("g5g", "p6e-gb"))

    @property
    def old_gpu(self) -> bool:
        """Whether its GPU is so old that software leaves it behind."""
        return self.family in _OLD_GPUS

    @property
    def blackwell(self) -> bool:
        """Whether its GPU is of NVIDIA's Blackwell generation."""
        return bool(_BLACKWELL.match(self.family))

    @property
    def burstable(self) -> bool:
        """Whether it earns credits, which SageMaker does not autoscale."""
        return bool(_BURSTABLE.match(self.family))

    @property
    def has_local_disk(self) -> bool:
        """Whether it stores on a disk of its own, which takes no KMS key of the user's."""
        return not self.old_gpu and bool(_DISK.match(self.family))


@cache
def known_types() -> tuple[str, ...]:
    """The instance types of real-time endpoints that this botocore knows.

    Reading them takes 50 ms, and a command asks half a dozen times.
    """
    shapes = Loader().load_service_model("sagemaker", "service-2")["shapes"]
    types: Sequence[str] = shapes["ProductionVariantInstanceType"]["enum"]
    return tuple(types)


def instance(name: str, known: Sequence[str]) -> Instance:
    """The instance type of a name. Raises SettingsError with the nearest known names."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise SettingsError(
            f"SageMaker has no instance type {name} for endpoints",
            hint=f"did you mean {', '.join(near)}?" if near else "such as ml.m5.large",
        )
    return Instance(name)

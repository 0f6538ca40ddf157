"""Instance types and their memory: whether a model fits, estimated without calling AWS."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from botocore.loaders import Loader

from fastai_deploy.errors import SettingsError
from fastai_deploy.stage_reports import Check, Outcome

DEFAULT_INSTANCE = "ml.m5.large"  # available in most accounts and regions
LIVING_GPUS = "ml.g4dn.xlarge, ml.g5.xlarge or ml.g6.xlarge"

Accelerator = Literal["none", "gpu", "neuron", "gaudi"]

# p6 and g7 carry Blackwell GPUs, which need a newer driver than the others.
_BLACKWELL = re.compile(r"(p6|g7)")
_GPU = re.compile(r"[pg][0-9]")
_NEURON = re.compile(r"(inf|trn)[0-9]")
# The last letters of a family encode its processor and disk: c6gd is Graviton with a disk.
_GRAVITON = re.compile(r"[cmrt][0-9]+g")
_DISK = re.compile(r"([cmr][0-9]+[a-z]*d|[pg][0-9]+[a-z]*|p6-b[0-9]+|trn[0-9]+n?)$")
_BURSTABLE = re.compile(r"t[0-9]")
# GPUs from before 2018 (Kepler, Volta), whose instances have no local disk either.
_OLD_GPUS = frozenset(("p2", "p3"))


@dataclass(frozen=True)
class Instance:
    """An instance type, such as ``ml.c6gd.xlarge``, and what its name says."""

    type: str

    @property
    def family(self) -> str:
        """``c6gd``."""
        return self.type.split(".")[1]

    @property
    def accelerator(self) -> Accelerator:
        """The kind of accelerator it has."""
        if _NEURON.match(self.family):
            return "neuron"
        if self.family.startswith("dl1"):
            return "gaudi"
        return "gpu" if _GPU.match(self.family) else "none"

    @property
    def arm(self) -> bool:
        """Whether its processor is a Graviton (or, next to a GPU, a Grace)."""
        return bool(_GRAVITON.match(self.family)) or self.family.startswith(("g5g", "p6e-gb"))

    @property
    def old_gpu(self) -> bool:
        """Whether current software no longer supports its GPU."""
        return self.family in _OLD_GPUS

    @property
    def blackwell(self) -> bool:
        """Whether its GPU is of NVIDIA's Blackwell generation."""
        return bool(_BLACKWELL.match(self.family))

    @property
    def burstable(self) -> bool:
        """Whether it is burstable; SageMaker does not autoscale such types."""
        return bool(_BURSTABLE.match(self.family))

    @property
    def has_local_disk(self) -> bool:
        """Whether it has a local disk, which cannot be encrypted with the user's KMS key."""
        return not self.old_gpu and bool(_DISK.match(self.family))


@cache
def known_types() -> tuple[str, ...]:
    """The instance types of real-time endpoints that this botocore knows.

    Cached, because reading them takes 50 ms and a command needs them half a dozen times.
    """
    shapes = Loader().load_service_model("sagemaker", "service-2")["shapes"]
    types: Sequence[str] = shapes["ProductionVariantInstanceType"]["enum"]
    return tuple(types)


def instance(name: str, known: Sequence[str]) -> Instance:
    """Parse an instance type. Raises SettingsError with the nearest known names."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise SettingsError(
            f"SageMaker has no instance type {name} for endpoints",
            hint=f"did you mean {', '.join(near)}?" if near else "choose one such as ml.m5.large",
        )
    return Instance(name)


def runs_the_same(name: str, other: Instance) -> bool:
    """Whether an image for one instance type is the right one for another, too."""
    one = Instance(name)
    return (one.arm, one.accelerator, one.old_gpu, one.blackwell) == (
        other.arm,
        other.accelerator,
        other.old_gpu,
        other.blackwell,
    )


MIB = 1 << 20

_SERVER = {"fdeploy": 40, "ray-serve": 1_280, "torchserve": 120, "function": 0}  # MiB
_CODE = 100
_LEARNER_CODE = 500
_RUN = 60
_LOADED = 2.0

# GiB per vCPU, by family.
_GIB_A_VCPU = {
    **dict.fromkeys(("c4",), 1.875),
    **dict.fromkeys(
        (*("c5", "c5d", "c6g", "c6gd", "c6gn", "c6i", "c6in"), *("c7g", "c7i", "c8g")), 2.0
    ),
    **dict.fromkeys(
        (*("m4", "m5", "m5d", "m6g", "m6gd", "m6i", "m7i", "m8g"), *("g4dn", "g5", "g6", "g7")), 4.0
    ),
    **dict.fromkeys(
        (*("r5", "r5d", "r6g", "r6gd", "r6i", "r7gd", "r7i", "r8g"), *("g6e", "g7e")), 8.0
    ),
}
# GiB of the types that do not follow that rule.
_GIB = {
    "g7e.12xlarge": 512,
    "g7e.24xlarge": 1_024,
    "g7e.48xlarge": 2_048,
    "t2.medium": 4,
    "t2.large": 8,
    "t2.xlarge": 16,
    "t2.2xlarge": 32,
    "p2.xlarge": 61,
    "p2.8xlarge": 488,
    "p2.16xlarge": 732,
    "p3.2xlarge": 61,
    "p3.8xlarge": 244,
    "p3.16xlarge": 488,
    "p4d.24xlarge": 1_152,
    "p4de.24xlarge": 1_152,
    "p5.4xlarge": 256,
    "p5.48xlarge": 2_048,
    "p5e.48xlarge": 2_048,
    "p5en.48xlarge": 2_048,
    "p6-b200.48xlarge": 2_048,
    "p6-b300.48xlarge": 4_096,
}
SERVERLESS = range(1_024, 6_145, 1_024)  # MemorySizeInMB
_VCPUS = {"medium": 1, "large": 2, "xlarge": 4}
_MANY = re.compile(r"(\d+)xlarge")


@dataclass(frozen=True)
class MemoryNeed:
    """The memory a model needs, in bytes; ``weights`` is the size of its file.

    ``learner``: it is served from its original pickle, with torch and fastai.
    """

    weights: int
    server: Literal["fdeploy", "ray-serve", "torchserve", "function"]
    learner: bool = False

    @property
    def needed(self) -> int:
        """An estimate, in bytes, for the server, the loaded model and the largest run."""
        code = _LEARNER_CODE if self.learner else _CODE
        return (_SERVER[self.server] + code + _RUN) * MIB + int(self.weights * _LOADED)


def instance_memory(name: str) -> int | None:
    """The memory of a type such as ``ml.m5.large`` in bytes; None if unknown."""
    kind = name.removeprefix("ml.")
    if kind in _GIB:
        return _GIB[kind] * 1024 * MIB
    family, _, size = kind.partition(".")
    many = _MANY.fullmatch(size)
    vcpus = 4 * int(many[1]) if many else _VCPUS.get(size)
    if vcpus is None or family not in _GIB_A_VCPU:
        return None
    return int(vcpus * _GIB_A_VCPU[family] * 1024) * MIB


def larger_instance(name: str, needed: int, known: Sequence[str]) -> str | None:
    """The smallest type with enough memory, of the same family, else m5 or r5; None if none has."""
    own = name.split(".")[1]
    for family in (own, "m5", "r5"):
        enough = [
            (memory, kind)
            for kind in known
            if kind.split(".")[1] == family
            and (memory := instance_memory(kind)) is not None
            and memory >= needed
        ]
        if enough:
            return min(enough)[1]
    return None


@dataclass(frozen=True)
class MemoryEstimate:
    """Whether a model fits in memory; ``place`` is an instance type or a serverless endpoint.

    ``memory`` is in bytes, None if unknown; ``larger`` is the next place that is large enough.
    """

    place: str
    memory: int | None
    need: MemoryNeed
    larger: str | None

    @property
    def message(self) -> str:
        """The estimate, for people."""
        need = self.need
        message = f"the model needs about {_mb(need.needed)} (its file has {_mb(need.weights)})"
        if self.memory is None:
            return f"{message}; the memory of {self.place} is unknown"
        return f"{message}, and {self.place} has {_mb(self.memory)}"

    @property
    def impossible(self) -> bool:
        """Whether not even the weights fit."""
        return self.memory is not None and self.need.weights > self.memory

    @property
    def tight(self) -> bool:
        """Whether the estimate does not fit."""
        return self.memory is not None and self.need.needed > self.memory

    @property
    def hint(self) -> str:
        """How to fix it."""
        if self.larger is None:
            return "choose an instance with more memory, or a smaller model"
        return f"choose {self.larger}"

    def check(self) -> Check:
        """Fail only if the weights alone do not fit, because the estimate may be off by half."""
        outcome: Outcome = "warned" if self.tight else "passed"
        if self.impossible:
            outcome = "failed"
        return Check("memory", outcome, self.message, "" if outcome == "passed" else self.hint)

    def require(self) -> None:
        """Raise SettingsError if not even the weights fit."""
        if self.impossible:
            raise SettingsError(self.message, hint=self.hint)


def on_instance(name: str, need: MemoryNeed, known: Sequence[str]) -> MemoryEstimate:
    """The estimate for an instance type."""
    larger = larger_instance(name, need.needed, known)
    return MemoryEstimate(
        name, instance_memory(name), need, f"--instance {larger}" if larger else None
    )


def on_serverless(megabytes: int, need: MemoryNeed) -> MemoryEstimate:
    """The estimate for a serverless endpoint, which has 1 to 6 GB in steps of 1 GB."""
    enough = next((mb for mb in SERVERLESS if mb * MIB >= need.needed), None)
    larger = (
        f"memory = {enough} in [endpoint.serverless]" if enough else "an instance: kind real-time"
    )
    return MemoryEstimate(
        f"a serverless endpoint of {megabytes:,} MB", megabytes * MIB, need, larger
    )


CORE_MB = 1_769
"""The memory with which a function has one whole core (AWS: "Configure Lambda function memory")."""


def function_memory(weights: int, *, least: int = CORE_MB) -> int:
    """The memory of a function in MB: ``least``, or what a model needs.

    Below one core, the price of a request stays the same and it takes longer.
    """
    return max(least, math.ceil(MemoryNeed(weights, "function").needed / MIB))


def in_function(megabytes: int, need: MemoryNeed) -> MemoryEstimate:
    """The estimate for a Lambda function."""
    enough = math.ceil(need.needed / MIB)
    larger = f"memory = {enough} in [endpoint.function]"
    return MemoryEstimate(f"a function of {megabytes:,} MB", megabytes * MIB, need, larger)


def _mb(size: int) -> str:
    return f"{size / MIB:,.0f} MB"

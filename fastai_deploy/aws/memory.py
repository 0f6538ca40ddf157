"""Whether a model fits into an instance's memory: said at plan time, not by a container's end.

    the image's own server     Ray Serve 1,280 MB, TorchServe 120 MB
    + the serving code         100 MB; a learner that is served as it is 500 MB
    + the model, loaded        2 x its file
    + the largest run          60 MB

Measured on 2026-11-25, Linux, 2 cores: Ray 2.57 with Serve and an idle replica 1,281 MB in all its
processes (PSS), TorchServe's front end 116 MB; ONNX Runtime with a RoBERTa-base 288 MB in int8
(file 120 MB) and 681 MB in float32 (475 MB) at its highest, a MiniLM 190 MB (87 MB), of which 48 MB
are the libraries. A run has at most 512 tokens, unless one text alone is longer (``runtime/
grouping.py``), which those figures include. Twice the file is what int8 takes, whose weights are
packed anew when they are loaded; float32 takes less. A learner that is served as it is was 990 MB a
worker for a file of 499 MB; 500 MB of that are its libraries.

Memory by instance type: "Specifications for Amazon EC2 instance types", by family and number of
vCPUs; compared on 2026-11-25 with a copy of what DescribeInstanceTypes answers (moto 5.2.5), which
has all but P2 and P3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.errors import SettingsError
from fastai_deploy.reports import Check, Outcome

MIB = 1 << 20

_SERVER = {"ray-serve": 1_280, "torchserve": 120}  # MiB
_CODE = 100
_LEARNER_CODE = 500
_RUN = 60
_LOADED = 2.0

# GiB for each vCPU, by family.
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
# GiB of the types whose memory follows no rule.
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
_SERVERLESS = range(1_024, 6_145, 1_024)  # MemorySizeInMB
_VCPUS = {"medium": 1, "large": 2, "xlarge": 4}
_MANY = re.compile(r"(\d+)xlarge")


@dataclass(frozen=True)
class Demand:
    """What a model asks of a memory, in bytes; ``weights`` is the size of its file.

    ``learner``: it is a learner that is served as it is, with torch and fastai.
    """

    weights: int
    server: Literal["ray-serve", "torchserve"]
    learner: bool = False

    @property
    def needed(self) -> int:
        """About how many bytes the server, the loaded model and the largest run take."""
        code = _LEARNER_CODE if self.learner else _CODE
        return (_SERVER[self.server] + code + _RUN) * MIB + int(self.weights * _LOADED)


def instance_memory(name: str) -> int | None:
    """The bytes of memory of a type such as ``ml.m5.large``; None where that is not known here."""
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
    """The smallest type of the same family that has the bytes, else of m5 or r5; None: none has."""
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
class Room:
    """What a memory offers a model; ``place`` is an instance type, or says what is serverless.

    ``memory`` is in bytes, None where it is not known; ``larger`` is the next place that would do.
    """

    place: str
    memory: int | None
    demand: Demand
    larger: str | None

    @property
    def told(self) -> str:
        """The figures, in words."""
        demand = self.demand
        told = f"the model takes about {_mb(demand.needed)} (its file has {_mb(demand.weights)})"
        if self.memory is None:
            return f"{told}; how much {self.place} has is not known here"
        return f"{told}, and {self.place} has {_mb(self.memory)}"

    @property
    def impossible(self) -> bool:
        """Whether not even the weights fit."""
        return self.memory is not None and self.demand.weights > self.memory

    @property
    def tight(self) -> bool:
        """Whether the estimate does not fit."""
        return self.memory is not None and self.demand.needed > self.memory

    @property
    def hint(self) -> str:
        """What mends it."""
        if self.larger is None:
            return "choose an instance with more memory, or a smaller model"
        return f"choose {self.larger}"

    def check(self) -> Check:
        """Fails for what is certain alone: the estimate may be wrong by half."""
        outcome: Outcome = "warned" if self.tight else "passed"
        if self.impossible:
            outcome = "failed"
        return Check("memory", outcome, self.told, "" if outcome == "passed" else self.hint)

    def require(self) -> None:
        """Raise SettingsError where not even the weights fit."""
        if self.impossible:
            raise SettingsError(self.told, hint=self.hint)


def on_instance(name: str, demand: Demand, known: Sequence[str]) -> Room:
    """The room on an instance type."""
    larger = larger_instance(name, demand.needed, known)
    return Room(name, instance_memory(name), demand, f"--instance {larger}" if larger else None)


def on_serverless(megabytes: int, demand: Demand) -> Room:
    """The room of a serverless endpoint, which has 1 to 6 GB in steps of 1 GB."""
    enough = next((mb for mb in _SERVERLESS if mb * MIB >= demand.needed), None)
    larger = (
        f"serverless_memory = {enough} in [endpoint]" if enough else "an instance: kind real-time"
    )
    return Room(f"a serverless endpoint of {megabytes:,} MB", megabytes * MIB, demand, larger)


def _mb(size: int) -> str:
    return f"{size / MIB:,.0f} MB"

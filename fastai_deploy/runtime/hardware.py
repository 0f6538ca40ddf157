"""The cores and memory that this process may use (container limits included), and their use."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import AbstractSet, Iterator, Optional

_UNLIMITED = 1 << 60  # cgroup v1 writes a number of this size where there is no limit


@dataclass(frozen=True)
class Hardware:
    """What there is to compute with; ``memory`` in bytes, None where it cannot be told."""

    cores: int
    memory: Optional[int]


def detect(root: Path = Path("/")) -> Hardware:
    """The hardware seen through affinity and cgroups (v1 and v2); ``root`` is for tests.

    Cores are physical ones: the two hyperthreads of a core share the units that multiply, which is
    why ONNX Runtime's own default counts cores as well. A quota of 1.5 CPUs counts as 1.
    """
    cores = _physical_cores(_allowed_cpus(), root)
    quota = min(_cpu_quotas(root), default=None)
    if quota is not None:
        cores = min(cores, max(1, int(quota)))
    return Hardware(cores=cores, memory=min(_memory_limits(root), default=None))


def _allowed_cpus() -> AbstractSet[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return frozenset(range(os.cpu_count() or 1))


def _physical_cores(cpus: AbstractSet[int], root: Path) -> int:
    siblings = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        siblings.add(_read(topology) or f"{cpu}")
    return max(1, len(siblings))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Each limit on CPU time, in CPUs."""
    for folder in _cgroups(root, "cpu"):
        limit, _, period = (_read(folder / "cpu.max") or "").partition(" ")
        if limit.isdigit() and period.isdigit():
            yield int(limit) / int(period)
        quota = _number(folder / "cpu.cfs_quota_us")
        span = _number(folder / "cpu.cfs_period_us")
        if quota and span:
            yield quota / span


def _memory_limits(root: Path) -> Iterator[int]:
    """Each limit on memory, the machine's own size among them, in bytes."""
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit and limit < _UNLIMITED:
                yield limit
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            yield int(line.split()[1]) * 1024


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The folders whose limits bind this process: its own control group and all above it."""
    base = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        top = base if not controllers else base / controller
        if controllers and controller not in controllers.split(","):
            continue
        # Within a container the path may be the host's: then only the top is there to be read.
        yield top
        for part in path.strip("/").split("/"):
            if part in ("", ".."):
                break
            top /= part
            yield top


def _number(path: Path) -> Optional[int]:
    text = _read(path)
    return int(text) if text and text.isdigit() else None


def _read(path: Path) -> Optional[str]:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


_CORES_PER_RUN = 8


@dataclass(frozen=True)
class ThreadPlan:
    """How to compute: ``workers`` runs at a time, sharing ``threads`` threads in all."""

    threads: int
    workers: int


def plan_threads(hardware: Hardware) -> ThreadPlan:
    """One run at a time uses every core, for the shortest answer to a lone request.

    Small batches stop gaining beyond some cores, so from 16 cores on several runs share them.
    """
    return ThreadPlan(threads=hardware.cores, workers=max(1, hardware.cores // _CORES_PER_RUN))


_GARBAGE = 50_000  # objects, between collections


def trim_memory() -> None:
    """Return freed memory to the system, which glibc else keeps for itself, a gigabyte and more."""
    gc.collect()  # graphs hold one another
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
        if trim is not None:
            trim(0)


def freeze_gc() -> None:
    """Give back what loading needed, and look no more for garbage in what it has left.

    A collection goes through everything that lives, and thousands of open requests would be gone
    through again and again: a fifth of what each takes of the event loop. What is given back is
    81 MB after int8 RoBERTa-base.
    """
    trim_memory()
    gc.freeze()
    gc.set_threshold(_GARBAGE)

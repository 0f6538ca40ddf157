"""The cores and memory that this process may use, within container limits, and how to use them."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import AbstractSet, FrozenSet, Iterator, Optional

_UNLIMITED = 1 << 60  # cgroup v1 writes a number of this size for "no limit"


@dataclass(frozen=True)
class Hardware:
    """The available hardware; ``memory`` in bytes, None if it is not known.

    ``machine`` is the architecture (``x86_64``, ``aarch64``), ``instructions`` are the processor's
    extensions as Linux names them, such as ``avx512_bf16``; empty on other systems.
    """

    cores: int
    memory: Optional[int]
    machine: str = ""
    instructions: FrozenSet[str] = frozenset()


def detect(root: Path = Path("/")) -> Hardware:
    """The hardware as limited by affinity and cgroups (v1 and v2); ``root`` is for tests.

    Cores are physical ones, because the two hyperthreads of a core share the units that multiply;
    ONNX Runtime's own default counts cores as well. A quota of 1.5 CPUs counts as 1.
    """
    cores = _physical_cores(_allowed_cpus(), root)
    quota = min(_cpu_quotas(root), default=None)
    if quota is not None:
        cores = min(cores, max(1, int(quota)))
    return Hardware(
        cores=cores,
        memory=min(_memory_limits(root), default=None),
        machine=platform.machine(),
        instructions=_instructions(root),
    )


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
    """Each limit on memory, including the machine's own size, in bytes."""
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit and limit < _UNLIMITED:
                yield limit
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            yield int(line.split()[1]) * 1024


def _instructions(root: Path) -> FrozenSet[str]:
    """The processor's extensions: ``flags`` on x86, ``Features`` on Arm."""
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(values.split())
    return frozenset()


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The cgroup folders whose limits apply to this process: its own and all above it."""
    base = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        top = base if not controllers else base / controller
        if controllers and controller not in controllers.split(","):
            continue
        # Inside a container the path may be the host's; then only the root can be read.
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
    """Let one run at a time use every core, which answers a single request fastest.

    Small batches gain nothing beyond some number of cores, so several runs share 16 or more.
    """
    return ThreadPlan(threads=hardware.cores, workers=max(1, hardware.cores // _CORES_PER_RUN))


_GARBAGE = 50_000  # new objects before the next collection


def trim_memory() -> None:
    """Return freed memory to the system; glibc would keep it, sometimes more than a gigabyte."""
    gc.collect()  # graphs have reference cycles
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
        if trim is not None:
            trim(0)


def freeze_gc() -> None:
    """Free what only loading needed, and exempt the remaining objects from garbage collection.

    A collection visits every live object, also those of thousands of open requests, and takes a
    fifth of the event loop's time. After loading int8 RoBERTa-base this frees 81 MB.
    """
    trim_memory()
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    gc.enable()

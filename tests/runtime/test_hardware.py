from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastai_deploy.runtime.hardware import detect


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root directory of a machine with as many cores as this process may use, and 8 GB."""
    write(tmp_path, "proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def test_without_limits(machine: Path) -> None:
    found = detect(machine)
    assert (found.cores, found.memory) == (len(allowed()), 8 << 30)


def test_nothing_to_read(tmp_path: Path) -> None:
    assert detect(tmp_path / "no-such-folder").memory is None


def test_this_machine() -> None:
    assert 1 <= detect().cores <= (os.cpu_count() or 1)


def test_hyperthreads_of_one_core_are_one_core(machine: Path) -> None:
    siblings = ",".join(map(str, allowed()))
    for cpu in allowed():
        write(
            machine,
            f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list",
            f"{siblings}\n",
        )
    assert detect(machine).cores == 1


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", len(allowed()))]
)
def test_a_quota_of_control_groups_v2(machine: Path, quota: str, cores: int) -> None:
    write(machine, "sys/fs/cgroup/cpu.max", f"{quota}\n")
    assert detect(machine).cores == cores


def test_the_limits_above_bind_as_well(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/pod/container\n")
    write(machine, "sys/fs/cgroup/pod/cpu.max", "100000 100000")
    write(machine, "sys/fs/cgroup/pod/memory.max", str(2 << 30))
    write(machine, "sys/fs/cgroup/pod/container/memory.max", "max")
    found = detect(machine)
    assert (found.cores, found.memory) == (1, 2 << 30)


def test_control_groups_v1(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n")
    write(machine, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000")
    write(machine, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    write(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", str((1 << 63) - 4096))
    write(machine, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", str(1 << 30))
    found = detect(machine)
    assert (found.cores, found.memory) == (1, 1 << 30)


def test_an_unlimited_v1_group(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "3:cpu:/../..\n4:memory:/\n")
    write(machine, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(machine, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    write(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", str((1 << 63) - 4096))
    found = detect(machine)
    assert (found.cores, found.memory) == (len(allowed()), 8 << 30)

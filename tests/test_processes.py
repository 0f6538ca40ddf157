from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fastai_deploy.targets.local.processes import Processes

GRACE = 60.0
# Starts a program, tells its pid when it is ready, and never looks after it again.
_CARELESS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
_READY = "import sys, time, signal; {}; print(flush=True); time.sleep(600)"
_OBEDIENT = _READY.format("pass")
_STUBBORN = _READY.format("signal.signal(signal.SIGTERM, signal.SIG_IGN)")


class Clock:
    """Goes on only while somebody sleeps; a second of it lasts a hundredth of one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 100)
        self.now += seconds


@pytest.fixture
def careless() -> Iterator[Callable[[str], psutil.Process]]:
    """Start a program whose parent does not reap it."""
    parents = []

    def start(program: str) -> psutil.Process:
        parent = subprocess.Popen(
            [sys.executable, "-c", _CARELESS, program], stdout=subprocess.PIPE
        )
        parents.append(parent)
        assert parent.stdout
        return psutil.Process(int(parent.stdout.readline()))

    yield start
    for parent in parents:
        parent.kill()
        parent.communicate()


def test_zombie_processes_are_not_awaited(
    careless: Callable[[str], psutil.Process], tmp_path: Path
) -> None:
    clock = Clock()
    process = careless(_OBEDIENT)
    processes = Processes(tmp_path, clock=time.monotonic, sleep=time.sleep)
    processes.stop([process], grace=GRACE)
    assert process.status() == psutil.STATUS_ZOMBIE
    Processes(tmp_path, clock=clock, sleep=clock.sleep).stop([process], grace=GRACE)
    assert clock.now == 0


def test_one_that_does_not_listen_is_killed_when_its_time_is_up(
    careless: Callable[[str], psutil.Process], tmp_path: Path
) -> None:
    clock = Clock()
    process = careless(_STUBBORN)
    Processes(tmp_path, clock=clock, sleep=clock.sleep).stop([process], grace=GRACE)
    assert process.status() == psutil.STATUS_ZOMBIE
    assert clock.now >= GRACE

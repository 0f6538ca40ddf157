"""Time and memory of ``fdeploy inspect`` and ``fdeploy export``, compared with ``load_learner``.

    python -m benchmarks.learner_reading LEARNER.pkl [--fastai PYTHON]

PYTHON is an interpreter with fastai installed. ``tests/learners/generators/fastai2.py`` makes a
learner of RoBERTa-base's size (125 M parameters), called ``roberta_base``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOAD = "import sys; from fastai.learner import load_learner; load_learner(sys.argv[1])"
IMPORT = "import fastai.learner, fastai.text.all, transformers"


def measure(command: list[str], folder: Path) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds, and peak memory in bytes (as Linux counts it)."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss << 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("learner", type=Path)
    parser.add_argument("--fastai", help="an interpreter with fastai installed")
    arguments = parser.parse_args()
    learner = arguments.learner.resolve()
    size = learner.stat().st_size
    fdeploy = [sys.executable, "-m", "fastai_deploy"]
    commands = {
        "fdeploy --help": [*fdeploy, "--help"],
        "fdeploy inspect": [*fdeploy, "inspect", str(learner)],
        "fdeploy export": [*fdeploy, "export", str(learner)],
    }
    if arguments.fastai:
        commands["import fastai, transformers"] = [arguments.fastai, "-c", IMPORT]
        commands["load_learner"] = [arguments.fastai, "-W", "ignore", "-c", LOAD, str(learner)]
    print(f"{learner.name}: {size / 1e6:,.0f} MB; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':<30}{'wall s':>8}{'cpu s':>8}{'peak MB':>9}{'x file':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands.items():
            wall, used, peak = measure(command, Path(folder))
            print(f"{name:<30}{wall:>8.1f}{used:>8.1f}{peak / 1e6:>9,.0f}{peak / size:>8.2f}")


if __name__ == "__main__":
    main()

"""Run the main benchmarks one after another: ``make bench``. docs/benchmarks.md has results."""

from __future__ import annotations

import subprocess
import sys
import tempfile

BENCHMARKS = (
    ["startup"],
    ["packaging"],
    ["gateway_local"],
    ["serving_local", "MODEL", "--build", "roberta-base"],
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, *arguments in BENCHMARKS:
            filled = [folder if argument == "MODEL" else argument for argument in arguments]
            command = [sys.executable, "-m", f"benchmarks.{name}", *filled]
            print(f"\n$ python -m benchmarks.{name} {' '.join(arguments)}", flush=True)
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

"""For every call k of an ``up``: fail call k, run again, it converges; teardown, nothing is left.

    python -m tests.aws.fault_table [--kind lost] [--every 1] [--first 1]

prints the table. It takes the better part of an hour; the tests take a sample of it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy.errors import FdeployError
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import Double, running_double
from tests.packaged import Model, write_model

# What happens to a call, and to how many of its attempts (0: all).
KINDS = {
    "lost once": ("lost", 1),
    "lost": ("lost", 0),
    "reset": ("reset", 0),
    "throttle": ("throttle", 0),
    "unwell": ("unwell", 0),
    "deny": ("deny", 0),
}


@dataclass(frozen=True)
class Row:
    """What became of one fault; ``first`` is how the run with it ended."""

    kind: str
    call: int
    operation: str
    first: str
    converged: bool
    left: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.converged and not self.left

    def __str__(self) -> str:
        outcome = "converged, 0 left" if self.good else f"NOT GOOD: {', '.join(self.left)}"
        return f"| {self.kind} | {self.call} | {self.operation} | {self.first} | {outcome} |"


def up(world: World, model: Model) -> None:
    """The stages of ``up`` that speak to AWS, as a new command."""
    target = world.target()
    stored = target.upload(model.artifact)
    endpoint = target.deploy(stored, model.verify)
    target.create_api(endpoint, model.verify)


def calls_of_up(double: Double, model: Model, folder: Path) -> list[str]:
    """The calls of an undisturbed ``up``, in order."""
    world = World(double, folder)
    double.do_wrong(world.account)
    up(world, model)
    calls = [f"{call['service']} {call['operation']}" for call in double.calls(world.account)]
    world.target().teardown(artifacts=True)
    assert world.everything() == []
    return calls


def disturbed(double: Double, model: Model, folder: Path, kind: str, number: int) -> Row | None:
    """Fail one call, run again, tear down; None when the run has fewer calls."""
    world = World(double, folder)
    fault, attempts = KINDS[kind]
    double.do_wrong(world.account, Fault(fault, call=number, attempts=attempts))
    first = "went through"
    try:
        up(world, model)
    except FdeployError as error:
        first = f"{type(error).__name__}"
    hit = next((call for call in double.calls(world.account) if call["fault"]), None)
    double.do_wrong(world.account)
    if hit is None:
        world.target().teardown(artifacts=True)
        return None
    converged = True
    try:
        up(world, model)
    except FdeployError as error:
        converged, first = False, f"{first}, then {type(error).__name__}: {error.message}"
    proof = world.target().teardown(artifacts=True)
    left = (*proof.left, *world.everything())
    return Row(kind, number, f"{hit['service']} {hit['operation']}", first, converged, left)


def rows(
    double: Double, model: Model, kinds: tuple[str, ...], first: int, every: int
) -> Iterator[Row]:
    """The table."""
    for kind in kinds:
        number = first
        while True:
            with tempfile.TemporaryDirectory() as folder:
                row = disturbed(double, model, Path(folder), kind, number)
            if row is None:
                break
            yield row
            number += every


def main() -> int:
    """Print the table; 1 when a row is not good."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    kinds = tuple(KINDS) if options.kind == "all" else (options.kind,)
    count: Counter[tuple[str, bool]] = Counter()
    with tempfile.TemporaryDirectory() as folder, running_double() as double:
        model = write_model(Path(folder), "model")
        write = sys.stdout.write
        write("| fault | call | operation | the run with it | run again, then teardown |\n")
        write("|---|---|---|---|---|\n")
        for row in rows(double, model, kinds, options.first, options.every):
            count[row.kind, row.good] += 1
            write(f"{row}\n")
            with contextlib.suppress(OSError):
                sys.stdout.flush()
        for kind in kinds:
            good, bad = count[kind, True], count[kind, False]
            write(f"\n{kind}: {good + bad} calls, {good} converged with 0 left, {bad} not\n")
    return 1 if any(not good for _, good in count) else 0


if __name__ == "__main__":
    sys.exit(main())

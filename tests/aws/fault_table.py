"""Fail each AWS call of an ``up`` in turn; a second run must recover, a teardown leave nothing.

    python -m tests.aws.fault_table --out docs/faults.md

writes the page. That takes most of an hour; the tests run a sample of it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastai_deploy.errors import FdeployError
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import Double, running_double
from tests.packaged import Model, write_model


@dataclass(frozen=True)
class Kind:
    """A fault, and how many attempts of a call it hits (0: all)."""

    fault: str
    attempts: int


KINDS = {
    "lost": Kind("lost", 0),
    "lost once": Kind("lost", 1),
    "reset": Kind("reset", 0),
    "throttle": Kind("throttle", 0),
    "server error": Kind("unwell", 0),
    "deny": Kind("deny", 0),
}
_AT_ONCE = 3
NONE: Mapping[tuple[str, str], Any] = MappingProxyType({})
_HEAD = """\
# Faults: what happens when an AWS call of `up` fails

For every call that `fdeploy up` makes to AWS (in `upload`, `deploy` and `create-api`), the test
fails that call, runs the same command again, and tears the stage down. After the second run the
stage must serve and answer its goldens. After the teardown the account must be empty, by the
services' own lists.

The test runs against the AWS double (`tests/aws_double/`), over real HTTP, with boto3's own retries
(two attempts per call). `make fault-table` writes this page; {machine}.

| fault | what happens to the call |
|---|---|
| lost | AWS carries it out, but no answer arrives, however often it is sent |
| lost once | AWS carries it out, but the first answer does not arrive; boto3 sends it again |
| reset | the connection breaks before the call is carried out, every time |
| throttle | the service throttles it, every time |
| server error | the service answers with an internal error (500), every time |
| deny | the permission is missing |

## Summary

The first run ends with the error named below, or succeeds: some calls may fail without harm, such
as those for the price.

| fault | calls hit | first run succeeded | second run recovered, nothing left | failed |
"""


@dataclass(frozen=True)
class Row:
    """The result of one fault; ``first`` is how the first run ended."""

    kind: str
    call: int
    operation: str
    first: str
    recovered: bool
    left: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.recovered and not self.left

    def __str__(self) -> str:
        outcome = "recovered, nothing left" if self.good else f"FAILED: {', '.join(self.left)}"
        return f"| {self.kind} | {self.call} | {self.operation} | {self.first} | {outcome} |"


def up(world: World, model: Model) -> None:
    """Run the stages of ``up`` that call AWS, as a new command would."""
    target = world.target()
    stored = target.upload(model.artifact)
    endpoint = target.deploy(stored, model.verify)
    target.create_api(endpoint, model.verify)


def calls_of_up(
    double: Double, model: Model, folder: Path, flags: Mapping[tuple[str, str], Any] = NONE
) -> list[str]:
    """The calls of an ``up`` without faults, in order; ``flags`` are settings."""
    world = World(double, folder, flags=dict(flags))
    double.do_wrong(world.account)
    up(world, model)
    calls = [f"{call['service']} {call['operation']}" for call in double.calls(world.account)]
    world.target().teardown(artifacts=True)
    assert world.everything() == []
    return calls


def disturbed(
    double: Double,
    model: Model,
    folder: Path,
    kind: str,
    number: int,
    *,
    flags: Mapping[tuple[str, str], Any] = NONE,
) -> Row | None:
    """Fail one call, run again, tear down; None if the run makes fewer calls."""
    world = World(double, folder, flags=dict(flags))
    chosen = KINDS[kind]
    double.do_wrong(world.account, Fault(chosen.fault, call=number, attempts=chosen.attempts))
    first = "succeeded"
    try:
        up(world, model)
    except FdeployError as error:
        first = f"{type(error).__name__}"
    hit = next((call for call in double.calls(world.account) if call["fault"]), None)
    double.do_wrong(world.account)
    if hit is None:
        world.target().teardown(artifacts=True)
        return None
    recovered = True
    try:
        up(world, model)
    except FdeployError as error:
        said = error.message.splitlines()[0].replace("|", "/")
        recovered, first = False, f"{first}, then {type(error).__name__}: {said}"
    proof = world.target().teardown(artifacts=True)
    left = (*proof.left, *world.everything())
    return Row(kind, number, f"{hit['service']} {hit['operation']}", first, recovered, left)


def rows(model: Model, kind: str, report: Callable[[Row], None]) -> list[Row]:
    """The rows of one kind of fault, on its own double; ``report`` gets each as it is done."""
    found: list[Row] = []
    with running_double() as double:
        for number in itertools.count(1):
            with tempfile.TemporaryDirectory() as folder:
                row = disturbed(double, model, Path(folder), kind, number)
            if row is None:
                break
            report(row)
            found.append(row)
    return found


def page(found: Mapping[str, Sequence[Row]], machine: str) -> Iterator[str]:
    """The lines of the page."""
    yield _HEAD.format(machine=machine).rstrip()
    yield "|---|---|---|---|---|"
    for kind, of_kind in found.items():
        through = sum(row.first == "succeeded" for row in of_kind)
        good = sum(row.good for row in of_kind)
        counts = f"{len(of_kind)} | {through} | {good} | {len(of_kind) - good}"
        yield f"| {kind} | {counts} |"
    yield "\n## Every call\n"
    yield "| fault | call | operation | first run | second run, then teardown |"
    yield "|---|---|---|---|---|"
    for of_kind in found.values():
        yield from map(str, of_kind)


def main() -> int:
    """Write the page; the exit code is 1 if a row failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    def report(row: Row) -> None:
        sys.stderr.write(f"{row}\n")

    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder), "model")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            begun = {kind: pool.submit(rows, model, kind, report) for kind in KINDS}
            found = {kind: future.result() for kind, future in begun.items()}
    lines = page(found, f"{date.today():%Y-%m-%d}, {os.cpu_count()} cores")  # noqa: DTZ011
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if all(row.good for of_kind in found.values() for row in of_kind) else 1


if __name__ == "__main__":
    sys.exit(main())

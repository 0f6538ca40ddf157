"""For every call k of an ``up``: fail call k, run again, it converges; teardown, nothing is left.

    python -m tests.aws.fault_table --out docs/faults.md

writes the page. It takes the better part of an hour; the tests take a sample of it.
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

from fastai_deploy.errors import FdeployError
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import Double, running_double
from tests.packaged import Model, write_model


@dataclass(frozen=True)
class Kind:
    """What happens to a call: a fault, to how many attempts (0: all), to each so many-th call."""

    fault: str
    attempts: int
    every: int


# Every call is lost once, done and never answered: that leaves most behind. The others leave an
# error and nothing done, or nothing at all, so that each fifth call will do.
KINDS = {
    "lost": Kind("lost", 0, 1),
    "lost once": Kind("lost", 1, 5),
    "reset": Kind("reset", 0, 5),
    "throttle": Kind("throttle", 0, 5),
    "unwell": Kind("unwell", 0, 5),
    "deny": Kind("deny", 0, 5),
}
_AT_ONCE = 3
_HEAD = """\
# Faults: what happens when a call of `up` fails

For every call k that `fdeploy up` makes to AWS (`upload`, `deploy`, `create-api`): fail call k,
run the same command again, tear down. After the second run the stage must serve and answer its
goldens; after the teardown the account must be empty, by the services' own lists. Every call is
`lost`, which leaves most behind; of the other faults every fifth call is shown. Run against the
double (`tests/aws_double/`), over real HTTP, through boto3's own retries (two attempts a call).
`make fault-table` writes this page; {machine}.

| fault | what happens to the call |
|---|---|
| lost | it is done, and no answer ever comes, whatever is sent again |
| lost once | it is done, and its first answer never comes: boto3 sends it again |
| reset | the connection breaks off before it is done, every time |
| throttle | the service asks for fewer requests, every time |
| unwell | the service answers with an error of its own (500), every time |
| deny | the permission is missing |

The first run ends with the error that is named, or goes through: some calls may fail without harm,
such as those for the price.

| fault | calls hit | the first run went through | then converged, 0 left | not |
"""


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
    chosen = KINDS[kind]
    double.do_wrong(world.account, Fault(chosen.fault, call=number, attempts=chosen.attempts))
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
        said = error.message.splitlines()[0].replace("|", "/")
        converged, first = False, f"{first}, then {type(error).__name__}: {said}"
    proof = world.target().teardown(artifacts=True)
    left = (*proof.left, *world.everything())
    return Row(kind, number, f"{hit['service']} {hit['operation']}", first, converged, left)


def rows(model: Model, kind: str, told: Callable[[Row], None]) -> list[Row]:
    """The rows of one kind of fault, on a double of its own; ``told`` hears each as it comes."""
    found: list[Row] = []
    with running_double() as double:
        for number in itertools.count(1, KINDS[kind].every):
            with tempfile.TemporaryDirectory() as folder:
                row = disturbed(double, model, Path(folder), kind, number)
            if row is None:
                break
            told(row)
            found.append(row)
    return found


def page(found: Mapping[str, Sequence[Row]], machine: str) -> Iterator[str]:
    """The page of the documentation."""
    yield _HEAD.format(machine=machine).rstrip()
    yield "|---|---|---|---|---|"
    for kind, of_kind in found.items():
        through = sum(row.first == "went through" for row in of_kind)
        good = sum(row.good for row in of_kind)
        counts = f"{len(of_kind)} | {through} | {good} | {len(of_kind) - good}"
        yield f"| {kind} | {counts} |"
    yield "\n## Every call\n"
    yield "| fault | call | operation | the run with it | run again, then teardown |"
    yield "|---|---|---|---|---|"
    for of_kind in found.values():
        yield from map(str, of_kind)


def main() -> int:
    """Write the page; 1 when a row is not good."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    def told(row: Row) -> None:
        sys.stderr.write(f"{row}\n")

    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder), "model")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            begun = {kind: pool.submit(rows, model, kind, told) for kind in KINDS}
            found = {kind: future.result() for kind, future in begun.items()}
    lines = page(found, f"{date.today():%Y-%m-%d}, {os.cpu_count()} cores")  # noqa: DTZ011
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if all(row.good for of_kind in found.values() for row in of_kind) else 1


if __name__ == "__main__":
    sys.exit(main())

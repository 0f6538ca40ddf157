"""Fail each AWS call of an ``up`` in turn; a second run must recover, a teardown leave nothing.

    python -m tests.aws.fault_table --out docs/faults.md [--kind lambda] [--every 5 --lost-every 1]

writes the page's part for that kind of endpoint. That takes most of an hour; the tests run a sample
of it. With ``--every 5``, a fault is tried on every fifth call, and with ``--lost-every 1`` "lost",
which leaves most behind, on every one all the same.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastai_deploy.errors import FdeployError
from fastai_deploy.targets.aws.function import FunctionStage
from tests.aws import table_page
from tests.aws.table_page import IN_FUNCTION, LAMBDA
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import Double, running_double
from tests.packaged import Model


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

"""
_HEAD_OF_FUNCTION = """\
## The model in a Lambda function

The same for `kind = "lambda"`: the API is in front of the function itself.
`python -m tests.aws.fault_table --kind lambda` writes this part; {machine}.
"""
_HEAD_OF_UPDATE = """\
## A new version of the model in a Lambda function

The same for a stage whose function serves already. The deploy of another version is two updates of
the stack: one publishes the version, which is asked the goldens, and one moves the alias to it.
After the first run, the function must answer as the old version or as the new one.
`python -m tests.aws.fault_table --kind lambda-update` writes this part; {machine}.
"""
_HEADS = {
    table_page.REAL_TIME: _HEAD,
    LAMBDA: _HEAD_OF_FUNCTION,
    table_page.UPDATE: _HEAD_OF_UPDATE,
}
_SUMMARY = """
{level} Summary{of}

{share}The first run ends with the error named below, or succeeds: some calls may fail without harm,
such as those for the price.

| fault | calls hit | first run succeeded | second run recovered, nothing left | failed |
|---|---|---|---|---|"""
_SHARE = """\
Not every call is failed: "lost", which leaves most behind, on one call in {lost}, the other faults
on one in {every}.
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
    double: Double,
    model: Model,
    folder: Path,
    flags: Mapping[tuple[str, str], Any] = NONE,
    earlier: Model | None = None,
) -> list[str]:
    """The calls of an ``up`` without faults, in order; ``flags`` are settings.

    ``earlier`` serves already.
    """
    world = World(double, folder, flags=dict(flags))
    if earlier is not None:
        up(world, earlier)
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
    earlier: Model | None = None,
) -> Row | None:
    """Fail one call, run again, tear down; None if the run makes fewer calls.

    ``earlier`` serves already: until the new model does, the API must go on answering.
    """
    world = World(double, folder, flags=dict(flags))
    if earlier is not None:
        up(world, earlier)
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
    silent = earlier is not None and not answers(world, model, earlier)
    recovered = True
    try:
        up(world, model)
    except FdeployError as error:
        said = error.message.splitlines()[0].replace("|", "/")
        recovered, first = False, f"{first}, then {type(error).__name__}: {said}"
    proof = world.target().teardown(artifacts=True)
    left = (*proof.left, *world.everything(), *(("no answer in between",) if silent else ()))
    return Row(kind, number, f"{hit['service']} {hit['operation']}", first, recovered, left)


def answers(world: World, *models: Model) -> bool:
    """Whether the function answers as one of the models."""
    ask = FunctionStage(world.target().context).invoke
    for model in models:
        with suppress(FdeployError, AssertionError):
            model.verify(ask)
            return True
    return False


def rows(
    model: Model,
    kind: str,
    report: Callable[[Row], None],
    *,
    every: int = 1,
    flags: Mapping[tuple[str, str], Any] = NONE,
    earlier: Model | None = None,
) -> list[Row]:
    """The rows of one kind of fault, on its own double; ``report`` gets each as it is done.

    One call in ``every`` is failed.
    """
    found: list[Row] = []
    with running_double() as double:
        for number in itertools.count(1, every):
            with tempfile.TemporaryDirectory() as folder:
                row = disturbed(
                    double, model, Path(folder), kind, number, flags=flags, earlier=earlier
                )
            if row is None:
                break
            report(row)
            found.append(row)
    return found


def page(
    found: Mapping[str, Sequence[Row]], machine: str, *, endpoint: str, every: int, lost: int
) -> Iterator[str]:
    """The lines of the part of a kind of endpoint.

    ``lost`` and ``every`` are how many calls there are to one that "lost" or another fault hits.
    """
    in_function = endpoint != table_page.REAL_TIME
    yield _HEADS[endpoint].format(machine=machine).rstrip()
    of = f" for {endpoint}" if in_function else ""
    level = "###" if in_function else "##"
    share = _SHARE.format(every=every, lost=lost) if every > 1 or lost > 1 else ""
    yield _SUMMARY.format(level=level, of=of, share=share)
    for kind, of_kind in found.items():
        through = sum(row.first == "succeeded" for row in of_kind)
        good = sum(row.good for row in of_kind)
        counts = f"{len(of_kind)} | {through} | {good} | {len(of_kind) - good}"
        yield f"| {kind} | {counts} |"
    yield f"\n{level} Every call{of}\n"
    yield "| fault | call | operation | first run | second run, then teardown |"
    yield "|---|---|---|---|---|"
    for of_kind in found.values():
        yield from map(str, of_kind)


def main() -> int:
    """Write the part; the exit code is 1 if a row failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", choices=table_page.KINDS, default=table_page.REAL_TIME)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--lost-every", type=int)
    options = parser.parse_args()

    def report(row: Row) -> None:
        sys.stderr.write(f"{row}\n")

    lost = options.lost_every or options.every
    flags = NONE if options.kind == table_page.REAL_TIME else IN_FUNCTION
    with tempfile.TemporaryDirectory() as folder:
        model = table_page.model_of_kind(options.kind, Path(folder))
        earlier = None
        if options.kind == table_page.UPDATE:
            earlier = table_page.model_of_kind(options.kind, Path(folder), layers=3)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            begun = {
                kind: pool.submit(
                    rows,
                    model,
                    kind,
                    report,
                    every=lost if kind == "lost" else options.every,
                    flags=flags,
                    earlier=earlier,
                )
                for kind in KINDS
            }
            found = {kind: future.result() for kind, future in begun.items()}
    machine = f"{date.today():%Y-%m-%d}, {os.cpu_count()} cores"  # noqa: DTZ011
    lines = page(found, machine, endpoint=options.kind, every=options.every, lost=lost)
    table_page.write_part(options.out, options.kind, lines)
    return 0 if all(row.good for of_kind in found.values() for row in of_kind) else 1


if __name__ == "__main__":
    sys.exit(main())

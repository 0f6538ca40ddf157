"""Take one action after the other from the printed policies, during an ``up`` and a ``teardown``.

    python -m tests.aws.permission_table --out docs/permissions.md [--kind lambda] [--only lambda:]

writes the page's part for that kind of endpoint, of the actions that begin so. That takes a while;
the tests run a sample of it. The double enforces the policies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from fastai_deploy.aws.permissions import user_policies
from fastai_deploy.errors import FdeployError, StackFailed
from fastai_deploy.image.build import container_of
from fastai_deploy.records import Teardown
from fastai_deploy.targets.aws import checks
from tests.aws.fault_table import up
from tests.aws.images import TinyImage
from tests.aws.table_page import (
    IN_FUNCTION,
    KINDS,
    LAMBDA,
    REAL_TIME,
    container_of_kind,
    write_part,
)
from tests.aws.world import World
from tests.aws_double.process import Double, running_double
from tests.packaged import Model, pack
from tests.runtime.bundles import write_bundle

Json = Any
USER = "deployer"
_HASTE = 30
# Settings that need many permissions: autoscaling and an end.
SETTINGS = {("endpoint.scaling", "max_instances"): 2, ("project", "ttl"): "4h"}
SETTINGS_OF_FUNCTION = {**IN_FUNCTION, ("project", "ttl"): "4h"}
_HEAD = """\
# Permissions: what happens when one is missing

`fdeploy doctor --policy` prints the permissions that `up` and `teardown` need. For every action of
these policies that a stage with autoscaling, `ttl` and fdeploy's own image asks for, the test takes
the action away and runs `up`, gives it back and runs `up` again, takes it away and runs `teardown`,
gives it back and runs `teardown` again. The second `up` must serve and answer its goldens. After
the second teardown the account must be empty, by the services' own lists. The policies also hold
what `batch --transform` needs (transform jobs and their log), which only `teardown` asks for here.

The test runs against the AWS double (`tests/aws_double/`), which evaluates the policies: for what
fdeploy calls itself, and for what CloudFormation's registry says that the handlers of a resource
type call. `make permission-table` writes this page; {machine}.

{only}"Named" says whether the error, or the warning, names the action. Some actions may be missing
without harm, such as those for the price.

{count} actions: {named} of {failed} errors of `up`, and {named_later} of {failed_later} of
`teardown`, named the action; {good} recovered and left nothing, {bad} did not.

| action | `up` without it | named | `teardown` without it | named | then |
|---|---|---|---|---|---|
"""
_HEAD_OF_FUNCTION = """\
## The model in a Lambda function

The same for a stage with `kind = "lambda"` and `ttl`.
`python -m tests.aws.permission_table --kind lambda` writes this part; {machine}.
{only}
{count} actions: {named} of {failed} errors of `up`, and {named_later} of {failed_later} of
`teardown`, named the action; {good} recovered and left nothing, {bad} did not.

| action | `up` without it | named | `teardown` without it | named | then |
|---|---|---|---|---|---|
"""
_ONLY = """
Only actions that begin with `{only}` were taken away.
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: the name of its error, or ``succeeded``, and all that it said."""

    ended: str
    said: str

    @property
    def failed(self) -> bool:
        return self.ended != "succeeded"


@dataclass(frozen=True)
class Row:
    """What happened without one action."""

    action: str
    up: Outcome
    teardown: Outcome
    recovered: bool
    left: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.recovered and not self.left

    def names(self, outcome: Outcome) -> bool:
        return self.action in outcome.said

    def __str__(self) -> str:
        then = "recovered, nothing left" if self.good else f"FAILED: {', '.join(self.left)}"
        cells = [self.action]
        for outcome in (self.up, self.teardown):
            silent = "no" if outcome.failed else ""
            cells += [outcome.ended, "yes" if self.names(outcome) else silent]
        return f"| {' | '.join([*cells, then])} |".replace("|  |", "| |")


class Deployer:
    """An IAM user of an account, who has the printed policies, or all but one action of them.

    ``documents`` are the policies by name.
    """

    def __init__(self, world: World, model: Model) -> None:
        self.world = world
        self._model = model
        iam = world.client("iam")
        arn = iam.create_user(UserName=USER)["User"]["Arn"]
        needs = checks.needs(world.target().context)
        self.documents: Mapping[str, Json] = user_policies(needs)
        world.double.behave(world.account, caller=arn, enforces=True)
        self.allow()

    def allow(self, *, without: str = "") -> None:
        """Attach the policies from now on, without one action."""
        for name, document in self.documents.items():
            kept = [
                {**item, "Action": [each for each in item["Action"] if each != without]}
                for item in document["Statement"]
            ]
            policy = {**document, "Statement": [item for item in kept if item["Action"]]}
            self.world.client("iam").put_user_policy(
                UserName=USER, PolicyName=name, PolicyDocument=json.dumps(policy)
            )

    def up(self) -> Outcome:
        """Run the stages of ``up`` that call AWS."""
        return self._tried(lambda: up(self.world, self._model))

    def teardown(self) -> Outcome:
        """Delete everything; an incomplete teardown is a failure, as for the command."""
        proof: list[Teardown] = []
        outcome = self._tried(
            lambda: proof.append(self.world.target().teardown(artifacts=True, confirmed=True))
        )
        if proof and proof[0].left:
            return Outcome("LeftoverError", f"{outcome.said}\n{' '.join(proof[0].left)}")
        return outcome

    def left(self) -> tuple[str, ...]:
        """What is in the account."""
        return tuple(self.world.everything())

    def _tried(self, run: Callable[[], object]) -> Outcome:
        self.world.events.clear()
        try:
            run()
        except FdeployError as error:
            reason = error.reason if isinstance(error, StackFailed) else ""
            said = f"{self.world.said}\n{error.message}\n{error.hint}\n{reason}"
            return Outcome(type(error).__name__, said)
        return Outcome("succeeded", self.world.said)


def asked(
    double: Double, model: Model, folder: Path, flags: Mapping[tuple[str, str], Any] = SETTINGS
) -> list[str]:
    """The actions that an ``up`` and a ``teardown`` ask for, with nothing missing."""
    deployer = Deployer(_world(double, folder, flags), model)
    for run in (deployer.up, deployer.up, deployer.teardown):
        outcome = run()
        assert not outcome.failed, outcome
    assert deployer.left() == ()
    return double.actions(deployer.world.account)


def _world(double: Double, folder: Path, flags: Mapping[tuple[str, str], Any]) -> World:
    """An account whose minutes are seconds, for what waits for the tag index."""
    return World(
        double,
        folder,
        flags=dict(flags),
        clock=lambda: time.monotonic() * _HASTE,
        find_image=lambda wanted: TinyImage(machine=wanted.machine),
    )


def lacking(
    double: Double,
    model: Model,
    folder: Path,
    action: str,
    flags: Mapping[tuple[str, str], Any] = SETTINGS,
) -> Row:
    """One action taken away during an ``up`` and a ``teardown``, and given back after each."""
    deployer = Deployer(_world(double, folder, flags), model)
    deployer.allow(without=action)
    first = deployer.up()
    deployer.allow()
    again = deployer.up()
    deployer.allow(without=action)
    teardown = deployer.teardown()
    deployer.allow()
    last = deployer.teardown()
    recovered = not (again.failed or last.failed)
    said = () if recovered else (f"{again.ended}, {last.ended}: {again.said[-200:]!r}",)
    return Row(action, first, teardown, recovered, (*deployer.left(), *said))


def page(rows: Sequence[Row], machine: str, *, kind: str, only: str) -> Iterator[str]:
    """The lines of the part of a kind of endpoint."""
    ups = [row for row in rows if row.up.failed]
    downs = [row for row in rows if row.teardown.failed]
    good = sum(row.good for row in rows)
    yield (
        (_HEAD_OF_FUNCTION if kind == LAMBDA else _HEAD)
        .format(
            machine=machine,
            only=_ONLY.format(only=only) if only else "",
            count=len(rows),
            failed=len(ups),
            named=sum(row.names(row.up) for row in ups),
            failed_later=len(downs),
            named_later=sum(row.names(row.teardown) for row in downs),
            good=good,
            bad=len(rows) - good,
        )
        .rstrip()
    )
    yield from map(str, rows)


def main() -> int:
    """Write the part; the exit code is 1 if a row failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS[:2], default=REAL_TIME)
    parser.add_argument("--only", default="", help="actions that begin so, such as lambda:")
    options = parser.parse_args()
    kind, rows = options.kind, list[Row]()
    flags = SETTINGS_OF_FUNCTION if kind == LAMBDA else SETTINGS
    with running_double() as double, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = replace(container_of("x86_64"), image_tag=TinyImage().tag)
        container = container_of_kind(kind) or own
        model = pack(write_bundle(folder / "model"), folder / "model.tar.gz", container)
        for action in asked(double, model, _below(folder, "asked"), flags):
            if action.startswith(options.only):
                rows.append(lacking(double, model, _below(folder, action), action, flags))
                sys.stderr.write(f"{rows[-1]}\n")
    machine = f"{date.today():%Y-%m-%d}, {os.cpu_count()} cores"  # noqa: DTZ011
    write_part(options.out, kind, page(rows, machine, kind=kind, only=options.only))
    return 0 if all(row.good for row in rows) else 1


def _below(folder: Path, name: str) -> Path:
    below = folder / name.replace(":", "-")
    below.mkdir()
    return below


if __name__ == "__main__":
    sys.exit(main())

"""A sample of the fault table: fail a call, run again and recover, tear down and leave nothing.

The whole table is ``make fault-table``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.aws.fault_table import Row, calls_of_up, disturbed
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import Double
from tests.packaged import Model

# The calls that change something: a second run must repair what they left incomplete.
CHANGING = (
    "s3 PUT bucket",
    "s3 PUT bucket?tagging",
    "s3 PUT object",
    "cloudformation CreateChangeSet",
    "cloudformation ExecuteChangeSet",
)


@pytest.fixture(scope="module")
def calls(double: Double, model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return calls_of_up(double, model, tmp_path_factory.mktemp("calls"))


@dataclass(frozen=True)
class Bench:
    """The setup for trying faults; ``calls`` are those of an ``up`` without faults."""

    double: Double
    model: Model
    folder: Path
    calls: list[str]

    def row(self, kind: str, number: int) -> Row:
        row = disturbed(self.double, self.model, self.folder, kind, number)
        assert row is not None
        return row


@pytest.fixture
def bench(double: Double, model: Model, tmp_path: Path, calls: list[str]) -> Bench:
    return Bench(double, model, tmp_path, calls)


@pytest.mark.parametrize(
    ("kind", "operation"),
    [("lost once", CHANGING[-1]), *(("lost", operation) for operation in CHANGING)],
)
def test_a_change_whose_answer_was_lost(bench: Bench, kind: str, operation: str) -> None:
    row = bench.row(kind, bench.calls.index(operation) + 1)
    assert row.operation == operation
    assert row.good, row
    assert (row.first == "succeeded") is (kind == "lost once")


@pytest.mark.parametrize(
    ("kind", "share"), [("throttle", 0.2), ("deny", 0.4), ("server error", 0.6), ("reset", 0.8)]
)
def test_a_call_that_failed(bench: Bench, kind: str, share: float) -> None:
    row = bench.row(kind, round(len(bench.calls) * share))
    assert row.good, row


def test_an_answer_that_never_comes(world: World, model: Model) -> None:
    """The client gives up after its timeout; the call is sent twice and carried out once."""
    world.read_seconds = 1.0
    target = world.target()
    stored = target.upload(model.artifact)
    hang = Fault("hang", service="cloudformation", operation="CreateChangeSet", attempts=1)
    world.double.do_wrong(world.account, hang)
    assert target.deploy(stored, model.verify).version == model.artifact.version
    (hit,) = [call for call in world.double.calls(world.account) if call["fault"]]
    assert hit["attempts"] == 2

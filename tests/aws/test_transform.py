"""Batch transform: each row once and in order, whatever ends the run; and nothing is left."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy import naming
from fastai_deploy.aws.capacity import DEFAULT_INSTANCE
from fastai_deploy.batch_invoke.job import Answering, BatchJob, BatchReport, run_batch
from fastai_deploy.batch_invoke.places import LocalInput, LocalOutput
from fastai_deploy.batch_invoke.transform import transformed
from fastai_deploy.errors import DeployError, UsageError
from fastai_deploy.progress import Advanced, Consent, Event, Warned
from fastai_deploy.targets.aws.batch import BatchTransform
from tests.aws.world import PROJECT, World
from tests.aws_double.containers import Container
from tests.invoking.test_batch import records, table
from tests.packaged import Model
from tests.runtime.bundles import LABELS

LOGS = "log group /aws/sagemaker/TransformJobs"  # AWS's, of all jobs of the account


def service(world: World, model: Model, instances: int = 2, **consent: Any) -> BatchTransform:
    target = world.target()
    context = replace(target.context, consent=Consent(**consent))
    return BatchTransform(context, target.upload(model.artifact), instances)


def run(
    world: World,
    model: Model,
    asked: BatchTransform,
    *,
    report: Any = None,
    **changes: Any,
) -> BatchReport:
    source, output = world.root / "in.csv", world.root / "out.csv"
    job = BatchJob(
        LocalInput.open(str(source)), LocalOutput(str(output), output), overwrite=False, **changes
    )
    answering = Answering(
        lambda work, top_k: transformed(work, top_k, asked, 2),
        LABELS,
        several=False,
        version=model.artifact.version,
        by="a batch transform",
        clean=lambda found: asked.clean(found.way) if found.way else None,
    )
    return run_batch(job, answering, report or world.events.append, lambda: 0.0)


def check(world: World, model: Model, count: int) -> None:
    """Every row once, in order, with the model's own answer; nothing is left."""
    made = records(world.root / "out.csv")
    assert [row["id"] for row in made] == [str(number) for number in range(count)]
    for row in made[::17]:
        for label, expected in model.bundle.expected(row["text"]).items():
            assert abs(float(row[f"probability_{label}"]) - expected) < 1e-4
    assert jobs(world, "InProgress") == []
    name = f"fdeploy-{world.account}-{world.region}"
    assert [each for each in world.everything() if each != LOGS] == [f"bucket {name}"]
    prefix = naming.batch_prefix(PROJECT, "dev")
    found = world.client("s3").list_object_versions(Bucket=name, Prefix=prefix)
    assert not found.get("Versions")
    assert not found.get("DeleteMarkers")


def jobs(world: World, status: str = "") -> list[str]:
    asked = {"StatusEquals": status} if status else {}
    found = world.client("sagemaker").list_transform_jobs(**asked)["TransformJobSummaries"]
    return sorted(item["TransformJobName"] for item in found)


def described(world: World, name: str) -> Any:
    return world.client("sagemaker").describe_transform_job(TransformJobName=name)


def test_a_table_through_a_batch_transform(world: World, model: Model) -> None:
    table(world.root / "in.csv", 1_050)
    found = run(world, model, service(world, model))
    assert (found.rows, found.failed) == (1_050, 0)
    check(world, model, 1_050)
    (name,) = jobs(world)
    job = described(world, name)
    assert job["TransformJobStatus"] == "Completed"
    assert job["TransformResources"]["InstanceCount"] == 2
    assert job["BatchStrategy"] == "SingleRecord"
    tags = world.client("sagemaker").list_tags(ResourceArn=job["TransformJobArn"])["Tags"]
    assert {"Key": naming.PROJECT_TAG, "Value": PROJECT} in tags
    done = [
        event.done for event in world.events if isinstance(event, Advanced) if event.unit == "rows"
    ]
    assert done == sorted(done)
    assert done[-1] == 1_050


def test_rows_without_a_text_fail_alone(world: World, model: Model) -> None:
    (world.root / "in.csv").write_text("x")
    source = world.root / "in.jsonl"
    rows = [{"id": n, "text": "a film" if n % 10 else None} for n in range(230)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = service(world, model)
    output = LocalOutput("out.csv", world.root / "out.csv")
    answering = Answering(
        lambda work, top_k: transformed(work, top_k, asked, 2),
        LABELS,
        several=False,
        version="v",
        by="a batch transform",
        clean=lambda found: asked.clean(found.way) if found.way else None,
    )
    job = BatchJob(LocalInput.open(str(source)), output, top_k=1)
    found = run_batch(job, answering, world.events.append, lambda: 0.0)
    assert (found.rows, found.failed) == (230, 23)
    made = records(world.root / "out.csv")
    assert [bool(row["error"]) for row in made] == [n % 10 == 0 for n in range(230)]
    assert len(json.loads(made[1]["probabilities"])) == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["uploaded", "running", "completed"])
def test_a_run_that_is_killed_continues(world: World, model: Model, moment: str) -> None:
    """The second call finds the shards, the job that runs, or its answers."""
    table(world.root / "in.csv", 1_050)
    asked = service(world, model)

    def report(event: Event) -> None:
        said = getattr(event, "message", "")
        if (moment == "uploaded" and said.startswith("uploaded")) or (
            moment == "running" and isinstance(event, Advanced) and event.unit == "rows"
        ):
            raise Killed
        if moment == "completed" and isinstance(event, Advanced) and event.done == 1_050:
            raise Killed

    if moment == "running":
        world.double.behave(world.account, hold=True)
    with pytest.raises(Killed):
        run(world, model, asked, report=report)
    begun = jobs(world)
    assert len(begun) == (0 if moment == "uploaded" else 1)
    world.double.behave(world.account, hold=False)
    world.events.clear()
    run(world, model, service(world, model))
    check(world, model, 1_050)
    assert "uploaded 0 of 6 shards" in world.said
    assert len(jobs(world)) == 1
    if moment == "running":
        assert f"following the transform job {begun[0]}" in world.said


def test_a_job_that_fails_says_why_and_continues_with_what_is_missing(
    world: World, model: Model
) -> None:
    table(world.root / "in.csv", 1_050)
    world.double.behave(world.account, transform_fails="The container is out of memory")
    with pytest.raises(DeployError, match="out of memory") as caught:
        run(world, model, service(world, model))
    assert "a line of the container's log" in caught.value.message
    world.double.behave(world.account, transform_fails="")
    run(world, model, service(world, model))
    check(world, model, 1_050)
    first, second = jobs(world)
    assert (first[-4:], second[-4:]) == ("0001", "0002")
    assert first[:-4] == second[:-4]


def test_it_asks_with_a_price_before_it_costs(world: World, model: Model) -> None:
    table(world.root / "in.csv", 10)
    on = DEFAULT_INSTANCE
    world.double.behave(world.account, price={on: "0.25"})
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    with pytest.raises(UsageError, match="nothing started"):
        run(world, model, service(world, model, 4, ask=no))
    assert asked == [f"Start a batch transform on 4 x {on}?"]
    total = Decimal("0.25") * 4
    assert f"{total:.2f} USD an hour, billed by the second" in world.said
    assert not jobs(world)
    assert not (world.root / "out.csv.partial").exists()


def test_teardown_stops_a_job_and_deletes_what_it_has(world: World, model: Model) -> None:
    table(world.root / "in.csv", 300)
    world.double.behave(world.account, hold=True)

    def report(event: Event) -> None:
        if isinstance(event, Advanced) and event.unit == "rows":
            raise KeyboardInterrupt
        world.events.append(event)

    with pytest.raises(KeyboardInterrupt):
        run(world, model, service(world, model), report=report)
    warned = [event for event in world.events if isinstance(event, Warned)]
    assert any("runs on, and costs" in event.message for event in warned)
    (name,) = jobs(world, "InProgress")
    proof = world.target().teardown(artifacts=True)
    assert f"transform job {name}" in proof.deleted
    assert proof.left == ()
    assert described(world, name)["TransformJobStatus"] == "Stopped"
    assert [each for each in world.everything() if each != LOGS] == []


def test_a_run_that_ends_leaves_the_stack_to_another_one(world: World, model: Model) -> None:
    table(world.root / "in.csv", 10)
    mine = service(world, model)
    world.double.behave(world.account, hold=True)

    def report(event: Event) -> None:
        if isinstance(event, Advanced) and event.unit == "rows":
            raise Killed

    with pytest.raises(Killed):
        run(world, model, service(world, model), report=report)
    mine.clean("0a1b2c3d")  # a run of which nothing is left but the stack
    assert any(each.startswith("stack demo-dev-batch") for each in world.everything())
    world.double.behave(world.account, hold=False)
    run(world, model, service(world, model))
    check(world, model, 10)


def test_another_stage_keeps_its_job(world: World, model: Model) -> None:
    table(world.root / "in.csv", 10)
    other = World(world.double, world.root, account=world.account, stage="dev-2")
    other.double.behave(other.account, hold=True)

    def report(event: Event) -> None:
        if isinstance(event, Advanced) and event.unit == "rows":
            raise Killed

    with pytest.raises(Killed):
        run(other, model, service(other, model), report=report)
    assert world.target().teardown().found == ()
    assert len(jobs(world, "InProgress")) == 1


def test_the_contract_refuses_what_multirecord_would_send(model: Model) -> None:
    """Why a line has many texts, and a request one line: megabytes of lines are too many texts."""
    artifact = Path(model.artifact.path).read_bytes()
    container = Container(artifact, {}, sys.executable)
    try:
        container.start(60.0)
        lines = b"\n".join(b'{"text": "a film"}' for _ in range(1_001))
        jsonl = {"content-type": "application/jsonlines"}
        status, _, body = container.invoke(lines, jsonl, 60.0)
        assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")
        status, kind, body = container.invoke(lines.partition(b"\n")[2], jsonl, 60.0)
        assert (status, kind, body.count(b"\n")) == (200, "application/jsonlines", 1_000)
    finally:
        container.stop()

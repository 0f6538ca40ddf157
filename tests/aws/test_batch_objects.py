"""A batch whose input and output are objects on S3."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.aws.objects import Objects
from fastai_deploy.batch_invoke.job import BatchJob, BatchReport, run_batch
from fastai_deploy.batch_invoke.places import open_places
from fastai_deploy.errors import AwsDenied, AwsMissing, FdeployError, UsageError
from fastai_deploy.progress import Advanced
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.invoking.test_batch import Echo, Stop, expected, stop_at, table

BUCKET = "somebodys-reviews"


@pytest.fixture
def s3(world: World) -> Any:
    client = world.client("s3")
    name = f"{BUCKET}-{world.account}"
    place = {"LocationConstraint": world.region}
    client.create_bucket(Bucket=name, CreateBucketConfiguration=place)
    return client


def run(
    world: World, source: str, output: str, model: Echo | None = None, **changes: Any
) -> BatchReport:
    bucket = f"{BUCKET}-{world.account}"
    found, written = open_places(
        source.replace("s3://B/", f"s3://{bucket}/"),
        output.replace("s3://B/", f"s3://{bucket}/"),
        overwrite=changes.get("overwrite", False),
        kept=world.root / "kept",
        objects=lambda: Objects(world.aws(), world.events.append),
        report=world.events.append,
    )
    job = BatchJob(found, written, **changes)
    return run_batch(job, (model or Echo()).answering(), world.events.append, lambda: 0.0)


def put(world: World, s3: Any, key: str, path: Path) -> None:
    s3.put_object(Bucket=f"{BUCKET}-{world.account}", Key=key, Body=path.read_bytes())


def get(world: World, s3: Any, key: str) -> list[dict[str, str]]:
    body = s3.get_object(Bucket=f"{BUCKET}-{world.account}", Key=key)["Body"].read()
    return list(csv.DictReader(io.StringIO(body.decode(), newline="")))


def keys(world: World, s3: Any) -> list[str]:
    found = s3.list_objects_v2(Bucket=f"{BUCKET}-{world.account}")
    return [item["Key"] for item in found.get("Contents", [])]


def test_from_s3_to_s3(world: World, s3: Any) -> None:
    put(world, s3, "in/may.csv", table(world.root / "in.csv"))
    found = run(world, "s3://B/in/may.csv", "s3://B/out/may.csv")
    assert (found.rows, found.failed) == (100, 0)
    assert get(world, s3, "out/may.csv") == expected()
    assert not list((world.root / "kept").iterdir())
    assert {event.task for event in world.events if isinstance(event, Advanced)} == {
        *("batch", "download", "upload")
    }
    assert not s3.list_multipart_uploads(Bucket=f"{BUCKET}-{world.account}").get("Uploads")


def test_from_s3_to_the_disk_and_back(world: World, s3: Any) -> None:
    put(world, s3, "may.csv", table(world.root / "in.csv"))
    run(world, "s3://B/may.csv", str(world.root / "out.jsonl"))
    run(world, str(world.root / "out.jsonl"), "s3://B/again.csv")
    assert [row["text"] for row in get(world, s3, "again.csv")] == [
        row["text"] for row in expected()
    ]


def test_an_interrupted_run_does_not_fetch_its_input_again(world: World, s3: Any) -> None:
    put(world, s3, "may.csv", table(world.root / "in.csv"))
    with pytest.raises(Stop):
        run(world, "s3://B/may.csv", "s3://B/out.csv", Echo(stop_at(8)))
    assert keys(world, s3) == ["may.csv"]
    world.events.clear()
    found = run(world, "s3://B/may.csv", "s3://B/out.csv")
    assert 0 < found.continued < 100
    assert get(world, s3, "out.csv") == expected()
    tasks = [event.task for event in world.events if isinstance(event, Advanced)]
    assert "download" not in tasks


def test_an_object_that_has_changed_is_not_mixed_in(world: World, s3: Any) -> None:
    put(world, s3, "may.csv", table(world.root / "in.csv"))
    with pytest.raises(Stop):
        run(world, "s3://B/may.csv", "s3://B/out.csv", Echo(stop_at(8)))
    put(world, s3, "may.csv", table(world.root / "in.csv", 101))
    with pytest.raises(UsageError, match="the input has changed"):
        run(world, "s3://B/may.csv", "s3://B/out.csv")
    assert run(world, "s3://B/may.csv", "s3://B/out.csv", overwrite=True).rows == 101
    assert get(world, s3, "out.csv") == expected(101)


def test_what_is_not_there_or_may_not_be_touched(world: World, s3: Any) -> None:
    source = str(table(world.root / "in.csv"))
    put(world, s3, "there.csv", world.root / "in.csv")
    cases: list[tuple[str, str, type[FdeployError], str]] = [
        ("s3://B/nothing.csv", "out.csv", AwsMissing, "does not exist"),
        ("s3://no-such-bucket-of-anyone/a.csv", "out.csv", FdeployError, "no-such-bucket"),
        ("s3://B/folder/", "out.csv", UsageError, "does not say the format"),
        ("s3://B.csv", "out.csv", UsageError, "does not name an object"),
        (source, "s3://B/folder.csv/", UsageError, "does not name an object"),
        (source, "s3://B/out", UsageError, "does not say the format"),
        (
            source,
            "s3://no-such-bucket-of-anyone/a.csv",
            FdeployError,
            "no-such-bucket|NoSuchBucket",
        ),
        (source, "s3://B/there.csv", UsageError, "exists already"),
        ("s3://B/there.csv", "s3://B/there.csv", UsageError, "is the input file"),
    ]
    for given, output, kind, said in cases:
        model = Echo()
        with pytest.raises(kind, match=said) as caught:
            run(world, given, output if "/" in output else str(world.root / output), model)
        assert caught.value.hint
        assert not model.asked
    assert keys(world, s3) == ["there.csv"]
    assert not (world.root / "out.csv").exists()


def test_what_iam_denies_is_found_before_the_work(world: World, s3: Any) -> None:
    source = str(table(world.root / "in.csv"))
    put(world, s3, "there.csv", world.root / "in.csv")
    for action, operation, given, output in (
        ("s3:GetObject", "HEAD object", "s3://B/there.csv", str(world.root / "out.csv")),
        ("s3:PutObject", "POST object?uploads", source, "s3://B/out.csv"),
    ):
        world.double.do_wrong(world.account, Fault("deny", service="s3", operation=operation))
        model = Echo()
        with pytest.raises(AwsDenied, match=action):
            run(world, given, output, model)
        assert not model.asked

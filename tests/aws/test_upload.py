from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fastai_deploy.aws.bucket import ensure_bucket
from fastai_deploy.aws.upload import PART, Uploads, digest
from fastai_deploy.errors import AwsUnreachable, FileError, FileMissing
from fastai_deploy.progress import Advanced
from tests.aws.world import World
from tests.aws_double.faults import Fault

KEY = "models/model.tar.gz"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Three different parts, the last one short."""
    path = tmp_path / "large.tar.gz"
    with path.open("wb") as file:
        for number in (1, 2):
            file.write(bytes([number]) * PART)
        file.write(b"the end")
    return path


def uploads(world: World) -> Uploads:
    aws = world.aws()
    bucket = ensure_bucket(aws, None, world.events.append)
    return Uploads(aws, bucket, world.events.append, {"uploaded-by": "ada"})


def send(world: World, path: Path) -> str:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return uploads(world).file(path, KEY, sha256=sha256)


def stored(world: World) -> bytes:
    name = f"fdeploy-{world.account}-{world.region}"
    data: bytes = world.client("s3").get_object(Bucket=name, Key=KEY)["Body"].read()
    return data


def sent(world: World) -> list[str]:
    """The calls that sent data."""
    calls = world.double.calls(world.account)
    return [call["operation"] for call in calls if call["operation"].startswith("PUT object")]


def test_a_small_file_goes_in_one_piece(world: World, tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"small")
    uri = send(world, path)
    assert uri == f"s3://fdeploy-{world.account}-{world.region}/{KEY}"
    assert stored(world) == b"small"
    head = world.client("s3").head_object(Bucket=uri.split("/")[2], Key=KEY, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == digest(path).checksum
    assert head["Metadata"] == {"uploaded-by": "ada"}


def test_a_large_file_goes_in_parts_that_s3_checks(world: World, large: Path) -> None:
    send(world, large)
    assert stored(world) == large.read_bytes()
    assert digest(large).checksum.endswith("-3")
    progress = [event for event in world.events if isinstance(event, Advanced)]
    assert progress[-1].done == progress[-1].total == large.stat().st_size
    assert [event.done for event in progress] == sorted(event.done for event in progress)


@pytest.mark.parametrize("size", [5, PART + 5])
def test_no_byte_is_sent_when_it_is_there(world: World, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    send(world, path)
    world.double.do_wrong(world.account)
    send(world, path)
    assert sent(world) == []
    assert "is already stored" in world.said


def test_what_stands_there_and_is_another_is_replaced(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    send(world, path)
    name = f"fdeploy-{world.account}-{world.region}"
    world.client("s3").put_object(Bucket=name, Key=KEY, Body=b"wrong")
    send(world, path)
    assert stored(world) == b"right"


def test_a_broken_off_upload_goes_on(world: World, large: Path) -> None:
    """After a stored part the connection breaks for good, so not even the cleanup gets through."""
    begin_upload(world, large)
    world.double.do_wrong(world.account)
    send(world, large)
    assert stored(world) == large.read_bytes()
    assert "resuming an interrupted upload" in world.said
    assert len([call for call in sent(world) if "partNumber" in call]) == 2
    name = f"fdeploy-{world.account}-{world.region}"
    assert "Uploads" not in world.client("s3").list_multipart_uploads(Bucket=name)


def begin_upload(world: World, path: Path) -> None:
    """Store the first part, like a run that is killed afterwards."""
    uploads(world)
    s3 = world.client("s3")
    name = f"fdeploy-{world.account}-{world.region}"
    upload = s3.create_multipart_upload(Bucket=name, Key=KEY, ChecksumAlgorithm="SHA256")
    s3.upload_part(
        Bucket=name,
        Key=KEY,
        UploadId=upload["UploadId"],
        PartNumber=1,
        Body=path.read_bytes()[:PART],
        ChecksumAlgorithm="SHA256",
    )


def test_a_lost_connection_ends_the_upload_with_an_error(world: World, large: Path) -> None:
    uploads(world)
    world.double.do_wrong(
        world.account, Fault("reset", service="s3", operation="PUT object?partNumber&uploadId")
    )
    with pytest.raises(AwsUnreachable):
        send(world, large)
    world.double.do_wrong(world.account)
    send(world, large)
    assert stored(world) == large.read_bytes()


def test_a_file_that_changed_is_not_sent(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"other")
    world.double.do_wrong(world.account)
    with pytest.raises(FileError, match="its hash differs"):
        uploads(world).file(path, KEY, sha256="0" * 64)
    with pytest.raises(FileMissing):
        uploads(world).file(tmp_path / "none", KEY, sha256="0" * 64)
    assert sent(world) == []

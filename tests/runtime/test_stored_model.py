"""Files of a model, read in ranges out of an artifact that a real S3 API serves."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.packaging.artifact import StoredGzip
from fastai_deploy.runtime.bundle import ModelError
from fastai_deploy.runtime.stored_model import BLOCK, PARTS, complete, content, ranges

STORED = "s3://bucket/fdeploy/demo/model.tar.gz"


@dataclass
class Bucket:
    """What GetObject answers about one object; a range beyond its end is cut there, as S3 does."""

    object: bytes
    failing: Exception | None = None
    asked: list[str] = field(default_factory=list)

    def get_object(self, *, Bucket: str, Key: str, Range: str) -> Any:  # noqa: N803 - botocore's
        assert (Bucket, Key) == ("bucket", "fdeploy/demo/model.tar.gz")
        if self.failing:
            raise self.failing
        self.asked.append(Range)
        first, _, last = Range.removeprefix("bytes=").partition("-")
        return {"Body": io.BytesIO(self.object[int(first) : int(last) + 1])}


class Refused(Exception):
    response: ClassVar = {"Error": {"Code": "AccessDenied"}}


def artifact(files: dict[str, bytes]) -> tuple[bytes, dict[str, Any]]:
    """A tar file in stored blocks, and the parts of its files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    raw.seek(0)
    parts = {}
    with tarfile.open(fileobj=raw) as tar:
        for info in tar:
            data = files[info.name]
            hashes = [
                hashlib.sha256(data[each.start : each.end]).hexdigest()
                for each in ranges(info.offset_data, info.size)
            ]
            parts[info.name] = {"offset": info.offset_data, "bytes": info.size, "sha256": hashes}
    packed = io.BytesIO()
    stream = StoredGzip(packed)
    stream.write(raw.getvalue())
    stream.close()
    return packed.getvalue(), parts


def folder(path: Path, parts: dict[str, Any]) -> Path:
    path.mkdir()
    (path / PARTS).write_text(json.dumps(parts))
    (path / "manifest.json").write_text("{}")
    return path


def filled(size: int, seed: int) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(size)


@pytest.mark.parametrize("size", [1, BLOCK - 512, BLOCK, 129 * BLOCK, 300 * BLOCK + 7])
def test_a_file_is_what_was_packed(size: int, tmp_path: Path) -> None:
    files = {"first": filled(1_000, 1), "weights": filled(size, 2), "last": filled(70_000, 3)}
    packed, parts = artifact(files)
    bucket = Bucket(packed)
    found = complete(folder(tmp_path / "model", parts), STORED, bucket, tmp_path)
    assert {name: (found / name).read_bytes() for name in files} == files
    assert (found / "manifest.json").read_text() == "{}"
    wanted = sum(len(part["sha256"]) for part in parts.values())
    assert len(bucket.asked) == wanted


@given(st.integers(0, 3_000_000), st.integers(1, 30_000_000))
def test_ranges_cover_a_file_once(offset: int, size: int) -> None:
    found = list(ranges(offset, size))
    assert found[0].start == 0
    assert found[-1].end == size
    assert all(one.end == other.start for one, other in itertools.pairwise(found))
    for each in found:
        begins = each.first_block * BLOCK - offset
        assert begins <= each.start
        assert each.end <= begins + (each.last_block + 1 - each.first_block) * BLOCK


def test_another_content_is_refused(tmp_path: Path) -> None:
    packed, parts = artifact({"weights": filled(5 * BLOCK, 1)})
    changed = bytearray(packed)
    changed[2 * BLOCK] ^= 1
    with pytest.raises(ModelError, match="not the one that was deployed"):
        complete(folder(tmp_path / "model", parts), STORED, Bucket(bytes(changed)), tmp_path)
    with pytest.raises(ModelError, match="not the one that was deployed"):
        content(b"\0" * 100)
    with pytest.raises(ModelError, match="not the one that was deployed"):
        content(b"\0\1")


def test_an_object_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    _, parts = artifact({"weights": b"x"})
    with pytest.raises(ModelError, match=f"{STORED} cannot be read: AccessDenied"):
        complete(folder(tmp_path / "model", parts), STORED, Bucket(b"", Refused()), tmp_path)
    with pytest.raises(ModelError, match="cannot be read: ConnectionError"):
        complete(tmp_path / "model", STORED, Bucket(b"", ConnectionError()), tmp_path)


def test_a_package_without_its_list_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "model", {"weights": {"offset": "far"}})
    with pytest.raises(ModelError, match=r"parts\.json is missing"):
        complete(place, STORED, Bucket(b""), tmp_path)

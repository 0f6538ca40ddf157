"""The file formats, written by torch itself and read without it."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastai_deploy.errors import (
    FileError,
    FileMissing,
    LearnerError,
    LearnerTruncated,
    NotALearner,
    NotAPickle,
    UnsupportedLearner,
)
from fastai_deploy.learner.reading.formats import Archive, open_archive, read_archive
from fastai_deploy.learner.reading.graph import Call, Global, Mapping, lookup
from fastai_deploy.learner.reading.sources import BytesSource
from fastai_deploy.learner.reading.tensors import Tensor, tensor
from fastai_deploy.learner.rebuild.transformer import read_tensor
from tests.learner.assemble import assemble, mapping, torch_zip
from tests.learner.files import CONVERTIBLE, learner


def save(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def read(data: bytes) -> Archive:
    return read_archive(BytesSource(data))


def entry(archive: Archive, name: str) -> Tensor:
    found = tensor(lookup(archive.pickled.root, name), archive.nested)
    assert found is not None
    return found


FORMATS: dict[str, Callable[[object], bytes]] = {
    "zip": save,
    "legacy": partial(save, _use_new_zipfile_serialization=False),
    **{
        f"plain {protocol}": partial(pickle.dumps, protocol=protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32,
          torch.int16, torch.int8, torch.uint8, torch.bool]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_tensors_are_read_as_they_were_saved(name: str) -> None:
    base = torch.arange(24).reshape(4, 6)
    values: dict[str, torch.Tensor] = {str(dtype): (base % 2).to(dtype) for dtype in DTYPES}
    values["turned"] = base.float().t()
    values["part"] = base.float()[1:3, ::2]
    values["number"] = torch.tensor(7.5)
    values["empty"] = torch.empty(0, 3)
    values["parameter"] = nn.Parameter(base.double(), requires_grad=True)
    archive = read(FORMATS[name](values))
    assert archive.format == name.split(maxsplit=1)[0]
    for key, value in values.items():
        found = entry(archive, key)
        assert torch.equal(read_tensor(found), value.detach()), key
        assert found.contiguous == value.is_contiguous() or value.numel() == 0, key
    assert entry(archive, "parameter").trainable
    assert not entry(archive, "part").trainable


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_weights_from_a_gpu_are_read(name: str) -> None:
    data = FORMATS[name]({"a": torch.arange(6.0)})
    archive = read(data.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0", 1)
                   if name == "legacy" else _on_gpu(data))  # fmt: skip
    assert entry(archive, "a").storage.device == "cuda:0"
    assert read_tensor(entry(archive, "a")).tolist() == [0, 1, 2, 3, 4, 5]


def _on_gpu(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = archive.read("archive/data.pkl")
        storage = archive.read("archive/data/0")
    return torch_zip(pickled.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0"),
                     {"0": storage})  # fmt: skip


def test_a_zip_that_was_packed_again_is_read() -> None:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(save({"a": torch.zeros(500)}))) as archive,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert read_tensor(entry(read(buffer.getvalue()), "a")).abs().sum() == 0


def test_weights_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "big.pkl"
    torch.save({"a": torch.zeros(1 << 20)}, file)

    class Counting(BytesSource):
        taken = 0

        def read(self, offset: int, size: int) -> bytes:
            Counting.taken += size
            return super().read(offset, size)

    archive = read_archive(Counting(file.read_bytes()))
    assert Counting.taken < 100_000
    assert len(entry(archive, "a").read()) == 4 << 20


@pytest.mark.parametrize("name", ["zip", "legacy", "plain 4"])
def test_a_file_that_ends_early_is_an_error_of_its_own(name: str) -> None:
    data = FORMATS[name]({"a": torch.arange(300.0), "b": ["x"] * 50})
    for size in {1, 5, len(data) // 3, len(data) // 2, len(data) - 400, len(data) - 1}:
        with pytest.raises(LearnerError) as caught:
            read(data[:size])
        assert isinstance(caught.value, (LearnerTruncated, NotAPickle)), size


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_half_a_learner_is_truncated(name: str) -> None:
    data = learner(name).read_bytes()
    with pytest.raises(LearnerTruncated):
        read(data[: len(data) // 2])


WRONG: dict[bytes, str] = {
    b"": "an empty file",
    b"\x1f\x8b\x08\x00": "gzip",
    b"BZh9": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x93NUMPY\x01": "NumPy",
    b"GGUF\x03": "GGUF",
    b"version https://git-lfs.github.com/spec/v1\n": "Git LFS",
    b"\n<!DOCTYPE html><html>": "a web page",
    b"PK\x05\x06" + b"\0" * 18: "an empty zip",
    b"\x10\x00\x00\x00\x00\x00\x00\x00{}              ": "safetensors",
    b"hello, world": "not a pickle",
    b"\x00\x01\x02": "not a pickle",
}


@pytest.mark.parametrize("data", WRONG, ids=WRONG.values())
def test_other_files_are_distinguished(data: bytes) -> None:
    with pytest.raises(NotAPickle, match=WRONG[data]) as caught:
        read(data)
    assert caught.value.hint


def test_other_zips_are_distinguished() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    with pytest.raises(NotAPickle, match="zip"):
        read(buffer.getvalue())
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("b/data.pkl", b"N.")
    with pytest.raises(NotALearner, match="more than one"):
        read(twice.getvalue())
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("a/constants.pkl", b"N.")
    with pytest.raises(NotALearner, match="TorchScript"):
        read(script.getvalue())


def test_a_name_twice_in_a_zip_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("a/data.pkx", b"cos\nsystem\n.")
    with pytest.raises(LearnerTruncated, match="twice"):
        read(buffer.getvalue().replace(b"a/data.pkx", b"a/data.pkl"))


def test_two_names_for_a_member_are_refused() -> None:
    data = torch_zip(b"\x80\x02N.", {})
    with pytest.raises(LearnerTruncated, match="two names"):
        read(data.replace(b"archive/data.pkl", b"archive/data.pkX", 1))


def test_a_big_endian_file_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("a/byteorder", b"big")
    with pytest.raises(UnsupportedLearner, match="big-endian"):
        read(buffer.getvalue())


def test_two_pickles_in_one_file_are_refused() -> None:
    with pytest.raises(NotALearner, match="continues for"):
        read(pickle.dumps({}) * 2)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in [(tmp_path / "none.pkl", FileMissing), (tmp_path, FileError),
                       (pipe, FileError)]:  # fmt: skip
        with pytest.raises(kind), open_archive(path):
            pass


def test_a_file_that_is_written_to_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "learner.pkl"
    file.write_bytes(save({"a": torch.arange(6.0)}))
    with open_archive(file) as (source, archive):
        source.check_unchanged()
        with file.open("r+b") as writer:
            writer.seek(0, os.SEEK_END)
            writer.write(b"x")
        with pytest.raises(LearnerTruncated, match="changed while fdeploy was reading it"):
            source.check_unchanged()
        assert isinstance(archive.pickled.root, Mapping)
    with open_archive(learner(CONVERTIBLE[0])) as (source, _):
        source.check_unchanged()


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "learner.pkl"
    file.write_bytes(save({"a": torch.arange(60.0)}))
    with open_archive(file) as (_, archive):
        os.truncate(file, 100)
        with pytest.raises(LearnerTruncated, match="changed while fdeploy was reading it"):
            entry(archive, "a").read()


def test_a_sparse_tensor_is_refused() -> None:
    with pytest.raises(UnsupportedLearner, match="sparse"):
        entry(read(save({"a": torch.eye(3).to_sparse()})), "a")


@pytest.mark.parametrize("kind", ["_rebuild_qtensor", "_rebuild_meta_tensor_no_storage"])
def test_tensors_of_a_special_kind_are_refused(kind: str) -> None:
    root = mapping({"a": Call(Global("torch._utils", kind), (1, 2))})
    with pytest.raises(UnsupportedLearner, match="special kind"):
        entry(read(assemble(root)), "a")

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastai_deploy import files
from fastai_deploy.errors import DiskFull, FileDenied, FileError, FileMissing

# A process whose files may hold 1,000 bytes: what a full disk does, without filling one.
FULL_DISK = """
import resource, sys
from pathlib import Path
from fastai_deploy import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write(Path(sys.argv[1]), b"x" * 5000)
except files.DiskFull as error:
    print(error.message)
"""


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    files.write(path, b"one", mode=0o600)
    files.write(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["file"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_remains_of_a_killed_writer_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(b"half")
    files.write(tmp_path / "file", b"whole")
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "cannot be written: File too large" in done.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(28, DiskFull), (13, FileDenied), (30, FileDenied), (2, FileMissing), (5, FileError)],
)
def test_what_the_system_refuses_names_the_path(number: int, kind: type[FileError]) -> None:
    with pytest.raises(kind, match="/some/where") as caught, files.file_errors(Path("/some/where")):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    for attempt in (files.read, files.sha256, files.names_in, files.make_folder):
        with pytest.raises(FileError):
            attempt(tmp_path / name)
    with pytest.raises(FileError):
        files.write(tmp_path / name, b"")


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read(tmp_path / "a", most=5) == b"12345"
    with pytest.raises(FileError, match="is larger than the limit of 4 bytes"):
        files.read(tmp_path / "a", most=4)
    assert (files.size_of(tmp_path / "a"), files.size_of(tmp_path)) == (5, None)


def test_a_path_out_of_the_workspace_is_none(tmp_path: Path) -> None:
    (tmp_path / ".fdeploy").mkdir()
    with pytest.raises(FileError, match=r"leads out of \.fdeploy"):
        files.write(tmp_path / ".fdeploy" / ".." / "a", b"")
    assert os.listdir(tmp_path) == [".fdeploy"]


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    data = os.urandom(files.CHUNK + 7)
    path = tmp_path / "file"
    path.write_bytes(data)
    told: list[int] = []
    assert files.sha256(path, notify=told.append) == hashlib.sha256(data).hexdigest()
    assert told == [files.CHUNK, len(data)]

"""Links, pipes and mounts where fdeploy would write: it changes only its own files."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastai_deploy import files
from fastai_deploy.errors import FileError
from tests.local.stage import Stage

# Folders, by patterns that match in every run.
FOLDERS = (
    ".fdeploy",
    "dev",
    "dev/bundle",
    "dev/local",
    "dev/local/lambda",
    "dev/local/lambda/*",
    "dev/local/models",
    "dev/local/models/*",
    "dev/local/servers",
    "dev/local/store",
    "dev/local/store/*",
)
FILES = (
    ".gitignore",
    "dev/bundle/card.md",
    "dev/bundle/goldens.json",
    "dev/bundle/manifest.json",
    "dev/bundle/model.onnx",
    "dev/bundle/model.onnx.data",
    "dev/bundle/tokenizer.json",
    "dev/collection.json",
    "dev/create-api.json",
    "dev/deploy.json",
    "dev/export.json",
    "dev/local/deployments.jsonl",
    "dev/local/endpoint.json",
    "dev/local/endpoint.log",
    "dev/local/gateway.announce.json",
    "dev/local/gateway.json",
    "dev/local/gateway.log",
    "dev/local/key",
    "dev/local/lambda-*.zip",
    "dev/local/servers/*.json",
    "dev/local/store/*/model.tar.gz",
    "dev/lock",
    "dev/model.tar.gz",
    "dev/package.json",
    "dev/upload.json",
)
# Files that exist only while a command runs, after one was killed, or after a long one.
PASSING = (
    "dev/.bundle.old",
    "dev/.bundle.partial",
    "dev/.deploy.json.partial",
    "dev/.model.tar.gz.partial",
    "dev/bundle-evaluation.html",
    "dev/bundle-evaluation.json",
    "dev/bundle-parity.html",
    "dev/durations.json",
    "dev/bundle-parity.json",
    "dev/local/.key.partial",
    "dev/local/.proof-key.partial",
    "dev/local/endpoint.starting.log",
    "dev/local/endpoint.log.1",
    "dev/local/proof-key",
)
READING = (
    ("status",),
    ("logs",),
    ("logs", "--api"),
    ("versions",),
    ("doctor",),
    ("plan",),
    ("openapi",),
    ("inspect", "--card"),
    ("diff",),
    ("evaluate", "labelled.csv", "--on", "bundle"),
    ("invoke", "a text"),
    ("invoke", "a text", "--api"),
    ("key",),
    ("key", "rotate"),
)
WRITING = (
    ("up", "second"),
    ("invoke", "a text", "--api"),
    ("rollback",),
    ("teardown",),
)
FILES_OF_MINE = ("second", "labelled.csv")
# Success; refused, with the path; or nothing is running, deployed or ready.
FINE = {0, 2, 4, 7, 9, 10, 15}


@dataclass(frozen=True)
class Precious:
    """A file and a folder outside the project, with their contents."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Precious:
        (folder / "deep" / "deeper").mkdir(parents=True)
        for name in ("file", "deep/a", "deep/deeper/b", "deep/manifest.json"):
            (folder / name).write_text(f"precious {name}\n" * 9)
        return cls(folder)

    @property
    def file(self) -> Path:
        return self.folder / "file"

    def state(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(self.folder)): (
                path.stat().st_mode,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in sorted(self.folder.rglob("*"))
        }


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Precious]:
    made = Precious.made(tmp_path / "precious")
    before = made.state()
    yield made
    assert made.state() == before


def place_of(stage: Stage, pattern: str) -> Path:
    """The path that a pattern matches in the workspace; with a star, the first match."""
    if pattern == ".fdeploy":
        return stage.home
    return next(iter(sorted(stage.home.glob(pattern))), stage.home / pattern)


def clear(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def try_everything(stage: Stage, precious: Precious, place: Path) -> None:
    """No command changes foreign files, and each succeeds or names the path."""
    before = precious.state()
    (stage.folder / "labelled.csv").write_text("text,label\na text,positive\n")
    for command in (*READING, *WRITING):
        given = [str(stage.folder / each) if each in FILES_OF_MINE else each for each in command]
        ran = stage(*given)
        assert precious.state() == before, f"{ran.command} touched what is foreign"
        assert ran.status in FINE, ran.err
        if ran.status == 4:
            assert str(place) in ran.error["message"], ran.err
            assert ran.error["hint"]


def test_no_file_is_forgotten(stage: Stage) -> None:
    found = {path for path in stage.home.rglob("*") if not path.is_dir() or path.is_symlink()}
    unpacked = (stage.local / "models", stage.local / "lambda")
    mine = {path for path in found if not any(path.is_relative_to(each) for each in unpacked)}
    listed = {path for pattern in FILES for path in stage.home.glob(pattern)}
    passing = {path for pattern in PASSING for path in stage.home.glob(pattern)}
    assert mine - passing == listed
    folders = {path for path in stage.home.rglob("*") if path.is_dir()}
    below = {
        path for path in folders if any(path.parent.parent.is_relative_to(u) for u in unpacked)
    }
    assert folders - below == {path for pattern in FOLDERS for path in stage.home.glob(pattern)}


@pytest.mark.parametrize("pattern", [*FILES, *PASSING])
def test_a_link_to_a_file(stage: Stage, precious: Precious, pattern: str) -> None:
    place = place_of(stage, pattern)
    clear(place)
    place.symlink_to(precious.file)
    try_everything(stage, precious, place)


@pytest.mark.parametrize("pattern", [*FOLDERS, "dev/.bundle.old", "dev/.bundle.partial"])
def test_a_link_to_a_folder(stage: Stage, precious: Precious, pattern: str) -> None:
    place = place_of(stage, pattern)
    clear(place)
    place.symlink_to(precious.folder / "deep")
    try_everything(stage, precious, place)


@pytest.mark.parametrize("pattern", ["dev", "dev/local"])
def test_a_link_to_another_workspace_leaves_it_alone(
    stage: Stage, precious: Precious, pattern: str
) -> None:
    """The target of a link may look like the stage's own folder."""
    place = place_of(stage, pattern)
    moved = precious.folder.parent / "elsewhere"
    shutil.move(place, moved)
    before = sorted(moved.rglob("*"))
    place.symlink_to(moved)
    try_everything(stage, precious, place)
    assert sorted(moved.rglob("*")) == before


@pytest.mark.parametrize(
    "pattern",
    [
        *("dev/lock", "dev/deploy.json", "dev/model.tar.gz", "dev/local/key"),
        *("dev/local/endpoint.log", "dev/local/gateway.log", "dev/local/endpoint.starting.log"),
    ],
)
def test_a_hard_link(stage: Stage, precious: Precious, pattern: str) -> None:
    place = place_of(stage, pattern)
    clear(place)
    place.hardlink_to(precious.file)
    try_everything(stage, precious, place)


@pytest.mark.parametrize(
    "pattern",
    [each for each in FILES if each not in (".gitignore", "dev/collection.json")],
)
def test_a_pipe_is_not_waited_for(stage: Stage, pattern: str) -> None:
    place = place_of(stage, pattern)
    clear(place)
    os.mkfifo(place)
    for command in (*READING, ("package",), ("upload",), ("deploy",), ("create-api",)):
        ran = stage(*command)
        assert ran.status in FINE, ran.err


def test_a_socket_in_the_place_of_a_file(stage: Stage, tmp_path: Path) -> None:
    place = stage.dev / "deploy.json"
    place.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(stage.dev)  # the path of a socket must be short
        try:
            bound.bind("deploy.json")
        finally:
            os.chdir(tmp_path)
        error = stage("status").error
    assert "is not a regular file" in error["message"]
    assert f"rm -r {place}" in error["hint"]


def test_links_are_removed_and_not_followed(stage: Stage, precious: Precious) -> None:
    (stage.local / "models" / "deep").symlink_to(precious.folder)
    (stage.local / "store" / "file").symlink_to(precious.file)
    (stage.local / "store" / "dangling").symlink_to("nowhere")
    (stage.local / "hard").hardlink_to(precious.file)
    stage.ok("teardown")
    assert not stage.local.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser mounts")
def test_mounted_files_are_not_removed(stage: Stage, precious: Precious) -> None:
    place = stage.local / "store" / "with blank"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "--bind", str(precious.folder), str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not let one mount")
    try:
        ran = stage("teardown")
        assert (ran.status, ran.error["code"]) == (4, "file")
        assert "is a mount point" in ran.error["message"]
        assert "umount" in ran.error["hint"]
        assert place.is_dir()
    finally:
        subprocess.run(["umount", str(place)], check=True)
    stage.ok("teardown")


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives files away")
def test_the_folder_of_another_user_is_not_used(stage: Stage) -> None:
    os.chown(stage.home, 12_345, -1)
    for command in ("status", "teardown", "deploy"):
        error = stage(command).error
        assert error["code"] == "file-denied"
        assert "belongs to another user" in error["message"]
    os.chown(stage.home, 0, -1)


_TURNS, _MOST_TURNS = 300, 30_000  # more than 300 only if none of them was left in peace


def test_a_link_that_comes_and_goes(tmp_path: Path) -> None:
    """If a folder becomes a link at any moment, nothing is written or removed behind the link."""
    precious = Precious.made(tmp_path / "precious")
    before = precious.state()
    home = tmp_path / ".fdeploy" / "dev" / "local"
    home.mkdir(parents=True)
    place, aside = home / "models", home / "aside"
    place.mkdir()
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            shutil.rmtree(aside, ignore_errors=True)
            with contextlib.suppress(OSError):  # the writer creates a missing folder
                place.rename(aside)
                place.symlink_to(precious.folder / "deep")
            if place.is_symlink():
                place.unlink()
            with contextlib.suppress(OSError):
                aside.rename(place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    finished = 0
    try:
        for turn in range(_MOST_TURNS):
            if finished and turn >= _TURNS:
                break
            with contextlib.suppress(FileError):
                files.write(place / "a", b"ours")
                files.write(place / f"{turn}" / "b", b"ours")
                files.remove(place / "deeper")
                files.remove_tree(place / "deeper")
                with files.fresh(place / "a") as log:
                    log.write(b"ours")
                finished += 1
    finally:
        done.set()
        swapper.join()
    assert precious.state() == before
    assert finished


def test_an_output_path_that_is_not_a_plain_file(stage: Stage, precious: Precious) -> None:
    """The path for the answers is refused before the check that a server is running."""
    (stage.folder / "texts.jsonl").write_text('"a"\n')
    pipe, link = stage.folder / "pipe", stage.folder / "link.jsonl"
    clear(pipe)
    clear(link)
    os.mkfifo(pipe)
    link.symlink_to(precious.file)
    for output in (
        link,
        pipe,
        Path(os.devnull),
        Path("/dev/stdout"),
        precious.folder,
        precious.file,
    ):
        ran = stage("invoke", str(stage.folder / "texts.jsonl"), "--output", str(output))
        assert (ran.status, ran.error["exit_code"]) == (4, 4), ran.err
        assert str(output) in ran.error["message"]
    assert Path(os.devnull).is_char_device()

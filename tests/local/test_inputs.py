"""Input files must be regular files of bounded size; anything else is rejected at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.conftest import Fdeploy

FLAGS = ("--golden", "--tokenizer", "--definitions", "--requirements")
KINDS = ("pipe", "/dev/zero", "socket", "huge")


def odd(folder: Path, kind: str, suffix: str = ".jsonl") -> Path:
    """Create something other than a regular file of normal size, and return its path."""
    path = folder / f"odd{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            before = Path.cwd()
            os.chdir(folder)
            try:
                bound.bind(path.name)
            finally:
                os.chdir(before)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", FLAGS)
def test_what_is_no_file_is_refused(fdeploy: Fdeploy, flag: str, kind: str) -> None:
    (fdeploy.folder / "learner.pkl").write_bytes(b"\x80\x02}q\x00.")
    path = odd(fdeploy.folder, kind)
    outcome = fdeploy("export", "learner.pkl", flag, str(path), "--json", timeout=60)
    assert outcome.status == 4, outcome.stderr
    assert str(path) in outcome.error["message"]
    assert ("is larger" if kind == "huge" else "not a regular file") in outcome.error["message"]


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "socket"])
def test_a_learner_that_is_no_file(fdeploy: Fdeploy, kind: str) -> None:
    path = odd(fdeploy.folder, kind, ".pkl")
    for command in ("export", "inspect"):
        outcome = fdeploy(command, str(path), "--json", timeout=60)
        assert outcome.status == 4, outcome.stderr
        assert "is not a regular file" in outcome.error["message"]


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
def test_a_project_file_that_is_no_file(fdeploy: Fdeploy, kind: str) -> None:
    odd(fdeploy.folder, kind, ".toml").rename(fdeploy.folder / "fdeploy.toml")
    outcome = fdeploy("config", "--json", timeout=60)
    assert outcome.status == 4, outcome.stderr
    assert "fdeploy.toml" in outcome.error["message"]
    (fdeploy.folder / "fdeploy.toml").rename(fdeploy.folder / "odd")

"""Which project a command works on: that of the working folder, or of a folder above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastai_deploy.records import Artifact
from fastai_deploy.workspace import Workspace, find_project
from tests.conftest import Fdeploy

SOMEBODY = 54_321  # no user of this machine


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """``a/b/c`` below the test's folder, in which a search ends."""
    folder = tmp_path / "a/b/c"
    folder.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    return folder


def record(folder: Path) -> None:
    Workspace(folder, "dev").save(Artifact("/p/model.tar.gz", "ab", 5, "m"))


def write_settings(folder: Path) -> Path:
    path = folder / "fdeploy.toml"
    path.write_text("[project]\nname = 'demo'\n")
    return path


def test_the_nearest_project_above_is_found(tmp_path: Path, inner: Path) -> None:
    assert find_project(inner).folder == inner
    assert not find_project(inner).exists
    write_settings(tmp_path / "a")
    record(tmp_path / "a/b")
    assert find_project(inner).folder == tmp_path / "a/b"
    assert find_project(inner, starts=True).folder == tmp_path / "a"
    assert find_project(tmp_path / "a/b", starts=True).folder == tmp_path / "a/b"
    write_settings(inner)
    assert find_project(inner).folder == inner


def test_a_link_to_a_missing_file_marks_a_project(tmp_path: Path, inner: Path) -> None:
    """Its settings cannot be read, but those of the project above are not its own."""
    write_settings(tmp_path / "a")
    (inner / "fdeploy.toml").symlink_to("missing")
    assert find_project(inner).folder == inner


def test_what_a_lock_left_is_no_project(tmp_path: Path, inner: Path) -> None:
    with Workspace(tmp_path / "a", "dev").locked("teardown"):
        assert not find_project(inner).exists
        assert not find_project(tmp_path / "a").exists


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_search_ends_with_the_repository(tmp_path: Path, inner: Path, kind: str) -> None:
    write_settings(tmp_path / "a")
    root = inner.parent / ".git"
    root.mkdir() if kind == "folder" else root.write_text("gitdir: elsewhere\n")
    assert not find_project(inner).exists
    write_settings(inner.parent)  # the root itself counts
    assert find_project(inner).folder == inner.parent


def test_the_search_ends_with_the_home_folder(tmp_path: Path, inner: Path) -> None:
    command = Fdeploy(inner, {"HOME": str(tmp_path / "a")})
    write_settings(tmp_path)
    record(tmp_path / "a")
    assert command.ok("config", "--json").json["root"] == str(inner)
    write_settings(tmp_path / "a")
    assert command.ok("config", "--json").json["root"] == str(tmp_path / "a")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("owned", ["file", "folder", "both"])
def test_another_users_project_is_not_used(tmp_path: Path, inner: Path, owned: str) -> None:
    file = write_settings(tmp_path / "a")
    for path, kind in ((file, "file"), (file.parent, "folder")):
        if owned in (kind, "both"):
            os.chown(path, SOMEBODY, SOMEBODY)
    found = find_project(inner)
    assert (found.folder, found.exists, found.foreign) == (inner, False, file)
    said = Fdeploy(inner)("status")
    assert f"{file} is not used, because it or its folder is another user's" in said.stderr
    assert said.status == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_search_does_not_pass_another_users_folder(tmp_path: Path, inner: Path) -> None:
    write_settings(tmp_path / "a")
    os.chown(inner.parent, SOMEBODY, SOMEBODY)
    assert find_project(inner).folder == inner


def test_linked_records_are_no_project(tmp_path: Path, inner: Path) -> None:
    record(tmp_path / "elsewhere")
    (tmp_path / "a/.fdeploy").symlink_to(tmp_path / "elsewhere/.fdeploy")
    assert not find_project(inner).exists


def test_a_subfolder_works_on_the_project_and_says_so(tmp_path: Path, inner: Path) -> None:
    """Paths of the file are relative to the file, paths of the command line to the subfolder."""
    (tmp_path / "fdeploy.toml").write_text("[model]\nlearner = 'learner.pkl'\n")
    command = Fdeploy(inner)
    of_file = command("inspect", "--json")
    assert str(tmp_path / "learner.pkl") in of_file.error["message"]
    assert f'"project in {tmp_path}"' in of_file.stderr
    of_flag = command("inspect", "learner.pkl", "--json").error
    assert str(inner / "learner.pkl") in of_flag["message"]
    outcome = command("export", "../other.pkl")
    assert f"project in {tmp_path}" in outcome.stderr
    assert f"{inner}/../other.pkl does not exist" in outcome.stderr
    assert not (inner / ".fdeploy").exists()
    assert (tmp_path / ".fdeploy/dev/lock").exists()


@pytest.mark.parametrize("command", ["status", "teardown"])
def test_without_a_project_it_says_where_it_searched(inner: Path, command: str) -> None:
    outcome = Fdeploy(inner)(command, "--json")
    assert outcome.status == 3
    assert outcome.error["code"] == "no-project"
    message = outcome.error["message"]
    assert f"no project here: neither {inner} nor a folder above it" in message
    assert "nothing was found on this machine for project c, stage dev" in message
    named = Fdeploy(inner, {"FDEPLOY_PROJECT_NAME": "demo"})
    assert named.ok(command).stdout

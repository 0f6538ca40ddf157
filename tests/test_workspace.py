from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastai_deploy.errors import FileError, RecordMissing, WorkspaceBusy
from fastai_deploy.records import Api, Artifact, Bundle, Endpoint, Source, StoredArtifact
from fastai_deploy.workspace import Record, Workspace

BUNDLE = Bundle(
    path="/p/bundle",
    version="v",
    name="n",
    task="single-label",
    labels=("a", "ü"),
    proven=3,
    max_difference=1e-7,
    source=Source("/p/l.pkl", "ab", 3, 4),
    golden=None,
    made_from="m",
)
RECORDS: list[Record] = [
    BUNDLE,
    Artifact("/p/model.tar.gz", "ab", 5, "m", backend_url="http://127.0.0.1:8001"),
    StoredArtifact("local", "file:///p", "ab", 5, "ab"),
    Endpoint("local", "n-dev", "http://127.0.0.1:1", "ab", "ab"),
    Api("local", "http://127.0.0.1:2/classify", "n-dev", "/p/key", "n-dev"),
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_comes_back_equal(tmp_path: Path, record: Record) -> None:
    workspace = Workspace(tmp_path, "dev")
    workspace.save(record)
    assert workspace.find(type(record)) == record


def test_a_missing_record_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        RecordMissing, match="export has not been run in this folder for stage dev"
    ) as caught:
        Workspace(tmp_path, "dev").need(Bundle)
    assert caught.value.hint == "run fdeploy export learner.pkl"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"path": 1}', b"\xff"])
def test_a_damaged_record_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    workspace = Workspace(tmp_path, "dev")
    workspace.save(BUNDLE)
    (workspace.folder / "export.json").write_bytes(damage)
    assert workspace.find(Bundle) is None


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "dev")
    with pytest.raises(FileError, match="it is not valid UTF-8") as caught:
        workspace.save(Artifact("/p/\udcff/model.tar.gz", "ab", 5, "m"))
    assert "rename" in caught.value.hint
    assert workspace.find(Artifact) is None


@pytest.mark.parametrize(
    "change",
    [
        *({"path": 1}, {"path": "a\0b"}, {"path": "x" * 5_000}, {"sha256": "../../etc"}),
        *({"bytes": "5"}, {"bytes": True}, {"bytes": 10**29}, {"fits": None}, {"more": 1}),
        {"backend_url": "http://elsewhere.example:8001"},
    ],
)
def test_a_value_of_another_type_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    workspace = Workspace(tmp_path, "dev")
    workspace.save(Artifact("/p/model.tar.gz", "ab", 5, "m"))
    path = workspace.folder / "package.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(FileError, match=next(iter(change))) as caught:
        workspace.need(Artifact)
    assert str(path) in caught.value.message
    assert "fdeploy package" in caught.value.hint
    assert workspace.find(Artifact) is None


def test_records_are_forgotten_one_by_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "dev")
    for record in RECORDS:
        workspace.save(record)
    workspace.forget(Api, Endpoint)
    workspace.forget(Api)
    assert workspace.find(Api) is None
    assert workspace.find(StoredArtifact) is not None


def test_git_never_sees_the_workspace(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    Workspace(tmp_path, "dev").save(BUNDLE)
    done = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain"], capture_output=True, check=True
    )
    assert done.stdout == b""


def test_one_command_at_a_time(tmp_path: Path) -> None:
    first, second = Workspace(tmp_path, "dev"), Workspace(tmp_path, "dev")
    with first.locked("deploy"):
        with pytest.raises(WorkspaceBusy, match=rf"fdeploy deploy \(process {os.getpid()}\)"):
            with second.locked("teardown"):
                pass
        with Workspace(tmp_path, "prod").locked("deploy"):
            pass
    with second.locked("teardown"):
        pass


def test_the_lock_of_a_killed_command_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fastai_deploy.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1]), 'dev').locked('deploy'): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with Workspace(tmp_path, "dev").locked("deploy"):
        pass

"""The first process of a container of the own image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runtime.bundles import write_bundle
from tests.runtime.server_process import ServerProcess

HOST = "fastai_deploy.runtime.hosts.container"
LOOPBACK = {"FDEPLOY_HOST": "127.0.0.1", "PORT": "0"}
LEAVE = """
import os, sys
from pathlib import Path
from fastai_deploy.runtime.hosts.container import leave_root
from fastai_deploy.runtime.log import Log
leave_root(Path(sys.argv[1]), Log(sys.stderr))
print(*os.getresuid(), *os.getresgid(), *os.getgroups())
"""


@contextmanager
def container(environ: Mapping[str, str], *arguments: str) -> Iterator[ServerProcess]:
    """The process; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", HOST, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **LOOPBACK, **environ},
    )
    server = ServerProcess(process, Path())
    try:
        yield server
    finally:
        process.kill()
        server.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_it_serves_the_model(tmp_path: Path, arguments: list[str]) -> None:
    tiny = write_bundle(tmp_path / "bundle")
    with container({"FDEPLOY_MODEL_DIR": str(tiny.folder)}, *arguments) as server:
        server.port = server.wait_for("ready")["port"]
        assert server.request("GET", "/ping").status == 200
        answer = server.post({"text": "a bad film"}).json
        assert answer["probabilities"] == pytest.approx(tiny.expected("a bad film"), abs=1e-5)
        server.terminate()
        assert server.wait() == 0


def test_sagemaker_names_the_port(tmp_path: Path, free_port: int) -> None:
    tiny = write_bundle(tmp_path / "bundle")
    named = {"SAGEMAKER_BIND_TO_PORT": str(free_port), "FDEPLOY_MODEL_DIR": str(tiny.folder)}
    with container(named, "serve") as server:
        assert server.wait_for("ready")["port"] == free_port


def test_no_model(tmp_path: Path) -> None:
    with container({"FDEPLOY_MODEL_DIR": str(tmp_path)}) as server:
        reason = server.wait_for("refused")["reason"]
        assert server.wait() == 3
    assert reason == f"there is no model: mount an unpacked model.tar.gz at {tmp_path}"


def test_another_command() -> None:
    with container({}, "train") as server:
        assert "one command, serve" in server.wait_for("refused")["reason"]
        assert server.wait() == 2


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may read, as SageMaker mounts a model."""
    folder = Path(tempfile.mkdtemp(prefix="fdeploy-test-"))
    folder.chmod(0o755)
    (folder / "variables").mkdir(mode=0o755)
    (folder / "manifest.json").write_text("{}")
    (folder / "manifest.json").chmod(0o644)
    yield folder
    shutil.rmtree(folder)


def left(folder: Path) -> tuple[list[int], list[str]]:
    """The users and groups that the process has afterwards, and its log."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, str(folder)], check=True, capture_output=True, text=True
    )
    return [int(each) for each in done.stdout.split()], done.stderr.splitlines()


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@root_only
def test_root_becomes_another_user_for_good(public: Path) -> None:
    assert left(public) == ([1000] * 6, [])


@root_only
@pytest.mark.parametrize("path", ["manifest.json", "variables"])
def test_root_stays_if_only_root_can_read_the_model(public: Path, path: str) -> None:
    (public / path).chmod(0o700)
    users, log = left(public)
    assert users[:3] == [0, 0, 0]
    assert json.loads(log[0])["event"] == "stays_root"
    assert path in log[0]

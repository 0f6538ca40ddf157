"""The pages that say ``<!-- run: NAME -->``: their blocks, in order, in a copy of examples/NAME."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.shell_blocks import ROOT, Page, pages

RUN = [page for page in pages() if page.runs_in]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which ``fdeploy`` is the one under test."""
    program = tmp_path / "bin" / "fdeploy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fastai_deploy "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.path.stem)
def test_its_blocks_run(page: Page, tmp_path: Path, path: str) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / str(page.runs_in), folder)
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    environ.pop("CI", None)
    shell = shutil.which("sh")
    assert shell
    try:
        for block in page.blocks:
            if block.reason is None:
                done = subprocess.run(
                    [shell, "-eu"],
                    cwd=folder,
                    env=environ,
                    input="\n".join(block.lines),
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=300,
                )
                assert done.returncode == 0, f"line {block.line}: {done.stderr}"
    finally:
        ended = subprocess.run(
            ["fdeploy", "teardown", "--target", "local"],
            cwd=folder,
            env=environ,
            executable=path.split(os.pathsep, maxsplit=1)[0] + "/fdeploy",
            capture_output=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr

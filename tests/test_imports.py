"""What import-linter (``make lint``) cannot check: what a command loads, and what is shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fastai_deploy

RUNTIME = Path(fastai_deploy.__file__).parent / "runtime"
HEAVY = {"torch", "transformers", "onnxruntime", "onnx", "sagemaker", "boto3", "numpy", "spacy"}


@pytest.mark.parametrize("arguments", [["--help"], ["teardown", "--target", "local"]])
def test_nothing_heavy_is_imported_at_start_up(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "fdeploy.toml").touch()
    code = (
        "import json, sys; from fastai_deploy.cli.app import run\n"
        f"status = run({arguments!r}); print(json.dumps([status, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert not HEAVY.intersection(loaded)
    if arguments == ["--help"]:  # nor what settings, progress and typer's own parameters need
        assert not {"pydantic", "rich", "tomli"}.intersection(loaded)


def test_what_ships_does_not_name_the_package() -> None:
    """In a container it has another name."""
    sources = list(RUNTIME.rglob("*.py"))
    assert len(sources) > 20
    assert [path for path in sources if "fastai_deploy" in path.read_text(encoding="utf-8")] == []

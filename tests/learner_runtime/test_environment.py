"""A real virtual environment with a real wheel, which pip takes from a folder."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from fastai_deploy.environments.environment import Environments
from fastai_deploy.environments.pythons import find_python, running
from fastai_deploy.environments.requirements import parse_requirements
from fastai_deploy.errors import RuntimeUnproven
from fastai_deploy.progress import Event, Reporter, Step, Warned, silent

PINNED = parse_requirements("fdeploy-tiny==1.0\ntorchvision==0.0.1\n", "requirements.txt")
SOURCES = {
    "fdeploy_tiny": ("fdeploy_tiny", "1.0", "ANSWER = 42\n"),
    # One that was built for another torch fails on import, as this does.
    "torchvision": ("torchvision", "0.0.1", "raise RuntimeError('operator does not exist')\n"),
}


def write_wheel(folder: Path, name: str, version: str, source: str) -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)


def environ(wheels: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    pip = {"NO_INDEX": "1", "FIND_LINKS": str(wheels), "CONFIG_FILE": "/dev/null"}
    return {**kept, **{f"PIP_{name}": value for name, value in pip.items()}}


def environments(folder: Path, report: Reporter) -> Environments:
    return Environments(folder / "environments", report, environ=environ(folder), serving=())


def test_an_environment_is_made_once_and_mended(tmp_path: Path) -> None:
    for name, version, source in SOURCES.values():
        write_wheel(tmp_path, name, version, source)
    told: list[Event] = []
    made = environments(tmp_path, told.append)
    python = made.interpreter(running(), PINNED)
    find = "importlib.util.find_spec('torchvision')"
    code = f"import fdeploy_tiny, importlib.util; print(fdeploy_tiny.ANSWER, {find})"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "42 None\n"
    assert sum(isinstance(event, Step) for event in told) == 1
    assert any(isinstance(e, Warned) and "torchvision does not fit" in e.message for e in told)
    told.clear()
    assert made.interpreter(running(), PINNED) == python
    assert not told


def test_what_pip_says_is_shown_and_nothing_half_made_is_used(tmp_path: Path) -> None:
    made = environments(tmp_path, silent)
    for _ in range(2):  # the second time must not take the half-made one
        with pytest.raises(RuntimeUnproven) as caught:
            made.interpreter(running(), PINNED)
        assert "pip cannot install the requirements" in caught.value.message
        assert "fdeploy-tiny==1.0" in caught.value.message
        assert "--requirements" in caught.value.hint


def test_pythons_are_asked_for_their_version(tmp_path: Path) -> None:
    assert find_python(running()) is not None
    shim = tmp_path / "bin" / "python3.77"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 3.6\n")
    shim.chmod(0o755)
    assert find_python("3.77", {"PATH": str(shim.parent), "HOME": str(tmp_path)}) is None
    shim.write_text("#!/bin/sh\necho 3.77\n")
    assert find_python("3.77", {"PATH": str(shim.parent), "HOME": str(tmp_path)}) == shim
    other = tmp_path / ".pyenv/versions/3.78.1/bin/python3"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\necho 3.78\n")
    other.chmod(0o755)
    assert find_python("3.78", {"PATH": "", "HOME": str(tmp_path)}) == other

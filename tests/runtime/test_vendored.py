"""The artifact's wheels on Python's path, in separate processes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import fastai_deploy
from fastai_deploy.runtime.vendored import INDEX

ROOT = Path(fastai_deploy.__file__).parents[1]
HERE = {"python": "{}.{}".format(*sys.version_info[:2]), "machine": platform.machine()}
CODE = (
    "import sys; from pathlib import Path\n"
    "from fastai_deploy.runtime.vendored import add_to_path\n"
    "add_to_path(Path(sys.argv[1])); add_to_path(Path(sys.argv[1]))\n"
    "import thing; print(thing.WHERE)\n"
)


def write_code(folder: Path, *, spare: bool = False, **changes: Any) -> Path:
    """A ``code`` folder with one wheel in it."""
    wheels = folder / "code" / "wheels"
    wheels.mkdir(parents=True)
    wheel = wheels / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing.py", "WHERE = 'wheel'\n")
    entry = {
        "package": "thing",
        "file": wheel.name,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "spare": spare,
    }
    (wheels / INDEX).write_text(json.dumps({**HERE, "wheels": [entry], **changes}))
    return folder / "code"


def run(code: Path, scratch: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    scratch.mkdir(exist_ok=True)
    places = os.pathsep.join(map(str, filter(None, (ROOT, path))))
    environ = {**os.environ, "PYTHONPATH": places, "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", CODE, str(code)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)


def test_a_wheel_is_imported_and_unpacked_once(tmp_path: Path) -> None:
    code, scratch = write_code(tmp_path), tmp_path / "scratch"
    assert run(code, scratch).stdout == "wheel\n"
    (made,) = scratch.iterdir()
    before = (made / "thing" / "thing.py").stat().st_mtime_ns
    assert run(code, scratch).stdout == "wheel\n"
    assert [each.name for each in scratch.iterdir()] == [made.name]
    assert (made / "thing" / "thing.py").stat().st_mtime_ns == before


@pytest.mark.parametrize("winner", ["image", "wheel"])
def test_the_images_own_package_goes_before_a_spare_one(tmp_path: Path, winner: str) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / "thing.py").write_text("WHERE = 'image'\n")
    code = write_code(tmp_path, spare=winner == "image")
    assert run(code, tmp_path / "scratch", image).stdout == f"{winner}\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"python": "2.7"}, "was packed for Python 2.7 on"),
        ({"machine": "m68k"}, "on m68k, and this container has Python"),
        ({"wheels": [{"file": "thing"}]}, "wheels.json is damaged"),
    ],
)
def test_another_platform_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    done = run(write_code(tmp_path, **changes), tmp_path / "scratch")
    assert done.returncode == 1
    assert message in done.stderr


def test_a_tampered_wheel_is_refused_and_removed(tmp_path: Path) -> None:
    code, scratch = write_code(tmp_path), tmp_path / "scratch"
    with (code / "wheels" / "thing-1-py3-none-any.whl").open("ab") as file:
        file.write(b"x")
    done = run(code, scratch)
    assert "is not the wheel that was packed" in done.stderr
    assert not list(scratch.iterdir())


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path: Path) -> None:
    code, scratch = write_code(tmp_path), tmp_path / "scratch"
    run(code, scratch)
    (made,) = scratch.iterdir()
    (made / "thing" / "thing.py").write_text("WHERE = 'planted'\n")
    made.chmod(0o777)
    assert run(code, scratch).stdout == "wheel\n"


def test_without_wheels_nothing_is_done(tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("WHERE = 'there'\n")
    assert run(tmp_path, tmp_path / "scratch", tmp_path).stdout == "there\n"

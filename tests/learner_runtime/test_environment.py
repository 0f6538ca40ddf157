"""A real virtual environment with a real wheel, which pip installs from a folder."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fastai_deploy import files
from fastai_deploy.bundle.manifest import LOCK
from fastai_deploy.environments.requirements import (
    LearnerLock,
    lock_for_container,
    parse_requirements,
)
from fastai_deploy.environments.venv import Environments
from fastai_deploy.errors import FileError, HashMismatch, RuntimeUnproven, TargetUnavailable
from fastai_deploy.interpreters import find_python, running
from fastai_deploy.packaging.lock_files import parse
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.progress import Event, Reporter, Step, Warned, silent

PINNED = parse_requirements("fdeploy-tiny==1.0\ntorchvision==0.0.1\n", "requirements.txt")
TINY = parse_requirements("fdeploy-tiny==1.0\n", "requirements.txt")
CONTAINER = Container("ray image", running(), "manylinux_2_34_x86_64")
SOURCES = {
    "fdeploy_tiny": ("fdeploy_tiny", "1.0", "ANSWER = 42\n"),
    # A package built for another torch fails on import, like this one.
    "torchvision": ("torchvision", "0.0.1", "raise RuntimeError('operator does not exist')\n"),
}


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    source: str,
    *,
    needs: str | None = None,
    tag: str = "py3-none-any",
) -> Path:
    info = f"{name}-{version}.dist-info"
    required = f"Requires-Dist: {needs}\n" if needs else ""
    members = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{required}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*members, f"{info}/RECORD"))
    place = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(place, "w") as wheel:
        for path, content in members.items():
            wheel.writestr(path, content)
    return place


def wheel_of(folder: Path, name: str, version: str) -> Path:
    return folder / f"{name}-{version}-py3-none-any.whl"


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
    assert any(isinstance(e, Warned) and "torchvision does not match" in e.message for e in told)
    told.clear()
    assert made.interpreter(running(), PINNED) == python
    assert not told


@dataclass(frozen=True)
class Made:
    """An environment with the tiny wheel and its dependency; ``lock`` is its lock file."""

    shop: Path
    python: Path
    lock: LearnerLock

    def kept(self, folder: Path) -> Path:
        """Write the lock file as in a bundle."""
        path = folder / LOCK
        path.write_text(self.lock.text)
        return path

    def own_shop(self, folder: Path) -> Path:
        """A copy of the shop that a test may change."""
        return shutil.copytree(self.shop, folder / "shop")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    shop = folder / "shop"
    shop.mkdir()
    write_wheel(shop, "fdeploy_tiny", "1.0", "ANSWER = 42\n", needs="fdeploy-part")
    write_wheel(shop, "fdeploy_part", "2.0", "")
    write_wheel(shop, "fdeploy_server", "1.0", "", needs="fdeploy-part")
    serving = ("fdeploy-server",)
    found = Environments(folder / "made", silent, environ=environ(shop), serving=serving)
    python = found.interpreter(running(), TINY)
    lock = found.lock(running(), TINY)
    assert lock is not None
    return Made(shop, python, lock)


def versions(python: Path) -> set[str]:
    code = (
        "from importlib.metadata import distributions\n"
        "print(*(f'{each.name}=={each.version}' for each in distributions()))"
    )
    found = subprocess.check_output([str(python), "-c", code], text=True).split()
    return {each.replace("_", "-") for each in found if "fdeploy" in each}


def test_everything_that_is_installed_is_locked(made: Made) -> None:
    part, tiny = made.lock.pins
    assert part.hashes == {files.sha256(wheel_of(made.shop, "fdeploy_part", "2.0"))}
    assert tiny.hashes == {files.sha256(wheel_of(made.shop, "fdeploy_tiny", "1.0"))}
    assert made.lock.platform == f"{platform.system()} {platform.machine()}"
    assert parse(made.lock.text) == made.lock.pins
    # The server's packages are locked too, but the learner's containers do not install them.
    assert versions(made.python) == {
        "fdeploy-part==2.0", "fdeploy-tiny==1.0", "fdeploy-server==1.0"
    }  # fmt: skip


def test_a_changed_byte_is_refused_where_the_lock_went_along(made: Made, tmp_path: Path) -> None:
    shop = made.own_shop(tmp_path)
    write_wheel(shop, "fdeploy_part", "2.0", "STOLEN = True\n")
    elsewhere = Environments(tmp_path / "there", silent, environ=environ(shop), serving=())
    with pytest.raises(HashMismatch, match="is not the file in the learner's lock"):
        elsewhere.interpreter(running(), TINY, made.kept(tmp_path))
    assert not list((tmp_path / "there").glob("*/complete"))


def test_an_environment_of_another_lock_is_made_anew(made: Made, tmp_path: Path) -> None:
    shop = made.own_shop(tmp_path)
    newer = files.sha256(write_wheel(shop, "fdeploy_part", "3.0", ""))
    known = Environments(tmp_path / "made", silent, environ=environ(shop), serving=())
    old = made.kept(tmp_path)
    foreign = tmp_path / "foreign.lock"  # says nothing about this platform
    foreign.write_text(old.read_text().replace(platform.machine(), "m68k"))
    python = known.interpreter(running(), TINY, foreign)
    assert "fdeploy-part==3.0" in versions(python)
    assert known.interpreter(running(), TINY, old) == python
    assert "fdeploy-part==2.0" in versions(python)
    told: list[Event] = []
    Environments(tmp_path / "made", told.append, environ=environ(shop), serving=()).interpreter(
        running(), TINY, old
    )
    assert (told, newer in old.read_text()) == ([], False)


@pytest.mark.parametrize("text", ["", "fdeploy-tiny==1.0\n", "# Python 3.11 on Linux m68k\na>=1\n"])
def test_invalid_locks(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(FileError, match="is not a lock"):
        environments(tmp_path, silent).interpreter(running(), PINNED, tmp_path / LOCK)


def test_a_container_is_given_its_own_files_of_the_same_versions(
    made: Made, tmp_path: Path
) -> None:
    shop = made.own_shop(tmp_path)
    for name in ("fdeploy_tiny", "fdeploy_part"):
        write_wheel(shop, name, "9.0", "")  # newer ones change nothing
    theirs = write_wheel(shop, "fdeploy_part", "2.0", "", tag="py3-none-manylinux2014_x86_64")

    def run(command: Sequence[str]) -> tuple[int, str]:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environ(shop)
        )
        return done.returncode, done.stdout + done.stderr

    linux = replace(made.lock, platform="Linux x86_64")
    part, tiny = parse(lock_for_container(linux, CONTAINER, made.python, run=run))
    assert (part.version, tiny.version) == ("2.0", "1.0")
    assert part.hashes == {*made.lock.pins[0].hashes, files.sha256(theirs)}
    with pytest.raises(TargetUnavailable, match=r"locked for Darwin arm64, but the ray image is"):
        lock_for_container(replace(linux, platform="Darwin arm64"), CONTAINER, made.python, run=run)
    for wheel in shop.iterdir():
        wheel.unlink()
    with pytest.raises(RuntimeUnproven, match="cannot install what the learner needs"):
        lock_for_container(linux, CONTAINER, made.python, run=run)


def test_pips_output_is_shown_and_no_partial_environment_is_used(tmp_path: Path) -> None:
    made = environments(tmp_path, silent)
    for _ in range(2):  # the second run must not use the incomplete one
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

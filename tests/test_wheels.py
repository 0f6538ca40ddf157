"""Wheels for a container: the pip calls, the cache, and the errors if there is no wheel."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.errors import DiskFull, HashMismatch, WheelMissing
from fastai_deploy.packaging.lock_files import Pin, parse, render, shipped_lock
from fastai_deploy.packaging.wheels import SERVING, Container, Wheel, fetch
from tests.learner_runtime.test_environment import environ, write_wheel

VERSIONS = {"numpy": "2.4.0", "onnxruntime": "1.32.0", "tokenizers": "0.23.3"}
RAY = Container("ray image", "3.13", "manylinux_2_34_x86_64", frozenset({"numpy"}))


@dataclass
class Index:
    """Stands for pip and what it reaches: ``newest`` versions, and what was asked for."""

    newest: dict[str, str] = field(default_factory=lambda: dict(VERSIONS))
    says: str = "ERROR: No matching distribution found"
    commands: list[list[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.commands.append(list(command))
        if "--report" in command:
            wanted = re.fullmatch(r"(\w+)(==|<=)([\d.]+)", command[-1])
            assert wanted is not None
            version = self.newest.get(wanted[1])
            if version is None or (wanted[2] == "==" and version != wanted[3]):
                return 1, self.says
            Path(command[command.index("--report") + 1]).write_text(
                json.dumps({"install": [reported(wanted[1], version)]})
            )
            return 0, ""
        (pin,) = parse(Path(command[command.index("--requirement") + 1]).read_text())
        if self.newest.get(pin.name) != pin.version:
            return 1, self.says
        content = f"{pin.name} {pin.version}".encode()
        if hashlib.sha256(content).hexdigest() not in pin.hashes:
            return 1, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
        name = f"{pin.name}-{pin.version}-cp313-cp313-manylinux_2_28_x86_64.whl"
        Path(command[command.index("--dest") + 1], name).write_bytes(content)
        return 0, ""


def reported(name: str, version: str) -> dict[str, Any]:
    """An entry of pip's installation report."""
    return {
        "metadata": {"name": name, "version": version},
        "download_info": {"archive_info": {"hashes": {"sha256": digest_of(name, version)}}},
    }


def digest_of(name: str, version: str) -> str:
    return hashlib.sha256(f"{name} {version}".encode()).hexdigest()


def pinned(name: str, version: str, digest: str | None = None) -> Pin:
    return Pin(name, version, frozenset({digest or digest_of(name, version)}))


LOCK = tuple(pinned(*each) for each in VERSIONS.items())


def fetched(
    index: Index, cache: Path, container: Container = RAY, lock: Sequence[Pin] = LOCK
) -> tuple[tuple[Wheel, ...], list[str]]:
    told: list[str] = []
    found = fetch(container, VERSIONS, cache=cache, notify=told.append, lock=lock, run=index)
    return found, told


def test_only_what_the_image_lacks_is_fetched_for_its_python_and_platform(tmp_path: Path) -> None:
    index = Index()
    wheels, told = fetched(index, tmp_path)
    assert [wheel.package for wheel in wheels] == ["onnxruntime", "tokenizers"]
    assert wheels[0].sha256 == hashlib.sha256(b"onnxruntime 1.32.0").hexdigest()
    assert told[0] == "fetching onnxruntime 1.32.0 for the ray image"
    (command, _) = index.commands
    assert command[-3:-1] == ["--require-hashes", "--requirement"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.13"
    platforms = [b for a, b in pairwise(command) if a == "--platform"]
    assert platforms[0] == "manylinux_2_34_x86_64"
    assert {"manylinux_2_28_x86_64", "manylinux2014_x86_64"} <= set(platforms)
    assert "manylinux_2_35_x86_64" not in platforms


def test_a_second_time_nothing_is_fetched(tmp_path: Path) -> None:
    first, _ = fetched(Index(), tmp_path)
    index = Index()
    second, told = fetched(index, tmp_path)
    assert second == first
    assert (index.commands, told) == ([], [])


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    (wheel, _), _ = fetched(Index(), tmp_path)
    wheel.path.write_bytes(b"damaged")
    index = Index()
    (again, _), _ = fetched(index, tmp_path)
    assert again == wheel
    assert len(index.commands) == 1


def test_an_older_version_is_used_and_reported_if_there_is_no_other(tmp_path: Path) -> None:
    index = Index({**VERSIONS, "tokenizers": "0.20.3"})
    wheels, told = fetched(index, tmp_path, lock=(*LOCK, pinned("tokenizers", "0.20.3")))
    assert wheels[1].version == "0.20.3"
    assert len(told) == 3
    assert told[-1].startswith("there is no tokenizers 0.23.3 for Python 3.13")


def test_a_wheel_that_does_not_exist_is_named_with_the_platform(tmp_path: Path) -> None:
    index = Index({"tokenizers": "0.23.3"})
    wanted = (
        r"onnxruntime 1\.32\.0 or earlier for Python 3\.13 on manylinux_2_34_x86_64 \(ray image\)"
    )
    with pytest.raises(WheelMissing, match=wanted) as caught:
        fetched(index, tmp_path)
    assert "[endpoint]" in caught.value.hint
    assert not list((tmp_path / "cp3.13-manylinux_2_34_x86_64" / "onnxruntime").iterdir())


def test_a_network_that_is_down_is_not_called_a_missing_wheel(tmp_path: Path) -> None:
    index = Index({}, says="WARNING: retrying\nERROR: could not connect to the index\n")
    with pytest.raises(WheelMissing, match=r"could not be fetched: ERROR: could not connect") as e:
        fetched(index, tmp_path)
    assert "network" in e.value.hint


def test_an_unknown_image_gets_a_numpy_that_its_own_goes_before(tmp_path: Path) -> None:
    container = Container("own image", "3.12", "manylinux_2_28_x86_64", known=False)
    wheels, _ = fetched(Index(), tmp_path, container)
    assert [(wheel.package, wheel.spare) for wheel in wheels] == [
        ("numpy", True),
        ("onnxruntime", False),
        ("tokenizers", False),
    ]


def test_graviton() -> None:
    container = Container("g", "3.12", "manylinux_2_35_aarch64")
    assert container.machine == "aarch64"
    assert container.tags[-1] == "manylinux2014_aarch64"


def test_a_wheel_that_is_not_the_one_of_the_lock_is_refused(tmp_path: Path) -> None:
    lock = (LOCK[1], pinned("tokenizers", VERSIONS["tokenizers"], "0" * 64))
    with pytest.raises(HashMismatch, match=r"tokenizers 0\.23\.3 .* is not the one in the lock"):
        fetched(Index(), tmp_path, lock=lock)
    assert not list((tmp_path / "cp3.13-manylinux_2_34_x86_64" / "tokenizers").iterdir())


def test_an_older_wheel_has_to_be_the_one_of_the_lock_too(tmp_path: Path) -> None:
    index = Index({**VERSIONS, "tokenizers": "0.20.3"})
    with pytest.raises(HashMismatch):
        fetched(index, tmp_path, lock=(LOCK[1], pinned("tokenizers", "0.20.3", "0" * 64)))


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    """As pip says it, at the end of a traceback."""
    says = "ERROR: Exception:\nTraceback\nOSError: [Errno 28] No space left on device"
    index = Index({}, says)
    with pytest.raises(DiskFull, match=r"onnxruntime 1\.32\.0 .*No space left on device") as error:
        fetched(index, tmp_path)
    assert str(tmp_path) in error.value.message
    assert len(index.commands) == 1
    assert not list((tmp_path / "cp3.13-manylinux_2_34_x86_64" / "onnxruntime").iterdir())


def test_what_the_lock_does_not_have_is_locked_by_what_the_index_says(tmp_path: Path) -> None:
    index = Index()
    wheels, told = fetched(index, tmp_path, lock=LOCK[:1])
    assert [wheel.version for wheel in wheels] == ["1.32.0", "0.23.3"]
    assert any("lock file does not contain onnxruntime 1.32.0" in each for each in told)
    assert ["--report" in command for command in index.commands] == [True, False] * 2


def test_a_cached_wheel_that_the_lock_does_not_name_is_fetched_again(tmp_path: Path) -> None:
    (wheel, _), _ = fetched(Index(), tmp_path)
    wheel.path.write_bytes(b"planted")
    sidecar = wheel.path.with_name(f"{wheel.path.name}.sha256")
    sidecar.write_text(hashlib.sha256(b"planted").hexdigest())
    (again, _), _ = fetched(Index(), tmp_path)
    assert again == wheel


def test_pip_itself_refuses_a_wheel_with_another_byte(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    write_wheel(shop, "tokenizers", "0.0.1", "ANSWER = 42\n")
    (wheel,) = shop.iterdir()
    lock = (pinned("tokenizers", "0.0.1", hashlib.sha256(wheel.read_bytes()).hexdigest()),)

    def real(command: Sequence[str]) -> tuple[int, str]:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environ(shop)
        )
        return done.returncode, done.stdout + done.stderr

    def packed(cache: str) -> str:
        (found,) = fetch(
            RAY, {"tokenizers": "0.0.1"}, cache=tmp_path / cache, notify=print, lock=lock, run=real
        )
        return found.sha256

    assert packed("first") in lock[0].hashes
    content = bytearray(wheel.read_bytes())
    content[40] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(HashMismatch):
        packed("second")


def test_the_lock_that_ships_has_the_versions_that_are_tested() -> None:
    constraints = Path(__file__).parents[1] / "constraints.txt"
    tested = re.findall(
        rf"^({'|'.join(SERVING)})==(\S+)", constraints.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name for name, _ in tested} == set(SERVING)
    assert set(tested) <= {(pin.name, pin.version) for pin in shipped_lock()}


def test_a_lock_reads_as_it_was_written() -> None:
    assert parse(render(LOCK)) == tuple(sorted(LOCK, key=lambda pin: pin.name))
    for broken in ("numpy==1.0\n", "numpy --hash=sha256:" + "0" * 64, "numpy>=1"):
        with pytest.raises(ValueError, match="no pinned requirement with a hash"):
            parse(broken)

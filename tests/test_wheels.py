"""Wheels for a container: what pip is asked, what is kept, and what is said when there is none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from fastai_deploy.errors import WheelMissing
from fastai_deploy.wheels import Container, Wheel, resolve

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
        wanted = re.fullmatch(r"(\w+)(==|<=)([\d.]+)", command[-1])
        assert wanted is not None
        version = self.newest.get(wanted[1])
        if version is None or (wanted[2] == "==" and version != wanted[3]):
            return 1, self.says
        folder = Path(command[command.index("--dest") + 1])
        name = f"{wanted[1]}-{version}-cp313-cp313-manylinux_2_28_x86_64.whl"
        (folder / name).write_bytes(f"{wanted[1]} {version}".encode())
        return 0, ""


def fetch(
    index: Index, cache: Path, container: Container = RAY
) -> tuple[tuple[Wheel, ...], list[str]]:
    told: list[str] = []
    return resolve(container, VERSIONS, cache=cache, told=told.append, run=index), told


def test_only_what_the_image_lacks_is_fetched_for_its_python_and_platform(tmp_path: Path) -> None:
    index = Index()
    wheels, told = fetch(index, tmp_path)
    assert [wheel.package for wheel in wheels] == ["onnxruntime", "tokenizers"]
    assert wheels[0].sha256 == hashlib.sha256(b"onnxruntime 1.32.0").hexdigest()
    assert told[0] == "fetching onnxruntime 1.32.0 for the ray image"
    (command, _) = index.commands
    assert command[-1] == "onnxruntime==1.32.0"
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert command[command.index("--python-version") + 1] == "3.13"
    platforms = [b for a, b in pairwise(command) if a == "--platform"]
    assert platforms[0] == "manylinux_2_34_x86_64"
    assert {"manylinux_2_28_x86_64", "manylinux2014_x86_64"} <= set(platforms)
    assert "manylinux_2_35_x86_64" not in platforms


def test_a_second_time_nothing_is_fetched(tmp_path: Path) -> None:
    first, _ = fetch(Index(), tmp_path)
    index = Index()
    second, told = fetch(index, tmp_path)
    assert second == first
    assert (index.commands, told) == ([], [])


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    (wheel, _), _ = fetch(Index(), tmp_path)
    wheel.path.write_bytes(b"damaged")
    index = Index()
    (again, _), _ = fetch(index, tmp_path)
    assert again == wheel
    assert len(index.commands) == 1


def test_an_older_version_is_taken_where_there_is_no_other_and_told(tmp_path: Path) -> None:
    index = Index({**VERSIONS, "tokenizers": "0.20.3"})
    wheels, told = fetch(index, tmp_path)
    assert wheels[1].version == "0.20.3"
    assert told[-1].startswith("Python 3.13 has no tokenizers 0.23.3: the artifact carries 0.20.3")


def test_a_wheel_that_does_not_exist_is_named_with_the_platform(tmp_path: Path) -> None:
    index = Index({"tokenizers": "0.23.3"})
    wanted = (
        r"onnxruntime 1\.32\.0 or before for Python 3\.13 on manylinux_2_34_x86_64 \(ray image\)"
    )
    with pytest.raises(WheelMissing, match=wanted) as caught:
        fetch(index, tmp_path)
    assert "[endpoint]" in caught.value.hint
    assert not list((tmp_path / "cp3.13-manylinux_2_34_x86_64" / "onnxruntime").iterdir())


def test_a_network_that_is_down_is_not_called_a_missing_wheel(tmp_path: Path) -> None:
    index = Index({}, says="WARNING: retrying\nERROR: could not connect to the index\n")
    with pytest.raises(WheelMissing, match=r"could not be fetched: ERROR: could not connect") as e:
        fetch(index, tmp_path)
    assert "network" in e.value.hint


def test_an_unknown_image_gets_a_numpy_that_its_own_goes_before(tmp_path: Path) -> None:
    container = Container("own image", "3.12", "manylinux_2_28_x86_64", known=False)
    wheels, _ = fetch(Index(), tmp_path, container)
    assert [(wheel.package, wheel.spare) for wheel in wheels] == [
        ("numpy", True),
        ("onnxruntime", False),
        ("tokenizers", False),
    ]


def test_graviton() -> None:
    container = Container("g", "3.12", "manylinux_2_35_aarch64")
    assert container.machine == "aarch64"
    assert container.tags[-1] == "manylinux2014_aarch64"

"""The wheels that an artifact carries, so that its container downloads nothing at start.

They are asked for from pip as the user has set it up, for the Python and the platform of the
container's image, and kept in a cache; the same container and versions give the same files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.errors import ExtraMissing, WheelMissing

# What the serving code imports. Their own dependencies serve other uses: ONNX Runtime's tools, the
# hub from which the tokenizers library can download.
SERVING = ("numpy", "onnxruntime", "tokenizers")
_PLATFORM = re.compile(r"manylinux_2_(\d+)_(\w+)")
_OLDEST_GLIBC = 17
# Platforms had names before they had numbers (PEP 600).
_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}

# Runs a command; its exit code and what it said.
Run = Callable[[Sequence[str]], tuple[int, str]]


@dataclass(frozen=True)
class Container:
    """What an artifact has to fit: ``python`` such as ``3.13``, ``platform`` a manylinux tag.

    ``has`` are the packages of the serving code that every image of this kind has itself; where
    that is not known, they are packed as well, for the case that the image has none.
    ``gpu``: a GPU is to compute the model.
    """

    name: str
    python: str
    platform: str
    has: frozenset[str] = frozenset()
    known: bool = True
    gpu: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def machine(self) -> str:
        """The processor, as Python calls it: ``x86_64`` or ``aarch64``."""
        match = _PLATFORM.fullmatch(self.platform)
        return match[2] if match else ""

    @property
    def tags(self) -> list[str]:
        """Every platform tag whose wheels run in it, the newest first."""
        match = _PLATFORM.fullmatch(self.platform)
        if match is None:
            return [self.platform]
        newest, machine = int(match[1]), match[2]
        oldest = 5 if machine == "x86_64" else _OLDEST_GLIBC
        found = []
        for minor in range(newest, oldest - 1, -1):
            found.append(f"manylinux_2_{minor}_{machine}")
            if minor in _ALIASES:
                found.append(f"{_ALIASES[minor]}_{machine}")
        return found


@dataclass(frozen=True)
class Wheel:
    """A wheel on disk; ``spare`` says that the image's own package goes before it."""

    package: str
    version: str
    path: Path
    sha256: str
    spare: bool = False


def resolve(
    container: Container,
    versions: Mapping[str, str],
    *,
    cache: Path,
    told: Callable[[str], None],
    run: Run | None = None,
) -> tuple[Wheel, ...]:
    """The wheels for a container; ``versions`` are those that the parity gate was passed with.

    Where a package has no wheel of that version for the container's Python, the newest before it
    is taken and told: the goldens decide at start whether it will do. Raises WheelMissing,
    ExtraMissing or FileError.
    """
    return tuple(_wheels(container, versions, cache, told, run or _run))


def default_cache() -> Path:
    """Where wheels are kept between packages."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastai-deploy" / "wheels"


def _wheels(
    container: Container,
    versions: Mapping[str, str],
    cache: Path,
    told: Callable[[str], None],
    run: Run,
) -> Iterator[Wheel]:
    for package in SERVING:
        if package not in versions or package in container.has:
            continue
        folder = cache / f"cp{container.python}-{container.platform}" / package / versions[package]
        found = _cached(folder)
        if found is None:
            told(f"fetching {package} {versions[package]} for the {container.name}")
            found = _fetch(container, package, versions[package], folder, run)
        version = found.name.split("-")[1]
        if version != versions[package]:
            told(
                f"Python {container.python} has no {package} {versions[package]}: the artifact "
                f"carries {version}, and proves itself by its goldens at start"
            )
        spare = package == "numpy" and not container.known
        yield Wheel(package, version, found, files.sha256(found), spare)


def _cached(folder: Path) -> Path | None:
    """The wheel of a folder, if it is the one that was put there."""
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        return None
    expected = folder / f"{found[0].name}.sha256"
    if not expected.exists() or expected.read_text(encoding="ascii") != files.sha256(found[0]):
        return None
    return found[0]


def _fetch(container: Container, package: str, version: str, folder: Path, run: Run) -> Path:
    """Download a wheel into its folder of the cache, which appears whole or not at all."""
    if find_spec("pip") is None:
        raise ExtraMissing(
            "wheels for the container are fetched with pip, which this Python has not",
            hint=f"run: {sys.executable} -m ensurepip",
        )
    with files.file_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        said = ""
        for wanted in (f"{package}=={version}", f"{package}<={version}"):
            status, said = run(_command(container, wanted, scratch))
            found = sorted(scratch.glob("*.whl"))
            if status == 0 and len(found) == 1:
                break
        else:
            raise _missing(container, package, version, said)
        digest = files.sha256(found[0])
        files.write(scratch / f"{found[0].name}.sha256", digest.encode("ascii"))
        with files.file_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        return folder / found[0].name
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _command(container: Container, wanted: str, scratch: Path) -> list[str]:
    short = container.python.replace(".", "")
    return [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", container.python),
        *("--abi", f"cp{short}", "--abi", "abi3", "--abi", "none"),
        *(part for tag in container.tags for part in ("--platform", tag)),
        *("--dest", str(scratch), wanted),
    ]


def _missing(container: Container, package: str, version: str, said: str) -> WheelMissing:
    """What could not be had and why, as far as pip tells."""
    for_what = f"Python {container.python} on {container.platform} ({container.name})"
    if "No matching distribution" in said:
        return WheelMissing(
            f"there is no wheel of {package} {version} or before for {for_what}",
            hint="choose another instance or image in [endpoint]; fdeploy config shows them",
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = next(
        (line for line in reversed(lines) if "ERROR" in line), (lines or ["no reason"])[-1]
    )
    return WheelMissing(
        f"the wheel of {package} {version} for {for_what} could not be fetched: {reason[:300]}",
        hint="check the network and pip's settings (pip config list), then run fdeploy package",
    )


def _run(command: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr

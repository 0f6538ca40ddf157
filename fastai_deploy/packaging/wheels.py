"""Fetches the wheels packed into an artifact, so that its container downloads nothing at start.

pip downloads them, with the user's settings, for the Python and platform of the container image,
and verifies them against the hashes of a lock. They are cached; the same container and versions
give the same files.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.cache import cache_folder, mark_used, using
from fastai_deploy.errors import (
    DiskFull,
    ExtraMissing,
    FdeployError,
    HashMismatch,
    WheelMissing,
)
from fastai_deploy.packaging.lock_files import (
    Pin,
    PipFailed,
    Run,
    render,
    resolve,
    run_command,
    shipped_lock,
)

# What the serving code imports. Their dependencies are not needed: they serve ONNX Runtime's tools
# and the hub downloads of the tokenizers library.
SERVING = ("numpy", "onnxruntime", "tokenizers")
OPENVINO = "openvino"  # only for forms that ONNX Runtime does not have
_PLATFORM = re.compile(r"manylinux_2_(\d+)_(\w+)")
_OLDEST_GLIBC = 17
# Older names of platforms, from before PEP 600.
_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True)
class Container:
    """What an artifact must match: ``python`` such as ``3.13``, ``platform`` a manylinux tag.

    ``has`` are serving packages that every image of this kind has itself; if that is unknown, they
    are packed too, in case the image lacks them. ``complete``: the image has all of them, and the
    serving code. ``gpu``: the model runs on a GPU. ``image_tag``: of the image that fdeploy makes,
    on the base with the digest ``image_base``. ``function``: it is AWS Lambda, in which there is
    room for one form of the model and ONNX Runtime.
    """

    name: str
    python: str
    platform: str
    has: frozenset[str] = frozenset()
    known: bool = True
    gpu: bool = False
    complete: bool = False
    image_tag: str = ""
    image_base: str = ""
    warnings: tuple[str, ...] = ()
    function: bool = False

    @property
    def machine(self) -> str:
        """The processor architecture: ``x86_64`` or ``aarch64``."""
        match = _PLATFORM.fullmatch(self.platform)
        return match[2] if match else ""

    @property
    def tags(self) -> list[str]:
        """Every platform tag whose wheels run in it, newest first."""
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


# Amazon Linux 2023, on which Lambda runs Python 3.12 and later, has glibc 2.34 ("Lambda runtimes").
FUNCTION = Container("Lambda", "3.13", "manylinux_2_34_x86_64", function=True)
"""AWS Lambda's own Python."""


@dataclass(frozen=True)
class Wheel:
    """A wheel on disk; ``spare``: the image's own package takes precedence."""

    package: str
    version: str
    path: Path
    sha256: str
    spare: bool = False


def fetch(
    container: Container,
    versions: Mapping[str, str],
    *,
    cache: Path,
    notify: Callable[[str], None],
    lock: Sequence[Pin] | None = None,
    run: Run = run_command,
) -> tuple[Wheel, ...]:
    """Fetch the wheels for a container; ``versions`` are those that passed the parity gate.

    Each is verified against ``lock``, by default the shipped one. For a version not in the lock,
    the hash is what the package index states before the download. If a package has no wheel of
    that version for the container's Python, the newest earlier one is used and reported; the
    goldens decide at start whether it works.
    Raises WheelMissing, HashMismatch, ExtraMissing or FileError, of which DiskFull is one.
    """
    fetcher = _Fetcher(container, shipped_lock() if lock is None else lock, notify, run)
    with using(cache):
        return tuple(
            fetcher.wheel(package, version, cache)
            for package, version in versions.items()
            if package not in container.has
        )


def newest(packages: Sequence[str]) -> dict[str, str]:
    """The newest version of each package in the shipped lock."""
    locked = shipped_lock()
    return {
        package: max((pin.version for pin in locked if pin.name == package), key=_numeric)
        for package in packages
    }


def _numeric(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def default_cache() -> Path:
    """The folder of the wheel cache."""
    return cache_folder("wheels")


class _Fetcher:
    """Fetches the wheels of one container; ``lock`` lists the files accepted."""

    def __init__(
        self, container: Container, lock: Sequence[Pin], notify: Callable[[str], None], run: Run
    ) -> None:
        self._container = container
        self._known = {(pin.name, pin.version): pin for pin in lock}
        self._told = notify
        self._run = run

    def wheel(self, package: str, version: str, cache: Path) -> Wheel:
        container = self._container
        folder = cache / f"cp{container.python}-{container.platform}" / package / version
        found, digest = self._cached(package, folder) or (None, "")
        if found is None:
            self._told(f"fetching {package} {version} for the {container.name}")
            found, digest = self._fetch(package, version, folder)
        taken = _version(found)
        if taken != version:
            self._told(
                f"there is no {package} {version} for Python {container.python}: packing {taken} "
                "instead, which the goldens verify at start"
            )
        spare = package == "numpy" and not container.known
        return Wheel(package, taken, found, digest, spare)

    def _cached(self, package: str, folder: Path) -> tuple[Path, str] | None:
        """The cached wheel in a folder and its hash, if it is unchanged and matches the lock."""
        found = sorted(folder.glob("*.whl"))
        if len(found) != 1:
            return None
        expected = folder / f"{found[0].name}.sha256"
        mark_used(found[0], expected)
        digest = files.sha256(found[0])
        if not expected.exists() or expected.read_text(encoding="ascii") != digest:
            return None
        known = self._known.get((package, _version(found[0])))
        return (found[0], digest) if known is None or digest in known.hashes else None

    def _fetch(self, package: str, version: str, folder: Path) -> tuple[Path, str]:
        """Download a wheel into its cache folder, which is created atomically; with its hash."""
        if find_spec("pip") is None:
            raise ExtraMissing(
                "fetching wheels for the container needs pip, which this Python does not have",
                hint=f"run {sys.executable} -m ensurepip",
            )
        with files.file_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            found = self._newest(package, version, scratch)
            digest = files.sha256(found)
            files.write(scratch / f"{found.name}.sha256", digest.encode("ascii"))
            with files.file_errors(folder):
                shutil.rmtree(folder, ignore_errors=True)
                scratch.rename(folder)
            return folder / found.name, digest
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _newest(self, package: str, version: str, scratch: Path) -> Path:
        """Download the version, else the newest earlier one."""
        known = self._known.get((package, version))
        failed = PipFailed("")
        for wanted in (f"{package}=={version}", f"{package}<={version}"):
            try:
                return self._download(known or self._offered(wanted, scratch), scratch)
            except PipFailed as error:  # noqa: PERF203 - two turns
                failed, known = error, None
                if error.tampered or error.no_space:
                    break
        raise self._error(package, version, failed, scratch)

    def _offered(self, wanted: str, scratch: Path) -> Pin:
        """The version in the index for the container, with the lock's hashes if it has them."""
        target = ("--target", str(scratch / "target"), *pip_options(self._container))
        (offered,) = resolve(
            sys.executable, "--no-deps", "--only-binary=:all:", *target, wanted, run=self._run
        )
        known = self._known.get((offered.name, offered.version))
        if known is None:
            self._told(
                f"fdeploy's lock file does not contain {offered.name} {offered.version}: trusting "
                "the SHA-256 from the package index"
            )
        return known or offered

    def _download(self, pin: Pin, scratch: Path) -> Path:
        lock = scratch / "wheel.lock"
        files.write(lock, render([pin]).encode())
        status, said = self._run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
                *("--disable-pip-version-check", "--no-deps", "--only-binary=:all:"),
                *pip_options(self._container),
                *("--dest", str(scratch), "--require-hashes", "--requirement", str(lock)),
            ]
        )
        lock.unlink()
        found = sorted(scratch.glob("*.whl"))
        if status != 0 or len(found) != 1:
            raise PipFailed(said)
        return found[0]

    def _error(self, package: str, version: str, failed: PipFailed, scratch: Path) -> FdeployError:
        """The error for a wheel that could not be fetched into a folder, with pip's reason."""
        container = self._container
        for_what = f"Python {container.python} on {container.platform} ({container.name})"
        if failed.tampered:
            return HashMismatch(
                f"the wheel of {package} {version} for {for_what} is not the one in the lock file: "
                "its SHA-256 differs",
                hint="someone may have changed the file: check where pip gets it from "
                "(pip config list), then run fdeploy package",
            )
        if failed.no_space:
            places = dict.fromkeys((scratch.parent, Path(tempfile.gettempdir())))
            free = " and ".join(f"{shutil.disk_usage(at).free:,} in {at}" for at in places)
            return DiskFull(
                f"the wheel of {package} {version} cannot be downloaded: {failed.no_space}; free "
                f"bytes: {free}",
                hint="free some space and run the same command again; no partial file was kept",
            )
        if "No matching distribution" in failed.said:
            return WheelMissing(
                f"there is no wheel of {package} {version} or earlier for {for_what}",
                hint="choose another instance or image in [endpoint]; fdeploy config shows both",
            )
        return WheelMissing(
            f"the wheel of {package} {version} for {for_what} could not be fetched: "
            f"{failed.reason}",
            hint="check the network and pip's settings (pip config list), then run fdeploy package",
        )


def pip_options(container: Container) -> list[str]:
    """The pip options that select files for a container instead of this machine."""
    short = container.python.replace(".", "")
    return [
        *("--implementation", "cp", "--python-version", container.python),
        *("--abi", f"cp{short}", "--abi", "abi3", "--abi", "none"),
        *(part for tag in container.tags for part in ("--platform", tag)),
    ]


def _version(wheel: Path) -> str:
    """The version in a wheel's file name (PEP 427)."""
    return wheel.name.split("-")[1]

"""Pinned requirements and their lock, so that an install next year gives the same packages."""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from fastai_deploy.errors import (
    FileError,
    HashMismatch,
    RuntimeUnproven,
    TargetUnavailable,
    UsageError,
)
from fastai_deploy.files import file_errors, read
from fastai_deploy.packaging.lock_files import (
    Pin,
    PipFailed,
    Run,
    parse,
    render,
    resolve,
    run_command,
)
from fastai_deploy.packaging.wheels import Container, pip_options

_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9,._ -]*\])?\s*==\s*"
    r"(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)"
)


@dataclass(frozen=True)
class Requirements:
    """Pinned requirements; ``text`` is the same for the same pins."""

    pins: tuple[tuple[str, str], ...]
    text: str


def read_requirements(path: Path) -> Requirements:
    """Read a requirements file. Raises UsageError for a line that is not ``name==version``."""
    data = read(path)
    try:
        return parse_requirements(data.decode("utf-8-sig"), path.name)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8", hint="save the file as UTF-8") from None


def parse_requirements(text: str, where: str) -> Requirements:
    """Parse requirements; comments and blank lines are skipped."""
    pins: list[tuple[str, str]] = []
    lines: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        found = _PINNED.fullmatch(line)
        if found is None:
            raise UsageError(
                f"{where}, line {number}: {line[:80]!r} is not pinned",
                hint="write name==version on each line, as printed by pip freeze where the learner "
                "was trained",
            )
        pins.append((found["name"], found["version"]))
        lines.append(line)
    if not pins:
        raise UsageError(
            f"{where} lists no packages",
            hint="add fastai==..., torch==... and whatever else it needs",
        )
    return Requirements(tuple(pins), "\n".join(lines) + "\n")


def installed(name: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing_here(
    requirements: Requirements, found: Callable[[str], str | None] = installed
) -> tuple[str, ...]:
    """The pins that are not installed here; a build (``+cpu``) matters only if it is pinned."""
    return tuple(
        f"{name}=={wanted}" for name, wanted in requirements.pins if not _same(found(name), wanted)
    )


def _same(here: str | None, wanted: str) -> bool:
    if here is None:
        return False
    return here == wanted or ("+" not in wanted and here.partition("+")[0] == wanted)


_HEAD = re.compile(r"# Python (?P<python>3\.\d+) on (?P<platform>\w+ \w+)\n")


@dataclass(frozen=True)
class LearnerLock:
    """A learner's lock; ``python`` is such as ``3.11``, ``platform`` such as ``Linux x86_64``."""

    python: str
    platform: str
    pins: tuple[Pin, ...]

    @property
    def text(self) -> str:
        """The lock in pip's format."""
        return f"# Python {self.python} on {self.platform}\n{render(self.pins)}"

    @property
    def versions(self) -> str:
        """The packages with versions only, for ``--constraint`` and ``--requirement``."""
        return "".join(f"{pin.name}=={pin.version}\n" for pin in self.pins)


def this_platform() -> str:
    """The platform of this machine, such as ``Linux x86_64``."""
    return f"{platform.system()} {platform.machine()}"


def read_lock(path: Path) -> LearnerLock | None:
    """Read a lock file; None if there is none. Raises FileError if it is not a lock."""
    if not path.exists():
        return None
    with file_errors(path):
        text = path.read_text(encoding="utf-8")
    head = _HEAD.match(text)
    if head is None:
        raise _no_lock(path, "it does not state its Python and platform")
    try:
        return LearnerLock(head["python"], head["platform"], parse(text))
    except ValueError as error:
        raise _no_lock(path, str(error)) from None


def _no_lock(path: Path, why: str) -> FileError:
    return FileError(f"{path} is not a lock file: {why}", hint="run fdeploy export")


def installed_versions() -> str:
    """The installed packages as constraints, without builds (``+cpu``)."""
    found = {each.name: each.version.partition("+")[0] for each in distributions() if each.name}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def lock_requirements(
    python: Path, version: str, requirements: Path, constraints: str, *, run: Run
) -> LearnerLock:
    """Lock what pip of ``python``, a Python ``version``, would install. Raises PipFailed."""
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        limits = Path(folder, "constraints.txt")
        limits.write_text(constraints, encoding="utf-8")
        arguments = ("--requirement", str(requirements), "--constraint", str(limits))
        pins = resolve(str(python), *arguments, run=run)
    return LearnerLock(version, this_platform(), pins)


def lock_for_container(
    lock: LearnerLock, container: Container, python: Path, *, run: Run = run_command
) -> str:
    """Add the hashes of the files that an AWS container installs for the same versions.

    ``python`` is an interpreter of the lock's version. Raises TargetUnavailable if this machine's
    platform differs from the container's, which may need other packages, or RuntimeUnproven.
    """
    wanted = f"Linux {container.machine}"
    if lock.platform != wanted:
        raise TargetUnavailable(
            f"the learner's packages are locked for {lock.platform}, but the {container.name} is "
            f"{wanted}, which may need others",
            hint=f"run fdeploy export and fdeploy package on {wanted}, for example in CI",
        )
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        versions = Path(folder, "requirements.txt")
        versions.write_text(lock.versions, encoding="utf-8")
        options = ("--no-deps", "--target", folder, *pip_options(container))
        try:
            theirs = resolve(str(python), *options, "--requirement", str(versions), run=run)
        except PipFailed as failed:
            raise RuntimeUnproven(
                f"the {container.name} cannot install what the learner needs: {failed.reason}",
                hint="set other versions with --requirements and run fdeploy export, or choose "
                "another image in [endpoint]",
            ) from None
    return LearnerLock(lock.python, lock.platform, tuple(_merged(lock.pins, theirs))).text


def _merged(ours: Iterable[Pin], theirs: Iterable[Pin]) -> Iterable[Pin]:
    known = {pin.name: pin.hashes for pin in theirs}
    for pin in ours:
        yield Pin(pin.name, pin.version, pin.hashes | known.get(pin.name, frozenset()))


def tampered(failed: PipFailed) -> HashMismatch:
    """The error for a package whose hash differs from the lock."""
    named = re.search(r"^\s+(\S+==\S+|\S+) from ", failed.said, re.MULTILINE)
    return HashMismatch(
        f"{named[1] if named else 'a package'} is not the file in the learner's lock: its SHA-256 "
        "differs",
        hint="someone may have changed the file: check where pip gets it from (pip config list); "
        "if you changed it, run fdeploy export again",
    )

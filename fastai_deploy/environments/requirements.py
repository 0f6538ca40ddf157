"""``requirements.txt`` with every version pinned, so that an install next year is the same."""

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
    """Read a file of requirements. Raises UsageError for a line that is no ``name==version``."""
    data = read(path)
    try:
        return parse_requirements(data.decode("utf-8-sig"), path.name)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8", hint="save the file as UTF-8") from None


def parse_requirements(text: str, where: str) -> Requirements:
    """The same from text; comments and blank lines are left out."""
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
                hint="write name==version on each line, as pip freeze shows it where the learner "
                "was trained",
            )
        pins.append((found["name"], found["version"]))
        lines.append(line)
    if not pins:
        raise UsageError(
            f"{where} names no package", hint="state fastai==..., torch==... and what else it needs"
        )
    return Requirements(tuple(pins), "\n".join(lines) + "\n")


def installed(name: str) -> str | None:
    """The version of a package that is installed here; None when it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing_here(
    requirements: Requirements, found: Callable[[str], str | None] = installed
) -> tuple[str, ...]:
    """The pins that are not what is installed here; a build (``+cpu``) counts only where pinned."""
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
    """``python`` such as ``3.11``, ``platform`` such as ``Linux x86_64``."""

    python: str
    platform: str
    pins: tuple[Pin, ...]

    @property
    def text(self) -> str:
        """The lock as pip reads it."""
        return f"# Python {self.python} on {self.platform}\n{render(self.pins)}"

    @property
    def versions(self) -> str:
        """The packages with their versions alone, for ``--constraint`` and ``--requirement``."""
        return "".join(f"{pin.name}=={pin.version}\n" for pin in self.pins)


def this_platform() -> str:
    """The platform of this machine, such as ``Linux x86_64``."""
    return f"{platform.system()} {platform.machine()}"


def read_lock(path: Path) -> LearnerLock | None:
    """The lock in a file; None where there is none. Raises FileError for what is no lock."""
    if not path.exists():
        return None
    with file_errors(path):
        text = path.read_text(encoding="utf-8")
    head = _HEAD.match(text)
    if head is None:
        raise _no_lock(path, "it does not say for which Python and platform it is")
    try:
        return LearnerLock(head["python"], head["platform"], parse(text))
    except ValueError as error:
        raise _no_lock(path, str(error)) from None


def _no_lock(path: Path, why: str) -> FileError:
    return FileError(f"{path} is not a lock: {why}", hint="run fdeploy export")


def installed_versions() -> str:
    """What is installed in the running Python, as constraints; builds (``+cpu``) do not count."""
    found = {each.name: each.version.partition("+")[0] for each in distributions() if each.name}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def lock_requirements(
    python: Path, version: str, requirements: Path, constraints: str, *, run: Run
) -> LearnerLock:
    """Ask the pip of ``python``, a Python ``version``, what it would install. Raises PipFailed."""
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        limits = Path(folder, "constraints.txt")
        limits.write_text(constraints, encoding="utf-8")
        arguments = ("--requirement", str(requirements), "--constraint", str(limits))
        pins = resolve(str(python), *arguments, run=run)
    return LearnerLock(version, this_platform(), pins)


def lock_for_container(
    lock: LearnerLock, container: Container, python: Path, *, run: Run = run_command
) -> str:
    """The same versions with the hashes of the files that a container of AWS installs.

    ``python`` is of the lock's version. Raises TargetUnavailable where this machine is of another
    kind than the container's, whose packages then may bring others, or RuntimeUnproven.
    """
    wanted = f"Linux {container.machine}"
    if lock.platform != wanted:
        raise TargetUnavailable(
            f"the learner's packages are locked on {lock.platform}, and the {container.name} is "
            f"{wanted}, where they may need others",
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
                f"the {container.name} cannot be given what the learner needs: {failed.reason}",
                hint="state other versions with --requirements and run fdeploy export, or choose "
                "another image in [endpoint]",
            ) from None
    return LearnerLock(lock.python, lock.platform, tuple(_merged(lock.pins, theirs))).text


def _merged(ours: Iterable[Pin], theirs: Iterable[Pin]) -> Iterable[Pin]:
    known = {pin.name: pin.hashes for pin in theirs}
    for pin in ours:
        yield Pin(pin.name, pin.version, pin.hashes | known.get(pin.name, frozenset()))


def tampered(failed: PipFailed) -> HashMismatch:
    """The error for a package that is not the file of the lock."""
    named = re.search(r"^\s+(\S+==\S+|\S+) from ", failed.said, re.MULTILINE)
    return HashMismatch(
        f"{named[1] if named else 'a package'} is not the file that the learner's lock names: its "
        "SHA-256 differs",
        hint="somebody may have changed the file: look at where pip gets it from (pip config "
        "list); if it was you, run fdeploy export again",
    )

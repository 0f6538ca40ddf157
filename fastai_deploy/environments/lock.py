r"""The lock of a learner: everything that its requirements bring, for one Python on one platform.

    # Python 3.11 on Linux x86_64
    fastai==2.8.12 \
        --hash=sha256:...

It goes along in the bundle, so that the same files are installed wherever it is served.
"""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from fastai_deploy.errors import FileError, HashMismatch, RuntimeUnproven, TargetUnavailable
from fastai_deploy.files import file_errors
from fastai_deploy.locks import Pin, PipFailed, Run, parse, render, resolve, run_command
from fastai_deploy.wheels import Container, pip_options

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

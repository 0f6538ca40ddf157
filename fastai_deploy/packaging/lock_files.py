r"""Lock files: each package with its version and the hashes of its files, in pip's format.

    numpy==2.4.6 \
        --hash=sha256:...

pip installs from a lock with ``--require-hashes``, so it rejects any file that differs. The shipped
lock (``wheels.lock``) contains what the project was tested with. Everything else is resolved once
by pip, with the user's settings, and locked before anything is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy.files import file_errors

SHIPPED = Path(__file__).with_name("wheels.lock")
"""Hashes of the serving libraries for every Python and platform; ``make lock`` writes it."""

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.!+_-]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_DIGEST = re.compile(r"sha256=([0-9a-f]{64})")

# Runs a command and returns its exit code and output.
Run = Callable[[Sequence[str]], tuple[int, str]]


@dataclass(frozen=True)
class Pin:
    """A version of a package; ``hashes`` are the SHA-256 of the files accepted for it."""

    name: str
    version: str
    hashes: frozenset[str]


# What the C library says to ENOSPC, EDQUOT and EFBIG.
_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")


class PipFailed(Exception):
    """pip failed; ``said`` is its output."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    @property
    def tampered(self) -> bool:
        """Whether a file's hash differed from the lock."""
        return "DO NOT MATCH THE HASHES" in self.said

    @property
    def no_space(self) -> str:
        """What the system said about a full disk; empty if that was not the reason."""
        found = _FULL.search(self.said)
        return found[0] if found else ""

    @property
    def reason(self) -> str:
        """The line that says why."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line]
        return ([*lines, *errors] or ["no reason"])[-1][:300]


def normalized(name: str) -> str:
    """Normalize a package name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def render(pins: Iterable[Pin]) -> str:
    """Render a lock; the same pins give the same text."""
    return "".join(
        f"{pin.name}=={pin.version}"
        + "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(pin.hashes))
        + "\n"
        for pin in sorted(pins, key=lambda pin: (pin.name, pin.version))
    )


def parse(text: str) -> tuple[Pin, ...]:
    """Parse a lock file, also one of uv; environment markers after ``;`` are ignored.

    Raises ValueError for a line that is not pinned or has no hash.
    """
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found, hashes = _REQUIREMENT.match(line), frozenset(_HASH.findall(line))
        if found is None or not hashes:
            raise ValueError(f"{line[:80]!r} is no pinned requirement with a hash")
        pins.append(Pin(normalized(found["name"]), found["version"], hashes))
    return tuple(pins)


def shipped_lock() -> tuple[Pin, ...]:
    """The lock that ships with fdeploy."""
    with file_errors(SHIPPED):
        return parse(SHIPPED.read_text(encoding="utf-8"))


def resolve(python: str, *arguments: str, run: Run) -> tuple[Pin, ...]:
    """Resolve what pip of ``python`` would install, without installing it. Raises PipFailed."""
    with tempfile.TemporaryDirectory(prefix="fdeploy-") as folder:
        report = Path(folder, "report.json")
        command = [
            *(python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
            *("--no-input", "--disable-pip-version-check", "--report", str(report), *arguments),
        ]
        status, said = run(command)
        if status != 0 or not report.exists():
            raise PipFailed(said)
        installs = json.loads(report.read_bytes())["install"]
    return tuple(_pin(entry) for entry in installs)


def _pin(entry: dict[str, Any]) -> Pin:
    """Read a pin from pip's report, which before pip 23.1 has ``hash`` instead of ``hashes``."""
    metadata = entry["metadata"]
    archive = entry["download_info"].get("archive_info", {})
    named = {f"sha256={archive.get('hashes', {}).get('sha256')}", archive.get("hash")}
    digests = frozenset(found[1] for each in named if (found := _DIGEST.fullmatch(str(each))))
    if not digests:
        raise PipFailed(f"ERROR: pip knows no SHA-256 of {metadata['name']}")
    return Pin(normalized(metadata["name"]), metadata["version"], digests)


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a command and return its exit code and output."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout + done.stderr

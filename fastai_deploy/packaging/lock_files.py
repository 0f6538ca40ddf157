r"""Locks: each package with its version and the hashes of its files, in pip's own format.

    numpy==2.4.6 \
        --hash=sha256:...

pip is given a lock with ``--require-hashes``, so that it takes no file that differs by a byte. The
lock that ships (``wheels.lock``) holds what the project was tested with; for everything else pip is
asked once, as the user has set it up, and what it answers is locked before anything is installed.
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

# Runs a command; its exit code and what it said.
Run = Callable[[Sequence[str]], tuple[int, str]]


@dataclass(frozen=True)
class Pin:
    """A version of a package; ``hashes`` are the SHA-256 of the files that may be taken for it."""

    name: str
    version: str
    hashes: frozenset[str]


class PipFailed(Exception):
    """pip did not do what it was asked; ``said`` is its output."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    @property
    def tampered(self) -> bool:
        """Whether a file was not the one that the lock names."""
        return "DO NOT MATCH THE HASHES" in self.said

    @property
    def reason(self) -> str:
        """The line that says why."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line]
        return ([*lines, *errors] or ["no reason"])[-1][:300]


def normalized(name: str) -> str:
    """A package's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def render(pins: Iterable[Pin]) -> str:
    """A lock as text; the same for the same pins."""
    return "".join(
        f"{pin.name}=={pin.version}"
        + "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(pin.hashes))
        + "\n"
        for pin in sorted(pins, key=lambda pin: (pin.name, pin.version))
    )


def parse(text: str) -> tuple[Pin, ...]:
    """The pins of a lock, also of uv; what a line says after ``;`` about when it holds is left out.

    Raises ValueError for what is no lock: a line that is not pinned, or one without a hash.
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
    """What pip of ``python`` would install, without installing it. Raises PipFailed."""
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
    """A pin from pip's installation report; before pip 23.1 it has ``hash`` for ``hashes``."""
    metadata = entry["metadata"]
    archive = entry["download_info"].get("archive_info", {})
    named = {f"sha256={archive.get('hashes', {}).get('sha256')}", archive.get("hash")}
    digests = frozenset(found[1] for each in named if (found := _DIGEST.fullmatch(str(each))))
    if not digests:
        raise PipFailed(f"ERROR: pip knows no SHA-256 of {metadata['name']}")
    return Pin(normalized(metadata["name"]), metadata["version"], digests)


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; its exit code and what it said."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout + done.stderr

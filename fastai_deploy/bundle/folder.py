"""The bundle: a folder that holds a converted learner, and the manifest that vouches for it.

``docs/bundle.md`` is the specification. A bundle is built beside its place and takes it when it is
whole; the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy.bundle.manifest import (
    EXPORT_AGAIN,
    FileEntry,
    Manifest,
    parse_manifest,
    render_manifest,
)
from fastai_deploy.errors import FileError
from fastai_deploy.files import file_errors, sha256, write

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; ``version`` is the SHA-256 of its manifest.

    ``max_difference`` is the largest |Δprobability| between the goldens and the model in it, and
    ``learner_sha256`` and ``learner_bytes`` describe the file that it was made from.
    """

    path: Path
    version: str
    name: str
    task: str
    labels: tuple[str, ...]
    max_difference: float
    learner_sha256: str
    learner_bytes: int


@contextmanager
def building(destination: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``destination`` when the block ends well.

    When it does not, nothing of it is left and an old bundle is as it was. Raises FileError.
    """
    new = destination.with_name(f".{destination.name}.partial")
    old = destination.with_name(f".{destination.name}.old")
    with file_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not destination.exists():
            old.rename(destination)  # the last writer was ended between its two renames
        _remove(new)
        new.mkdir()
    try:
        yield new
        with file_errors(destination):
            _remove(old)
            if destination.exists():
                destination.rename(old)
            new.rename(destination)
            _remove(old)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a folder that is otherwise complete; its files are listed in it."""
    listed = {
        path.name: FileEntry(sha256(path), path.stat().st_size)
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    sealed = manifest.listing(listed)
    write(folder / MANIFEST, render_manifest(sealed))
    return sealed


def read_bundle(folder: Path) -> tuple[Manifest, str]:
    """The manifest and version of a bundle, every file of it checked against its SHA-256.

    Raises FileError for a folder that is not exactly a bundle.
    """
    manifest, version = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        with file_errors(path):
            intact = path.stat().st_size == entry.bytes and sha256(path) == entry.sha256
        if not intact:
            raise FileError(
                f"{path} is not the file that the manifest names: its SHA-256 differs",
                hint=EXPORT_AGAIN,
            )
    return manifest, version


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest and version of a bundle, without a look at its other files. Raises FileError."""
    path = folder / MANIFEST
    with file_errors(path):
        data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON", hint=EXPORT_AGAIN) from error
    return parse_manifest(value, str(path)), hashlib.sha256(data).hexdigest()


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)

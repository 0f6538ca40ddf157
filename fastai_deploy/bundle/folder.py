"""The bundle: a folder with a converted learner, and a manifest with the hashes of its files.

``docs/bundle.md`` is the specification. A bundle is built in a temporary folder, which is renamed
once it is complete; the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.bundle.manifest import (
    EXPORT_AGAIN,
    FileEntry,
    Manifest,
    parse_manifest,
    render_manifest,
)
from fastai_deploy.errors import FileError
from fastai_deploy.files import file_errors, sha256, write
from fastai_deploy.json_reader import BadJson, parse

MANIFEST = "manifest.json"
CARD = "card.md"
"""The model card, which the manifest does not list: it is no part of what is served."""
_CACHES = {"__pycache__", ".DS_Store"}  # created by other programs
_SHOWN = 5


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; ``version`` is the SHA-256 of its manifest.

    ``max_difference`` is the model's largest |Δprobability| on the goldens. ``learner_sha256`` and
    ``learner_bytes`` (the size) describe the learner file that it was made from.
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
    """A new folder, which replaces ``destination`` if the block succeeds.

    If it fails, the folder is removed and an old bundle is unchanged. A folder that holds anything
    but a bundle is not replaced. Raises FileError.
    """
    new = destination.with_name(f".{destination.name}.partial")
    old = destination.with_name(f".{destination.name}.old")
    _check_replaceable(destination)
    files.make_folder(destination.parent)
    present = files.names_in(destination.parent)
    if old.name in present and destination.name not in present:
        files.rename(old, destination)  # the last writer was killed between its two renames
    files.remove_tree(new)
    files.make_folder(new)
    try:
        yield new
        _check_replaceable(destination)
        files.remove_tree(old)
        if destination.name in files.names_in(destination.parent):
            files.rename(destination, old)
        files.rename(new, destination)
        files.remove_tree(old)
    finally:
        with suppress(FileError):
            files.remove_tree(new)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """List the folder's files in the manifest and write it; the folder is then complete."""
    listed = {
        path.name: FileEntry(sha256(path), path.stat().st_size)
        for path in sorted(folder.iterdir())
        if path.name not in (MANIFEST, CARD)
    }
    sealed = manifest.listing(listed)
    write(folder / MANIFEST, render_manifest(sealed))
    return sealed


def read_bundle(folder: Path) -> tuple[Manifest, str]:
    """The manifest and version of a bundle, after checking the SHA-256 of every file.

    Raises FileError if the manifest or a listed file is missing or damaged.
    """
    manifest, version = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        with file_errors(path):
            intact = path.stat().st_size == entry.bytes and sha256(path) == entry.sha256
        if not intact:
            raise FileError(
                f"{path} does not match the manifest: its SHA-256 differs",
                hint=EXPORT_AGAIN,
            )
    return manifest, version


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest and version of a bundle; its other files are not read. Raises FileError."""
    path = folder / MANIFEST
    data = files.read(path)
    try:
        value = parse(data)
    except BadJson as error:
        raise FileError(f"{path} is damaged: {error}", hint=EXPORT_AGAIN) from None
    return parse_manifest(value, str(path)), hashlib.sha256(data).hexdigest()


def _check_replaceable(destination: Path) -> None:
    """Raise FileError unless ``destination`` is missing, empty, or holds only a bundle.

    A folder named by the user may contain other files. fdeploy's own workspace does not, so there
    even a damaged bundle is replaced.
    """
    if files.WORKSPACE in destination.absolute().parts or destination.is_symlink():
        return
    if not destination.is_dir():
        if destination.exists():
            raise FileError(f"{destination} is not a folder", hint="name another folder")
        return
    found = set(files.names_in(destination))
    if not found:
        return
    try:
        manifest, _ = read_manifest(destination)
    except FileError as error:
        raise FileError(
            f"{destination} is not a bundle, so it is not replaced: {error.message}",
            hint="name a new folder, or remove this one yourself",
        ) from None
    foreign = sorted(found - {MANIFEST, CARD, *manifest.files} - _CACHES)
    if foreign:
        raise FileError(
            f"{destination} contains more than a bundle, so it is not replaced: "
            f"{', '.join(ascii(name)[1:-1] for name in foreign[:_SHOWN])}",
            hint="name a new folder, or move these out of it",
        )

"""Where a batch reads from and writes to: this machine's disk, or S3 (``s3://bucket/key``).

An input on S3 is copied into the folder of the run, once; an output for S3 is written there and
then uploaded. So both need as much disk as they are large, and a run that is continued does not
fetch anything again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fastai_deploy import files
from fastai_deploy.batch_invoke.formats import format_of
from fastai_deploy.batch_invoke.opening import check_output
from fastai_deploy.errors import FileError, FileMissing, UsageError
from fastai_deploy.progress import Reporter, Step

if TYPE_CHECKING:
    from fastai_deploy.aws.objects import Objects, S3Object

S3 = "s3://"
SUFFIX = ".partial"


class Input(Protocol):
    """A file to read. ``name`` is what the user typed; ``sha256`` its hash, or an ETag of S3.

    ``where`` is the same in whatever folder it was typed.
    """

    name: str
    bytes: int
    sha256: str

    @property
    def where(self) -> str:
        """The absolute path, or the URI."""
        ...

    def fetch(self, folder: Path) -> Path:
        """The path of the file; one that is not on this disk is put into ``folder``."""
        ...

    def check(self) -> None:
        """Raise FileError if it has changed since it was opened."""
        ...


class Output(Protocol):
    """A file to write. ``name`` is what the user typed."""

    name: str

    @property
    def folder(self) -> Path:
        """Where an unfinished run keeps what it has."""
        ...

    @property
    def path(self) -> Path:
        """Where to write the file."""
        ...

    def deliver(self) -> None:
        """Put the file where it belongs."""
        ...


@dataclass
class LocalInput:
    """A file on this machine's disk."""

    name: str
    file: Path
    bytes: int
    sha256: str
    modified: int

    @classmethod
    def open(cls, name: str) -> LocalInput:
        """Hash a file. Raises FileError."""
        path = files.expanded(Path(name)).absolute()
        if path.is_dir():
            raise FileError(f"{name} is a folder", hint="choose a file in it")
        with files.file_errors(path):
            exists = path.exists()
        if not exists:
            raise FileMissing(f"{name} does not exist", hint="check the path")
        with files.reading(path) as file:
            status = os.fstat(file.fileno())
        return cls(name, path, status.st_size, files.sha256(path), status.st_mtime_ns)

    @property
    def where(self) -> str:
        """The absolute path."""
        return str(self.file)

    def fetch(self, folder: Path) -> Path:
        """The file itself."""
        del folder
        return self.file

    def check(self) -> None:
        """Raise FileError if it has changed since it was opened."""
        with files.file_errors(self.file):
            now = self.file.stat()
        if (now.st_size, now.st_mtime_ns) != (self.bytes, self.modified):
            raise FileError(
                f"{self.name} changed while it was read: rows and answers may not belong together",
                hint="run the same command again with --overwrite",
            )


@dataclass
class LocalOutput:
    """A file on this machine's disk, which appears when it is whole."""

    name: str
    path: Path

    @classmethod
    def open(cls, name: str, *, overwrite: bool, source: LocalInput | None) -> LocalOutput:
        """Check that a file may be written here. Raises UsageError or FileError."""
        path = files.expanded(Path(name)).absolute()
        if path.is_dir():
            suffix = source.file.suffix if source else ".csv"
            raise UsageError(
                f"{name} is a folder", hint=f"name a file in it: {Path(name) / f'answers{suffix}'}"
            )
        with files.file_errors(path):
            exists = path.exists()
        if exists and source and path.samefile(source.file):
            raise UsageError(f"{name} is the input file", hint="choose another output")
        if exists and not overwrite:
            raise UsageError(
                f"{name} exists already", hint="choose another output, or add --overwrite"
            )
        check_output(path)
        return cls(name, path)

    @property
    def folder(self) -> Path:
        """Beside the file, so on the same file system."""
        return self.path.with_name(self.path.name + SUFFIX)

    def deliver(self) -> None:
        """Nothing: it was written here."""


@dataclass
class S3Input:
    """An object on S3."""

    name: str
    objects: Objects
    at: S3Object
    bytes: int
    sha256: str

    @classmethod
    def open(cls, name: str, objects: Objects) -> S3Input:
        """Look an object up. Raises UsageError or AwsError."""
        at = objects.parse(name)
        found = objects.find(at)
        return cls(name, objects, at, found.bytes, found.etag)

    @property
    def where(self) -> str:
        """The URI."""
        return self.name

    def fetch(self, folder: Path) -> Path:
        """A copy of the object."""
        path = folder / f"input{''.join(Path(self.at.key).suffixes[-2:])}"
        if files.size_of(path) != self.bytes:
            self.objects.download(self.at, path, self.bytes, self.sha256)
        return path

    def check(self) -> None:
        """Nothing: the copy is of one version."""


@dataclass
class S3Output:
    """An object on S3, which appears when it is whole."""

    name: str
    objects: Objects
    at: S3Object
    folder: Path
    overwrite: bool

    @classmethod
    def open(cls, name: str, objects: Objects, kept: Path, *, overwrite: bool) -> S3Output:
        """Check that an object may be written; ``kept`` is where unfinished runs are.

        Raises UsageError or AwsError.
        """
        at = objects.parse(name)
        check_output(Path(at.key))
        objects.check_writable(at, overwrite=overwrite)
        folder = kept / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}{SUFFIX}"
        return cls(name, objects, at, folder, overwrite)

    @property
    def path(self) -> Path:
        """A file in the folder of the run."""
        return self.folder / f"output{''.join(Path(self.at.key).suffixes[-2:])}"

    def deliver(self) -> None:
        """Upload the file. Raises UsageError if an object is there now, or AwsError."""
        self.objects.upload(self.path, self.at, overwrite=self.overwrite)


def open_places(
    source: str,
    output: str,
    *,
    overwrite: bool,
    kept: Path,
    objects: Callable[[], Objects],
    report: Reporter,
) -> tuple[Input, Output]:
    """Check both before any work. ``objects`` opens S3, which is done only if one is there.

    Raises UsageError, FileError or AwsError.
    """
    if source == output:
        raise UsageError(f"{output} is the input file", hint="choose another output")
    format_of(Path(source))
    s3 = objects() if S3 in (source[: len(S3)], output[: len(S3)]) else None
    if s3 is not None and source.startswith(S3):
        found: Input = S3Input.open(source, s3)
    else:
        report(Step(f"reading {source}"))
        found = LocalInput.open(source)
    if s3 is not None and output.startswith(S3):
        return found, S3Output.open(output, s3, kept, overwrite=overwrite)
    local = found if isinstance(found, LocalInput) else None
    return found, LocalOutput.open(output, overwrite=overwrite, source=local)

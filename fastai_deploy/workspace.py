"""The folder ``.fdeploy/<stage>/`` of a project: the records of the stages, and what they made.

    .fdeploy/dev/
        export.json package.json upload.json deploy.json create-api.json   one record a stage
        bundle/          what export made
        model.tar.gz     what package made
        collection.json  what create-api made for Postman and its like
        local/           what runs on this machine (owned by the local target)
        lock             held by the command that is at work

    .fdeploy/environments/   Python environments of learners that are served as they are

A record is written when its stage ends, atomically, and read by the stage after it. The cloud's
state is never kept here: AWS is asked.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fastai_deploy import files
from fastai_deploy.errors import FileError, FileMissing, RecordMissing, WorkspaceBusy
from fastai_deploy.json_reader import Reader, read_object
from fastai_deploy.records import Api, Artifact, Bundle, Endpoint, StoredArtifact

Record = Bundle | Artifact | StoredArtifact | Endpoint | Api
R = TypeVar("R", bound=Record)
T = TypeVar("T")

COMMANDS: Mapping[type, str] = {
    Bundle: "export",
    Artifact: "package",
    StoredArtifact: "upload",
    Endpoint: "deploy",
    Api: "create-api",
}
_HOLDER = re.compile(r"fdeploy [a-z-]+ \(process \d+\)")
_PATH_MAX, _NAME_MAX = 4096, 256  # see limits.h
_URL = re.compile(r"(https?://[!-~]{1,2000})?")


class Workspace:
    """The records and products of one stage of one project."""

    def __init__(self, root: Path, stage: str) -> None:
        self.stage = stage
        self.folder = root / files.WORKSPACE / stage
        self.bundle = self.folder / "bundle"
        self.artifact = self.folder / "model.tar.gz"
        self.local = self.folder / "local"
        self.environments = root / files.WORKSPACE / "environments"
        self.collection = self.folder / "collection.json"

    def save(self, record: Record) -> None:
        """Write a stage's record; the one before it is replaced whole. Raises FileError."""
        self._prepare()
        path = self._record(type(record))
        try:
            data = (json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError as error:
            raise FileError(
                f"{path} cannot name {error.object[:200]!a}: that is not UTF-8",
                hint="rename the folder or the file, then run the same command again",
            ) from None
        files.write(path, data)

    def read(self, kind: type[R]) -> R | None:
        """The record of a stage; None where there is none.

        Raises FileError for a file that is not such a record of this version, with the command that
        writes it anew.
        """
        path = self._record(kind)
        try:
            reader = read_object(path, f"run fdeploy {COMMANDS[kind]}, which writes it anew")
        except FileMissing:
            return None
        return restored(kind, reader)

    def find(self, kind: type[R]) -> R | None:
        """The record of a stage; None where there is none or it cannot be understood.

        Raises FileError where something else than a file is in its place.
        """
        try:
            return self.read(kind)
        except FileError:
            if files.size_of(self._record(kind)) is None:
                raise
            return None

    def need(self, kind: type[R]) -> R:
        """The record of a stage.

        Raises RecordMissing, which names the command to run, or FileError for a damaged one.
        """
        record = self.read(kind)
        if record is None:
            command = COMMANDS[kind]
            raise RecordMissing(
                f"there is no {command} yet in stage {self.stage}", hint=f"run fdeploy {command}"
            )
        return record

    def forget(self, *kinds: type[Record]) -> None:
        """Remove the records of stages whose result is gone."""
        for kind in kinds:
            files.remove(self._record(kind))

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Hold the stage for one command. Raises WorkspaceBusy when another holds it.

        The lock is the operating system's: it ends with its process, however that ends.
        """
        self._prepare()
        descriptor = files.open_regular(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        # A file that has another name elsewhere (a hard link) is locked, and never written into.
        ours = os.fstat(descriptor).st_nlink == 1
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _HOLDER.match(os.pread(descriptor, 200, 0).decode(errors="replace"))
                raise WorkspaceBusy(
                    f"{holder[0] if holder else 'another fdeploy'} is at work in stage "
                    f"{self.stage}",
                    hint="wait for it to end, or use another --stage",
                ) from None
            if ours:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"fdeploy {command} (process {os.getpid()})".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        """The folder, which git ignores: it holds an API key and files too large for git."""
        files.make_folder(self.folder)
        if ".gitignore" not in files.names_in(self.folder.parent):
            files.write(self.folder.parent / ".gitignore", b"*\n")

    def _record(self, kind: type) -> Path:
        return self.folder / f"{COMMANDS[kind]}.json"


def restored(kind: type[T], reader: Reader) -> T:
    """A record from its JSON, each field by its type. Raises FileError, which names the key."""
    types = get_type_hints(kind)
    unknown = sorted(set(reader.value) - set(types))
    if unknown:
        reader.wrong(ascii(unknown[0][:40]), "this version of fdeploy knows no such key")
    return kind(
        **{
            field.name: _value(reader, field.name, types[field.name])
            for field in fields(kind)  # type: ignore[arg-type]  # records are dataclasses
            if field.name in reader.value or field.default is MISSING
        }
    )


def _value(reader: Reader, name: str, wanted: Any) -> Any:
    """The value of one field. Raises FileError."""
    if type(None) in get_args(wanted):
        if not reader.has(name):
            return None
        (wanted,) = (each for each in get_args(wanted) if each is not type(None))
    if isinstance(wanted, type) and is_dataclass(wanted):
        return restored(wanted, reader.section(name))
    if get_origin(wanted) is Literal:
        return reader.choice(name, *get_args(wanted))
    by_type: dict[Any, Callable[[str], Any]] = {
        int: reader.integer,
        float: reader.number,
        bool: reader.truth,
        tuple: reader.texts,
        str: lambda key: reader.matching(key, *_FORMS.get(key, _ANYTHING)),
    }
    return by_type[get_origin(wanted) or wanted](name)


def _is_path(text: str) -> bool:
    """Whether a file can have this name: of usual length, without a NUL."""
    return "\0" not in text and len(text) < _PATH_MAX and max(map(len, text.split("/"))) < _NAME_MAX


def _is_url(text: str) -> bool:
    return bool(_URL.fullmatch(text))


# What a text of a record must be like, by its name; the rest may be any text.
_PATH = (_is_path, "a path")
_ANYTHING = (lambda _text: True, "text")
_HASH = (re.compile("[0-9a-f]{0,64}").fullmatch, "a SHA-256 in hexadecimal")
_ADDRESS = (_is_url, "a URL")
_FORMS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "path": _PATH,
    "key_file": _PATH,
    "golden": _PATH,
    "definitions": _PATH,
    "requirements": _PATH,
    "tokenizer": _PATH,
    "sha256": _HASH,
    "target": (("local", "aws").__contains__, "local or aws"),
    "url": _ADDRESS,
    "document": _ADDRESS,
    "page": _ADDRESS,
}

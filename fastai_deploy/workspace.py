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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from fastai_deploy import files
from fastai_deploy.errors import FileMissing, RecordMissing, WorkspaceBusy
from fastai_deploy.records import Api, Artifact, Bundle, Endpoint, Source, StoredArtifact

Record = Bundle | Artifact | StoredArtifact | Endpoint | Api
R = TypeVar("R", bound=Record)

COMMANDS: Mapping[type, str] = {
    Bundle: "export",
    Artifact: "package",
    StoredArtifact: "upload",
    Endpoint: "deploy",
    Api: "create-api",
}


class Workspace:
    """The records and products of one stage of one project."""

    def __init__(self, root: Path, stage: str) -> None:
        self.stage = stage
        self.folder = root / ".fdeploy" / stage
        self.bundle = self.folder / "bundle"
        self.artifact = self.folder / "model.tar.gz"
        self.local = self.folder / "local"
        self.environments = root / ".fdeploy" / "environments"
        self.collection = self.folder / "collection.json"

    def save(self, record: Record) -> None:
        """Write a stage's record; the one before it is replaced whole."""
        self._prepare()
        text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
        files.write(self._record(type(record)), text.encode())

    def find(self, kind: type[R]) -> R | None:
        """The record of a stage; None where there is none or it cannot be understood."""
        path = self._record(kind)
        try:
            with files.file_errors(path):
                return _restored(kind, json.loads(path.read_bytes()))
        except (FileMissing, ValueError, TypeError, KeyError):
            return None

    def need(self, kind: type[R]) -> R:
        """The record of a stage. Raises RecordMissing, which names the command to run."""
        record = self.find(kind)
        if record is None:
            command = COMMANDS[kind]
            raise RecordMissing(
                f"there is no {command} yet in stage {self.stage}", hint=f"run fdeploy {command}"
            )
        return record

    def forget(self, *kinds: type[Record]) -> None:
        """Remove the records of stages whose result is gone."""
        for kind in kinds:
            path = self._record(kind)
            with files.file_errors(path):
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Hold the stage for one command. Raises WorkspaceBusy when another holds it.

        The lock is the operating system's: it ends with its process, however that ends.
        """
        path = self.folder / "lock"
        with files.file_errors(path):
            self._prepare()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                raise WorkspaceBusy(
                    f"{holder or 'another fdeploy'} is at work in stage {self.stage}",
                    hint="wait for it to end, or use another --stage",
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"fdeploy {command} (process {os.getpid()})".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        """The folder, which git ignores: it holds an API key and files too large for git."""
        with files.file_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        ignore = self.folder.parent / ".gitignore"
        if not ignore.exists():
            files.write(ignore, b"*\n")

    def _record(self, kind: type) -> Path:
        return self.folder / f"{COMMANDS[kind]}.json"


def _restored(kind: type[R], values: dict[str, Any]) -> R:
    """A record from its JSON. Raises TypeError or KeyError for one of another version."""
    if kind is Bundle:
        values["labels"] = tuple(values["labels"])
        values["unproven"] = tuple(values.get("unproven", ()))
        values["source"] = Source(**values["source"])
    return kind(**values)

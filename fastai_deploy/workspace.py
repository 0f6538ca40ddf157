"""The folder ``.fdeploy/<stage>/`` of a project: the stages' records and outputs.

    .fdeploy/dev/
        export.json package.json upload.json deploy.json create-api.json   one record per stage
        bundle/          written by export
        model.tar.gz     written by package
        collection.json  written by create-api, for Postman and similar tools
        bench.json bench.html                                              the last load test
        local/           owned by the local target
        aws/             owned by the AWS target
        durations.json   how long each stage took
        lock             held by the running command

    .fdeploy/environments/   Python environments of learners served from their original pickle
    .fdeploy/base-image.json which build of the base image a tag named when it was first used

A record is written atomically when its stage ends, and read by the next stage. The state of AWS is
never kept here: it is always queried.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from fastai_deploy import files
from fastai_deploy.errors import FileError, FileMissing, RecordMissing, WorkspaceBusy
from fastai_deploy.json_reader import BadJson, Reader, parse, read_object
from fastai_deploy.records import Api, Artifact, Bundle, Endpoint, StoredArtifact
from fastai_deploy.settings.loading import PROJECT_FILE

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


@dataclass(frozen=True)
class FoundProject:
    """The folder that a command works in; ``exists`` if a project is there.

    ``foreign`` is a project file that was not used, because it or its folder is another user's.
    """

    folder: Path
    exists: bool
    foreign: Path | None = None


def find_project(folder: Path, *, starts: bool = False) -> FoundProject:
    """Find the project that a folder is in: in the folder itself, or else in the nearest above.

    A project has an ``fdeploy.toml``, or records of earlier commands. Records in a folder above do
    not count in the home folder, nor for a command that ``starts`` a project by naming a learner.
    The search ends with the root of a repository and with the home folder, and before another file
    system or a folder or file of another user: the settings may name code to run.
    """
    if _marker(folder, records=True) is not None:
        return FoundProject(folder, exists=True)
    home, below = _home(), folder
    for above in folder.parents:
        if below == home or (below / ".git").exists():
            break
        marker = _marker(above, records=not starts and above != home)
        if not _are_own(above, marker or above, device_of=folder):
            foreign = marker if marker and marker.name == PROJECT_FILE else None
            return FoundProject(folder, exists=False, foreign=foreign)
        if marker is not None:
            return FoundProject(above, exists=True)
        below = above
    return FoundProject(folder, exists=False)


def _marker(folder: Path, *, records: bool) -> Path | None:
    """What makes a folder a project: its file, or its ``records``."""
    if os.path.lexists(folder / PROJECT_FILE):
        return folder / PROJECT_FILE
    return folder / files.WORKSPACE if records and _has_records(folder) else None


def _are_own(*paths: Path, device_of: Path) -> bool:
    """Whether paths belong to this user and are on the same file system as another one."""
    try:
        found = [path.lstat() for path in paths]
        device = device_of.stat().st_dev
    except OSError:
        return False
    return all(each.st_uid == os.geteuid() and each.st_dev == device for each in found)


def _has_records(folder: Path) -> bool:
    """Whether fdeploy keeps anything about a stage below a folder."""
    inside = folder / files.WORKSPACE
    kept = {"local", "aws", *(f"{command}.json" for command in COMMANDS.values())}
    try:
        return any(kept & set(files.names_in(inside / stage)) for stage in _folders_in(inside))
    except FileError:  # a link, or another user's
        return False


def deployed_stages(root: Path) -> tuple[str, ...]:
    """The stages of a project's folder that have the record of a deploy, in order."""
    inside, record = root / files.WORKSPACE, f"{COMMANDS[Endpoint]}.json"
    try:
        folders = sorted(_folders_in(inside))
        return tuple(each for each in folders if record in files.names_in(inside / each))
    except FileError:  # a link, or another user's
        return ()


def _folders_in(folder: Path) -> Iterator[str]:
    return (name for name in files.names_in(folder) if (folder / name).is_dir())


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except (OSError, RuntimeError):  # a container's user may have none
        return None


class Workspace:
    """The records and outputs of one stage of one project.

    ``learner`` is the argument that hints give to ``export`` and ``up``; empty if none is needed.
    """

    def __init__(self, root: Path, stage: str, *, learner: str = "learner.pkl") -> None:
        self.stage = stage
        self._learner = learner
        self.folder = root / files.WORKSPACE / stage
        self.bundle = self.folder / "bundle"
        self.artifact = self.folder / "model.tar.gz"
        self.local = self.folder / "local"
        self.aws = self.folder / "aws"
        self.environments = root / files.WORKSPACE / "environments"
        self.base_image = root / files.WORKSPACE / "base-image.json"
        self.collection = self.folder / "collection.json"
        self.bench = self.folder / "bench.json"

    def save(self, record: Record) -> None:
        """Write a stage's record, replacing the previous one atomically. Raises FileError."""
        self._prepare()
        path = self._record(type(record))
        try:
            data = (json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError as error:
            raise FileError(
                f"{path} cannot store the path {error.object[:200]!a}: it is not valid UTF-8",
                hint="rename the folder or the file, then run the same command again",
            ) from None
        files.write(path, data)

    def read(self, kind: type[R]) -> R | None:
        """The record of a stage, or None if there is none.

        Raises FileError if the file is damaged or from another version of fdeploy; the hint names
        the command that rewrites it.
        """
        path = self._record(kind)
        try:
            reader = read_object(path, f"run fdeploy {COMMANDS[kind]}, which rewrites it")
        except FileMissing:
            return None
        return restored(kind, reader)

    def find(self, kind: type[R]) -> R | None:
        """The record of a stage, or None if there is none or it is unreadable.

        Raises FileError if something other than a file is in its place.
        """
        try:
            return self.read(kind)
        except FileError:
            if files.size_of(self._record(kind)) is None:
                raise
            return None

    def need(self, kind: type[R]) -> R:
        """The record of a stage.

        Raises RecordMissing, which names every command to run, or FileError for a damaged one.
        """
        record = self.read(kind)
        if record is None:
            raise RecordMissing(
                f"fdeploy {COMMANDS[kind]} has not been run in this folder for stage {self.stage} "
                "yet",
                hint=f"run {self._way_to(kind)}",
            )
        return record

    def _way_to(self, kind: type[R]) -> str:
        """The commands from the first stage that has no record to the one that writes ``kind``."""
        wanted = list(COMMANDS).index(kind)
        stages = [COMMANDS[each] for each in list(COMMANDS)[: wanted + 1]]
        first = next(at for at, each in enumerate(COMMANDS) if self.find(each) is None)
        learner = f" {shlex.quote(self._learner)}" if self._learner else ""
        if first == 0 and wanted > 1:
            return f"fdeploy up{learner}"
        if first == 0:
            stages[0] += learner
        return " && ".join(f"fdeploy {stage}" for stage in stages[first:])

    def forget(self, *kinds: type[Record]) -> None:
        """Remove the records of stages whose results are gone."""
        for kind in kinds:
            files.remove(self._record(kind))

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Lock the stage for one command. Raises WorkspaceBusy if another command holds the lock.

        It is a file lock of the operating system, released when the process ends for any reason.
        """
        self._prepare()
        descriptor = files.open_regular(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        # A lock file that is a hard link to another file is locked but never written to.
        ours = os.fstat(descriptor).st_nlink == 1
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _HOLDER.match(os.pread(descriptor, 200, 0).decode(errors="replace"))
                raise WorkspaceBusy(
                    f"{holder[0] if holder else 'another fdeploy command'} is running in stage "
                    f"{self.stage}",
                    hint="wait for it to finish, or use another --stage",
                ) from None
            if ours:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"fdeploy {command} (process {os.getpid()})".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    @property
    def durations(self) -> Path:
        """How long the stages took the last time."""
        return self.folder / "durations.json"

    def made(self) -> tuple[str, ...]:
        """The bundle and the artifact that are here; teardown keeps them for the next deploy."""
        return tuple(str(path) for path in (self.bundle, self.artifact) if path.exists())

    def _prepare(self) -> None:
        """Create the folder and have git ignore it: it holds an API key and large files."""
        prepare(self.folder)

    def _record(self, kind: type) -> Path:
        return self.folder / f"{COMMANDS[kind]}.json"


def prepare(folder: Path) -> None:
    """Make a folder below ``.fdeploy`` and have git ignore all of that."""
    files.make_folder(folder)
    base = next(each for each in (folder, *folder.parents) if each.name == files.WORKSPACE)
    if ".gitignore" not in files.names_in(base):
        files.write(base / ".gitignore", b"*\n")


def parsed(kind: type[T], data: bytes, where: str, hint: str) -> T:
    """Build a record from the bytes of a JSON object. Raises FileError with ``hint``."""
    try:
        return restored(kind, Reader(parse(data), where, hint))
    except BadJson as error:
        raise FileError(f"{where}: {error}", hint=hint) from None


def restored(kind: type[T], reader: Reader) -> T:
    """Build a record from JSON, checking each field's type. Raises FileError, naming the key."""
    types = get_type_hints(kind)
    unknown = sorted(set(reader.value) - set(types))
    if unknown:
        reader.wrong(ascii(unknown[0][:40]), "unknown key for this version of fdeploy")
    return kind(
        **{
            field.name: _value(reader, field.name, types[field.name])
            for field in fields(kind)  # type: ignore[arg-type]  # records are dataclasses
            if field.name in reader.value or field.default is MISSING
        }
    )


def _value(reader: Reader, name: str, wanted: Any) -> Any:
    """Read the value of one field. Raises FileError."""
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
    """Whether this can be a path: within the length limits and without a NUL character."""
    return "\0" not in text and len(text) < _PATH_MAX and max(map(len, text.split("/"))) < _NAME_MAX


def _is_url(text: str) -> bool:
    return bool(_URL.fullmatch(text))


# The form of each text field, by its name; any other text field may hold any text.
_PATH = (_is_path, "a path")
_ANYTHING = (lambda _text: True, "text")
_HASH = (re.compile("[0-9a-f]{0,64}").fullmatch, "a SHA-256 in hexadecimal")
_ADDRESS = (_is_url, "a URL")
_ACCOUNT = (re.compile("([0-9]{12})?").fullmatch, "an AWS account of 12 digits")
# Texts are sent there, so a record must not name another machine.
_BACKEND = (re.compile(r"(http://127\.0\.0\.1:[0-9]{1,5})?").fullmatch, "a URL on 127.0.0.1")
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
    "account": _ACCOUNT,
    "backend_url": _BACKEND,
}

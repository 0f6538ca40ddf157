"""A run that has not ended: a folder beside the output, from which the next run continues.

    reviews.csv.partial/
        run.json        what is answered: the input's hash and layout, the options, the model
        answers.jsonl   the answers so far, in the order of the rows: a line for a few hundred rows
        input...        a copy of an input on S3
        lock            held by the process that works on it

Answers are appended as they arrive. A process that is killed can leave half a last line, which the
next run cuts off. The output itself is written once every row has its answer, and the folder is
removed after that.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastai_deploy import files
from fastai_deploy.batch_invoke.rows import Layout
from fastai_deploy.errors import DiskFull, FileError, FileMissing, UsageError, WorkspaceBusy
from fastai_deploy.json_reader import Reader, read_object

_RUN, _ANSWERS, _LOCK = "run.json", "answers.jsonl", "lock"
_SCHEMA = 1
_HEAD = re.compile(rb'\{"first":(\d{1,15}),"count":(\d{1,9}),"answers":')


@dataclass(frozen=True)
class Asked:
    """What a run was started with; a run only continues one that was asked the same.

    ``input`` is a path or a URI, ``sha256`` the hash of its content (for S3, its ETag), ``model``
    the version of the model and ``by`` what asks it. ``options`` are those of the command line that
    change an answer or the rows, as typed.
    """

    input: str
    bytes: int
    sha256: str
    model: str
    by: str
    options: str


class Unfinished:
    """The folder of one run. Use :func:`opened`."""

    def __init__(self, folder: Path, asked: Asked) -> None:
        self.folder = folder
        self.asked = asked
        self.layout: Layout | None = None
        self.way: str | None = None
        self.done = 0
        self._path = folder / _ANSWERS

    def begin(self, layout: Layout) -> None:
        """Write down a new run."""
        self.layout = layout
        files.write(self._path, b"")
        self._save()

    def use(self, way: str) -> None:
        """Write down what answers, so that the rest is answered by the same."""
        if way != self.way:
            self.way = way
            self._save()

    def add(self, count: int, answers: bytes) -> None:
        """Append the answers to the next ``count`` rows, a JSON list. Raises FileError."""
        head = b'{"first":%d,"count":%d,"answers":' % (self.done, count)
        descriptor = files.open_regular(self._path, os.O_WRONLY | os.O_APPEND, follow=False)
        try:
            with files.file_errors(self._path), os.fdopen(descriptor, "ab") as file:
                file.write(head + answers + b"}\n")
        except DiskFull as error:
            raise DiskFull(
                f"{error.message}; {self.done:,} rows are answered and kept",
                hint="free some space and run the same command again to continue",
            ) from None
        self.done += count

    def answers(self) -> Iterator[Mapping[str, Any]]:
        """The answers to all rows so far, in order. Raises FileError if the file was changed."""
        with files.reading(self._path, follow=False) as file:
            for number, line in enumerate(file, 1):
                try:
                    found = json.loads(line)
                    answers = found["answers"]
                    whole = len(answers) == found["count"]
                except (ValueError, TypeError, KeyError):
                    whole = False
                if not whole:
                    raise FileError(
                        f"{self._path}, line {number}: damaged", hint=_start_again(self.folder)
                    )
                yield from answers

    def remove(self) -> None:
        """Remove the folder: the output has everything."""
        files.remove_tree(self.folder)

    def find(self) -> None:
        """Read what an earlier run left. Raises UsageError if that run was asked something else."""
        again = _start_again(self.folder)
        try:
            run = read_object(self.folder / _RUN, again)
        except FileMissing:
            return
        before = run.section("asked")
        for name, value in asdict(self.asked).items():
            if before.value.get(name) != value:
                raise _differs(name, before.value, self.asked, self.folder)
        self.layout = _layout(run.section("layout"))
        self.way = run.value.get("way") if isinstance(run.value.get("way"), str) else None
        self.done = self._count()

    def _save(self) -> None:
        if self.layout is None:
            return
        values = {
            "schema": _SCHEMA,
            "asked": asdict(self.asked),
            "layout": asdict(self.layout),
            "way": self.way,
        }
        files.write(self.folder / _RUN, json.dumps(values, indent=2).encode() + b"\n")

    def _count(self) -> int:
        """The number of answered rows, after cutting off what was not written to its end."""
        done = whole = 0
        try:
            with files.reading(self._path, follow=False) as file:
                for line in file:
                    head = _HEAD.match(line)
                    if head is None or int(head[1]) != done or not line.endswith(b"]}\n"):
                        break
                    done += int(head[2])
                    whole += len(line)
        except FileMissing:
            files.write(self._path, b"")
        descriptor = files.open_regular(self._path, os.O_WRONLY, follow=False)
        with files.file_errors(self._path), os.fdopen(descriptor, "r+b") as file:
            file.truncate(whole)
        return done


@contextmanager
def opened(folder: Path, asked: Asked, *, overwrite: bool) -> Iterator[Unfinished]:
    """The run in ``folder``, new or as it was left; with ``overwrite`` always new.

    Raises WorkspaceBusy if another process works on it, UsageError if it is another run, FileError.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and _is_ours(folder))):
        raise FileError(
            f"{folder} is in the way: it is not the folder of an unfinished run",
            hint="rename it, or choose another output",
        )
    files.make_folder(folder)
    lock = files.open_regular(folder / _LOCK, os.O_RDWR | os.O_CREAT, follow=False)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceBusy(
                f"another fdeploy is writing to {folder}",
                hint="wait for it to finish, or choose another output",
            ) from None
        run = Unfinished(folder, asked)
        if overwrite:
            for name in files.names_in(folder):
                if name != _LOCK:
                    files.remove(folder / name)
        else:
            run.find()
        yield run
    finally:
        os.close(lock)
        if folder.exists() and _RUN not in files.names_in(folder):  # nothing was begun
            with suppress(FileError):
                files.remove_tree(folder)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is that of a run: it holds nothing, or a run's files."""
    names = set(files.names_in(folder))
    return not names or bool(names & {_RUN, _LOCK})


def _layout(reader: Reader) -> Layout:
    return Layout(
        reader.integer("rows"),
        reader.texts("columns"),
        reader.texts("kinds"),
        reader.text("text"),
    )


_NAMED = {
    "input": "it was started with another input, {before[input]}",
    "bytes": "the input has changed since it began",
    "sha256": "the input has changed since it began",
    "model": "the model has changed since it began",
    "by": "it was started with {before[by]}",
    "options": "it was started with other options ({before[options]})",
}


def _differs(name: str, before: Mapping[str, Any], now: Asked, folder: Path) -> UsageError:
    shown = {key: str(value)[:200] or "none" for key, value in before.items()}
    shown = {**dict.fromkeys(asdict(now), "unknown"), **shown}
    return UsageError(
        f"{folder} holds an unfinished run that cannot be continued: "
        f"{_NAMED[name].format(before=shown)}",
        hint="add --overwrite to start again, or finish it first with the same input and options",
    )


def _start_again(folder: Path) -> str:
    return f"rm -r {shlex.quote(str(folder))}, then run the same command again"

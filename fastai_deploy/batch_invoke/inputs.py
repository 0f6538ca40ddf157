"""Reads the texts to classify from the command line, standard input or a file.

    -                           all of standard input, as one text
    an existing file            read according to its suffix:
      .csv .tsv                   a column of a table
      .jsonl .ndjson .json        strings, or objects with the column as a key
      .parquet                    a column of a table
      any other or none           the whole file, as one text
    anything else               the text itself

An ambiguous argument is an error that explains both readings: a name with a file suffix that does
not exist, a folder, a URL. A file is read and checked completely before anything is sent.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from fastai_deploy import files
from fastai_deploy.batch_invoke.formats import (
    FOREIGN,
    SUFFIXES,
    check_format,
    check_known,
    check_no_nul,
    has_format,
    is_table,
    not_utf8,
)
from fastai_deploy.batch_invoke.opening import open_source
from fastai_deploy.batch_invoke.tables import ColumnChoice
from fastai_deploy.batch_invoke.text_formats import MOST
from fastai_deploy.errors import FileDenied, FileError, FileMissing, UsageError

STANDARD_INPUT = "-"
_PLAIN = (".txt",)
_AT_ONCE = 1_000  # texts
_KNOWN = frozenset((*SUFFIXES, *_PLAIN, *FOREIGN))
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://\S+")
_PATH = re.compile(r"(\.{1,2}|~)/\S*")
_NAME_MAX = 255  # bytes of a file name, see limits.h

Notify = Callable[[str], None]


def read_texts(
    argument: str, wanted: ColumnChoice, stdin: BinaryIO, notify: Notify
) -> str | list[str]:
    """Read one text, or the texts of a table or JSON file; ``notify`` receives what was decided.

    Raises UsageError or FileError, naming the line.
    """
    if argument == STANDARD_INPUT:
        _check_plain(wanted, "standard input")
        return _decoded(_all_of(stdin))
    path = _path(argument)
    suffix = path.suffix.lower()
    if not _exists(path, argument):
        if _is_meant_as_file(argument.strip()):
            raise _missing(argument)
        _check_plain(wanted, "a text")
        return _checked(argument)
    check_known(path)
    if has_format(path):
        return _texts(path, wanted, notify)
    if not wanted.header:
        raise UsageError(
            f"{path} is not a table", hint="use --no-header only with .csv and .tsv files"
        )
    _check_plain(wanted, str(path))
    content = _content(path)
    if suffix not in _PLAIN:
        notify(
            f"{argument} is a file and is classified as one text; for many texts, use a .csv, "
            ".tsv, .json or .jsonl file"
        )
    return content


def read_file_texts(argument: str, wanted: ColumnChoice, notify: Notify) -> list[str]:
    """Read the texts of a file, which must exist; see :func:`read_texts`."""
    if not _exists(_path(argument), argument):
        raise FileMissing(f"{argument} does not exist", hint="check the path")
    found = read_texts(argument, wanted, io.BytesIO(), notify)
    return [found] if isinstance(found, str) else found


def for_output(output: Path | None, argument: str) -> str | None:
    """The path of the answer file. Raises UsageError if it is the file of texts."""
    if output is None:
        return None
    path, texts = files.expanded(output).absolute(), _path(argument).absolute()
    same = path == texts
    with contextlib.suppress(OSError, ValueError):
        same = same or path.samefile(texts)
    if same:
        raise UsageError(f"{output} is the input file", hint="choose another --output")
    return str(path)


def file_for_table(output: Path | None, argument: str, *, overwrite: bool) -> str | None:
    """The output, if it is a table, which needs a file with rows; else None. Raises UsageError."""
    if output is None or not is_table(output):
        if overwrite:
            raise UsageError(
                "--overwrite is for a table of answers",
                hint="leave it out, or name a .csv, .tsv or .parquet file with --output",
            )
        return None
    if not has_format(_path(argument)):
        raise UsageError(
            f"{output} gets the columns of a file, and this is no {', '.join(SUFFIXES[:-1])} file",
            hint="add --output answers.jsonl for a text, or leave the option out",
        )
    return str(output)


def _path(argument: str) -> Path:
    return files.expanded(Path(argument)) if argument.startswith("~/") else Path(argument)


def _exists(path: Path, argument: str) -> bool:
    """Whether a file of this name exists. Raises FileError for a folder, a pipe or a device."""
    if not argument:
        return False
    try:
        kind = path.stat().st_mode
    except PermissionError:
        raise FileDenied(
            f"{argument} cannot be accessed", hint="check the permissions of its folder"
        ) from None
    except (OSError, ValueError):  # no such file, a name that is too long or has a NUL: a text
        return os.path.islink(path)  # noqa: PTH114 - never raises, whatever the name
    if stat.S_ISDIR(kind):
        raise FileError(
            f"{argument} is a folder", hint=f"choose a file in it; {_as_text('the word itself')}"
        )
    if not stat.S_ISREG(kind):
        raise FileError(
            f"{argument} is not a regular file", hint="pipe its content into fdeploy invoke -"
        )
    return True


def _is_meant_as_file(argument: str) -> bool:
    """Whether an argument that is not a file looks like a file name."""
    if _ADDRESS.fullmatch(argument):
        raise UsageError(
            f"{argument} is a URL, and fdeploy does not download it",
            hint=f"{_fetched(argument)}, then use the file; {_as_text('the URL itself')}",
        )
    if "\n" in argument or len(argument.rpartition("/")[2].encode(errors="replace")) > _NAME_MAX:
        return False
    return Path(argument).suffix.lower() in _KNOWN or bool(_PATH.fullmatch(argument))


def _fetched(address: str) -> str:
    if address.startswith("s3://"):
        return f"aws s3 cp {address} ."
    return f"curl -O {address}" if address.startswith("http") else "download it first"


def _as_text(what: str) -> str:
    return f'to classify {what}: echo "..." | fdeploy invoke -'


def _missing(argument: str) -> FileMissing:
    return FileMissing(
        f"{argument} does not exist", hint=f"check the path; {_as_text('these words')}"
    )


def _check_plain(wanted: ColumnChoice, what: str) -> None:
    """Raise UsageError for options that only apply to tables and JSON."""
    if wanted.column is not None or not wanted.header:
        option = "--no-header" if wanted.column is None else "--column"
        raise UsageError(
            f"{option} does not apply to {what}",
            hint="use a .csv, .tsv, .json or .jsonl file, or leave the option out",
        )


def _texts(path: Path, wanted: ColumnChoice, notify: Notify) -> list[str]:
    """The texts of a table or a JSON file."""
    source = open_source(path, wanted, notify, every_text=True)
    size = files.size_of(path)
    if size is not None and size > MOST:
        raise files.too_large(path, MOST)
    layout = source.scan(None)
    if not layout.rows:
        raise FileError(f"{path} contains no texts", hint="use a file with at least one text")
    return [
        text for batch in source.batches(layout, _AT_ONCE, texts_only=True) for text in batch.texts
    ]


def _content(path: Path) -> str:
    data = files.read(path, most=MOST)
    check_format(path, data)
    content = _decoded(data, path)
    check_no_nul(path, nul="\0" in content)
    return content


def _all_of(stdin: BinaryIO) -> bytes:
    data = stdin.read(MOST + 1)
    if len(data) > MOST:
        raise UsageError(f"standard input has more than {MOST:,} bytes", hint="send less")
    return data


def _decoded(data: bytes, path: Path | None = None) -> str:
    """The text in a file, or on standard input if there is no ``path``."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeError:
        if path is not None:
            raise not_utf8(path) from None
        raise _no_utf8_text() from None


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeError:
        raise _no_utf8_text() from None
    return text


def _no_utf8_text() -> UsageError:
    return UsageError("the text is not UTF-8", hint="save it as UTF-8")

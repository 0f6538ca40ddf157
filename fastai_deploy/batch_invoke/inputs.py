"""Reads the texts to classify from the command line, standard input or a file.

    -                           all of standard input, as one text
    an existing file            read according to its suffix:
      .csv .tsv                   a column of a table
      .jsonl .ndjson .json        strings, or objects with the column as a key
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.batch_invoke.tables import (
    COLUMN,
    ColumnChoice,
    bad_line,
    no_column,
    read_table_texts,
)
from fastai_deploy.errors import FileDenied, FileError, FileMissing, UsageError
from fastai_deploy.json_reader import BadJson, parse

STANDARD_INPUT = "-"
MOST = 512 << 20  # size limit, in bytes, of a file or of standard input
_LINES = (".jsonl", ".ndjson")
_JSON = (".json",)
_TABLES = (".csv", ".tsv")
_PLAIN = (".txt",)
_UNPACK = "unpack it first"
_SAVE = "save the texts as CSV in UTF-8"
_CONVERT = "convert it to CSV, for example with pandas.read_parquet(NAME).to_csv(NAME)"
# Formats that are not supported, and what to do instead.
_FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), ("a spreadsheet", _SAVE)),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar"),
                    ("compressed", _UNPACK)),
    **dict.fromkeys((".parquet", ".feather", ".arrow", ".orc", ".avro", ".db", ".sqlite", ".h5"),
                    ("a binary table", _CONVERT)),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz", ".pt"), ("a Python object", _SAVE)),
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt", ".rtf"),
                    ("a document", "save its text as .txt in UTF-8")),
}  # fmt: skip
# The same formats by their first bytes, for a file with another suffix.
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"PAR1": ".parquet",
    b"%PDF": ".pdf",
    b"\xd0\xcf\x11\xe0": ".xls",
    b"SQLite format 3": ".sqlite",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_KNOWN = frozenset((*_LINES, *_JSON, *_TABLES, *_PLAIN, *_FOREIGN))
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
        return _decoded(_all_of(stdin), "the text")
    path = _path(argument)
    suffix = path.suffix.lower()
    if not _exists(path, argument):
        if _is_meant_as_file(argument.strip()):
            raise _missing(argument)
        _check_plain(wanted, "a text")
        return _checked(argument)
    if suffix in _FOREIGN:
        raise _foreign(path, suffix)
    content = _content(path)
    if suffix in _TABLES:
        return _some(path, read_table_texts(path, content, wanted, notify))
    if not wanted.header:
        raise UsageError(
            f"{path} is not a table", hint="use --no-header only with .csv and .tsv files"
        )
    if suffix in _LINES:
        return _some(path, _json_lines(path, content, wanted.column))
    if suffix in _JSON:
        return _some(path, _json(path, content, wanted.column))
    _check_plain(wanted, str(path))
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


def _foreign(path: Path, suffix: str) -> FileError:
    what, way = _FOREIGN[suffix]
    return FileError(f"{path} is {what}, which fdeploy does not read", hint=way)


def _check_plain(wanted: ColumnChoice, what: str) -> None:
    """Raise UsageError for options that only apply to tables and JSON."""
    if wanted.column is not None or not wanted.header:
        option = "--no-header" if wanted.column is None else "--column"
        raise UsageError(
            f"{option} does not apply to {what}",
            hint="use a .csv, .tsv, .json or .jsonl file, or leave the option out",
        )


def _some(path: Path, found: Iterator[str]) -> list[str]:
    texts = list(found)
    if not texts:
        raise FileError(f"{path} contains no texts", hint="use a file with at least one text")
    return texts


def _json_lines(path: Path, content: str, column: str | None) -> Iterator[str]:
    """The texts of a JSON Lines file: strings, or objects with the column as a key."""
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = parse(line, halves=True)
        except BadJson as error:
            raise bad_line(path, number, str(error)) from None
        yield _text(path, value, column, number)


def _json(path: Path, content: str, column: str | None) -> Iterator[str]:
    """The texts of a JSON list."""
    key = column or COLUMN
    expected = f'write a list: ["...", "..."] or [{{"{key}": "..."}}, ...]'
    try:
        values = parse(content, halves=True)
    except BadJson as error:
        several = "Extra data" in str(error)
        lines = "; if the file has one value per line, rename it to .jsonl" if several else ""
        raise FileError(f"{path}: {error}", hint=f"{expected}{lines}") from None
    if not isinstance(values, list):
        raise FileError(f"{path} contains JSON that is not a list", hint=expected)
    for number, value in enumerate(values, 1):
        yield _text(path, value, column, number, unit="item")


def _text(path: Path, value: Any, column: str | None, number: int, unit: str = "line") -> str:
    """The text of a value: a string itself, or an object's value of the column."""
    key = column or COLUMN
    if isinstance(value, dict):
        if key not in value:
            raise no_column(path, key, list(value), number)
        value = value[key]
    if not isinstance(value, str):
        raise FileError(
            f'{path}, {unit} {number}: not a text; expected "..." or {{"{key}": "..."}}',
            hint=f"fix the {unit}, then run the command again; nothing was sent",
        )
    return value


def _content(path: Path) -> str:
    data = files.read(path, most=MOST)
    if data.startswith(_UTF16):
        raise UsageError(
            f"{path} is UTF-16, not UTF-8",
            hint=f'save it as UTF-8, or run iconv -f UTF-16 -t UTF-8 "{path}" > utf8{path.suffix}',
        )
    for magic, suffix in _MAGIC.items():
        if data.startswith(magic):
            raise _foreign(path, suffix)
    content = _decoded(data, str(path))
    if "\0" in content:
        raise FileError(f"{path} is not a table or a text: it contains NUL bytes", hint=_SAVE)
    return content


def _all_of(stdin: BinaryIO) -> bytes:
    data = stdin.read(MOST + 1)
    if len(data) > MOST:
        raise UsageError(f"standard input has more than {MOST:,} bytes", hint="send less")
    return data


def _decoded(data: bytes, subject: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeError:
        raise UsageError(f"{subject} is not UTF-8", hint="save it as UTF-8") from None


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeError:
        raise UsageError("the text is not UTF-8", hint="save it as UTF-8") from None
    return text

"""Which formats are read and written, and how a file's name and its first bytes say so.

.csv .tsv                 a table in UTF-8
.jsonl .ndjson .json      objects, or strings
.parquet                  with pyarrow (the extra batch)
.csv.gz .jsonl.gz ...     the same, compressed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastai_deploy.errors import FileError, UsageError

TABLES = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
LISTS = (".json",)
PARQUET = (".parquet", ".pq")
_UNPACK = "unpack it first"
_SAVE = "save the texts as CSV in UTF-8"
_CONVERT = (
    "convert it to Parquet or CSV, for example with pandas.read_feather(NAME).to_parquet(NAME)"
)
FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), ("a spreadsheet", _SAVE)),
    **dict.fromkeys((".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar"),
                    ("compressed", _UNPACK)),
    **dict.fromkeys((".feather", ".arrow", ".orc", ".avro", ".db", ".sqlite", ".h5"),
                    ("a binary table", _CONVERT)),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz", ".pt"), ("a Python object", _SAVE)),
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt", ".rtf"),
                    ("a document", "save its text as .txt in UTF-8")),
}  # fmt: skip
"""Formats that are not supported, by suffix, and what to do instead."""
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
_ELSEWHERE = {
    ".gz": (
        "compressed",
        "unpack it, or name it .csv.gz or .jsonl.gz",
    ),
    ".parquet": ("a binary table", "rename it to .parquet"),
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = ".gz"
SUFFIXES = (*TABLES, *LINES, *LISTS, *PARQUET, _GZIP)
_NAMES = ".csv, .tsv, .jsonl, .ndjson, .json or .parquet"


def format_of(path: Path) -> str:
    """The suffix that names the format, without ``.gz``. Raises UsageError for any other."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == _GZIP:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    known = (*TABLES, *LINES, *LISTS, *PARQUET)
    if suffix not in known or (is_gzip(path) and suffix in (*LISTS, *PARQUET)):
        raise UsageError(
            f"{path.name}: the name does not say the format",
            hint=f"use a name that ends with {_NAMES}; tables and lines also with .gz",
        )
    return suffix


def has_format(path: Path) -> bool:
    """Whether the name says a format."""
    return path.suffix.lower() in SUFFIXES


def is_table(path: Path) -> bool:
    """Whether the name says CSV, TSV or Parquet."""
    suffix = Path(path.stem).suffix if is_gzip(path) else path.suffix
    return suffix.lower() in (*TABLES, *PARQUET)


def check_known(path: Path) -> None:
    """Raise FileError for a file whose name says a format that is not read."""
    suffix = path.suffix.lower()
    if suffix in FOREIGN:
        raise _foreign(path, suffix)


def not_utf8(path: Path) -> UsageError:
    """The error for a text or table in another encoding."""
    hint = "save it as UTF-8"
    if path.suffix != _GZIP:
        to = f"utf8{path.suffix}"
        hint += f'; if Excel or Windows wrote it: iconv -f WINDOWS-1252 -t UTF-8 "{path}" > {to}'
    return UsageError(f"{path} is not UTF-8", hint=hint)


def check_format(path: Path, data: bytes) -> None:
    """Check by the first bytes of a file that it is text. Raises UsageError or FileError."""
    if data.startswith(_UTF16):
        raise UsageError(
            f"{path} is UTF-16, not UTF-8",
            hint=f'save it as UTF-8, or run iconv -f UTF-16 -t UTF-8 "{path}" > utf8{path.suffix}',
        )
    for magic, suffix in _MAGIC.items():
        if data.startswith(magic):
            raise _foreign(path, suffix)


def check_no_nul(path: Path, *, nul: bool) -> None:
    """Raise FileError for a file with NUL bytes, which is no text."""
    if nul:
        raise FileError(f"{path} is not a table or a text: it contains NUL bytes", hint=_SAVE)


def _foreign(path: Path, suffix: str) -> FileError:
    what, way = {**FOREIGN, **_ELSEWHERE}[suffix]
    return FileError(f"{path} is {what}, which fdeploy does not read under this name", hint=way)


def check_columns(columns: Sequence[str], path: Path) -> None:
    """Check that the output can have the columns of the input. Raises UsageError."""
    if format_of(path) in TABLES:
        return
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"the input has two columns named {twice}, and {path.name} can have only one",
            hint="rename one of them, or write a .csv file",
        )


def is_gzip(path: Path) -> bool:
    """Whether the name says that the file is compressed."""
    return path.suffix.lower() == _GZIP

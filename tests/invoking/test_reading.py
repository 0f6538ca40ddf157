"""The texts that a user brings: taken as they are meant, or refused with the line that is wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.errors import FdeployError, FileError, FileMissing, UsageError
from fastai_deploy.invoking.reading import for_output, texts_of

NO_INPUT = io.BytesIO()


def of_file(folder: Path, name: str, content: bytes | str, column: str | None = None) -> object:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return texts_of(str(path), column, NO_INPUT)


@pytest.mark.parametrize(
    "text", ["a text", "see data.csv", "Node.js", "3.5", "", ".", "nul\0", "x" * 5_000, "a/b/c"]
)
def test_words_are_words(text: str) -> None:
    assert texts_of(text, None, NO_INPUT) == text


def test_standard_input_is_one_text() -> None:
    assert texts_of("-", None, io.BytesIO("\ufeffzwei\nZeilen é".encode())) == "zwei\nZeilen é"


@pytest.mark.parametrize(
    ("name", "content", "column", "texts"),
    [
        ("a.jsonl", '{"text": "a"}\n\n"b"\r\n{"text": "c", "more": 1}\n', None, ["a", "b", "c"]),
        ("a.ndjson", '\ufeff{"review": "a"}', "review", ["a"]),
        ("a.csv", "text\na\n", None, ["a"]),
        ("a.csv", 'id,text\n1,"a, b\nc ""d"""\n2,\n\n', None, ['a, b\nc "d"', ""]),
        ("a.csv", "\ufeffid;review\r\n1;a, b\r\n", "review", ["a, b"]),
        ("a.CSV", "only\na\nb\n", None, ["a", "b"]),
        ("a.tsv", "id\ttext\n1\ta; b, c\n", None, ["a; b, c"]),
        ("a.csv", "text\n" + "x" * 300_000 + "\n", None, ["x" * 300_000]),
        ("a.txt", "a\nb\n", None, "a\nb\n"),
    ],
)
def test_a_file(tmp_path: Path, name: str, content: str, column: str | None, texts: object) -> None:
    before = csv.field_size_limit()
    assert of_file(tmp_path, name, content, column) == texts
    assert csv.field_size_limit() == before


SEVEN = '{"text": "a"}\n' * 6


@pytest.mark.parametrize(
    ("name", "content", "column", "expected"),
    [
        ("a.jsonl", SEVEN + "{text: 1}\n", None, (FileError, "line 7: not JSON: ")),
        ("a.jsonl", SEVEN + '{"text": 1}\n', None, (FileError, "line 7: no text")),
        ("a.jsonl", SEVEN + "[" * 100_000, None, (FileError, "line 7: not JSON")),
        ("a.jsonl", SEVEN + '{"txt": "a"}', None, (UsageError, "no column text; there is: txt")),
        ("a.jsonl", "", None, (FileError, "holds no texts")),
        ("a.jsonl", "\n \n", None, (FileError, "holds no texts")),
        ("a.csv", "", None, (FileError, "is empty")),
        ("a.csv", "id,text\n", None, (FileError, "holds no texts")),
        ("a.csv", "id,review\n1,a\n", None, (UsageError, "no column text; there is: id, review")),
        ("a.csv", "id,review\n1,a\n", "text ", (UsageError, "no column text ;")),
        ("a.csv", "id,text\n1,a\n2\n", None, (FileError, "line 3: 1 fields")),
        ("a.csv", "id,text\n1,a\n2,b,c\n", None, (FileError, "line 3: 3 fields")),
        ("a.csv", 'id,text\n1,"a\n', None, (FileError, "line 2: not CSV")),
        ("a.csv", 'id,text\n1,"a"b\n', None, (FileError, "line 2: not CSV")),
        ("a.csv", b"PK\x03\x04\x00\x00", None, (FileError, "not a table")),
        ("a.csv", b"\xff\xfet\x00e\x00", None, (UsageError, "not UTF-8")),
        ("a.jsonl", b"\x80\x02}q\x00.", None, (UsageError, "not UTF-8")),
        ("a.txt", b"\xff", None, (UsageError, "not UTF-8")),
    ],
)
def test_a_bad_file(
    tmp_path: Path,
    name: str,
    content: bytes | str,
    column: str | None,
    expected: tuple[type[FdeployError], str],
) -> None:
    error, message = expected
    with pytest.raises(error) as caught:
        of_file(tmp_path, name, content, column)
    assert message in caught.value.message
    assert name in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"a\.csv"):
        texts_of(str(tmp_path / "a.csv"), None, NO_INPUT)
    with pytest.raises(FileError):
        (tmp_path / "b.jsonl").mkdir()
        texts_of(str(tmp_path / "b.jsonl"), None, NO_INPUT)


def test_answers_do_not_go_where_the_texts_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(UsageError, match=r"a\.jsonl is the file"):
        for_output(tmp_path / "a.jsonl", str(path))
    assert for_output(tmp_path / "b.jsonl", str(path)) == str(tmp_path / "b.jsonl")
    assert for_output(None, "a text") is None


# What JSON and CSV can hold, as their own writers write it.
TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1)


@given(TEXTS)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    assert of_file(folder, "written.jsonl", lines) == texts
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["id", "text"], *enumerate(texts)])
    assert of_file(folder, "written.csv", table.getvalue()) == texts

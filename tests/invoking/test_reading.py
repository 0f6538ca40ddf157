"""Reading a user's texts: as they are meant, or rejected with the number of the bad line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.batch_invoke.inputs import for_output, read_texts
from fastai_deploy.batch_invoke.tables import ColumnChoice
from fastai_deploy.errors import FdeployError, FileError, FileMissing, UsageError

NO_INPUT = io.BytesIO()


ANY_COLUMN = ColumnChoice()


def read(argument: str, wanted: ColumnChoice = ANY_COLUMN, told: list[str] | None = None) -> object:
    return read_texts(argument, wanted, NO_INPUT, (told if told is not None else []).append)


def of_file(
    folder: Path,
    name: str,
    content: bytes | str,
    column: str | None = None,
    *,
    header: bool = True,
    told: list[str] | None = None,
) -> object:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(str(path), ColumnChoice(column, header=header), told)


@pytest.mark.parametrize(
    "text",
    [
        *("a text", "Node.js", "3.5", "", "...", "nul\0", "a/b/c", "e.g. this. Or that"),
        *("x" * 5_000, "x" * 300 + ".csv", "first line\nsecond.csv", "see http://x.example/ there"),
        "~nobody else",
    ],
)
def test_words_are_words(text: str) -> None:
    assert read(text) == text
    for_output(Path("answers.jsonl"), text)


def test_standard_input_is_one_text() -> None:
    given = io.BytesIO("\ufeffzwei\nZeilen é".encode())
    assert read_texts("-", ColumnChoice(), given, print) == "zwei\nZeilen é"


@pytest.mark.parametrize(
    ("name", "content", "column", "texts"),
    [
        ("a.jsonl", '{"text": "a"}\n\n"b"\r\n{"text": "c", "more": 1}\n', None, ["a", "b", "c"]),
        ("a.ndjson", '\ufeff{"review": "a"}', "review", ["a"]),
        ("a.csv", "text\na\n", None, ["a"]),
        ("a.csv", 'id,text\n1,"a, b\nc ""d"""\n2,\n\n', None, ['a, b\nc "d"', ""]),
        ("a.csv", "\ufeffid;review\r\n1;a, b\r\n", "review", ["a, b"]),
        ("a.CSV", "only\na\nb\n", "only", ["a", "b"]),
        ("My Reviews.csv", "text\na\n", None, ["a"]),
        ("a.csv", "\n\ntext\na\n", None, ["a"]),
        ("a.csv", "sep=;\r\nid;text\r\n1;a, b\r\n", None, ["a, b"]),
        ("a.csv", '"sep=|"\nid|text\n1|a;b\n', None, ["a;b"]),
        ("a.json", '["a", {"text": "b"}]', None, ["a", "b"]),
        ("a.JSON", '[{"review": "a", "text": "no"}]', "review", ["a"]),
        ("a.jsonl", '"\\ud800"', None, ["\ud800"]),
        ("a.tsv", "id\ttext\n1\ta; b, c\n", None, ["a; b, c"]),
        ("a.csv", "text\n" + "x" * 300_000 + "\n", None, ["x" * 300_000]),
        ("a.txt", "a\nb\n", None, "a\nb\n"),
        ("a.csv.gz", gzip.compress(b"id,text\n1,a\n", mtime=0), None, ["a"]),
        ("a.jsonl.gz", gzip.compress(b'"a"\n{"text": "b"}\n', mtime=0), None, ["a", "b"]),
    ],
)
def test_a_file(
    tmp_path: Path, name: str, content: str | bytes, column: str | None, texts: object
) -> None:
    before = csv.field_size_limit()
    assert of_file(tmp_path, name, content, column) == texts
    assert csv.field_size_limit() == before


SEVEN = '{"text": "a"}\n' * 6


@pytest.mark.parametrize(
    ("name", "content", "column", "expected"),
    [
        ("a.jsonl", SEVEN + "{text: 1}\n", None, (FileError, "line 7: not JSON: ")),
        ("a.jsonl", SEVEN + '{"text": 1}\n', None, (FileError, "line 7: not a text")),
        ("a.jsonl", SEVEN + "[" * 100_000, None, (FileError, "line 7: nested too deep")),
        ("a.jsonl", SEVEN + '{"txt": "a"}', None, (UsageError, "the columns are: txt")),
        ("a.jsonl", "", None, (FileError, "contains no texts")),
        ("a.jsonl", "\n \n", None, (FileError, "contains no texts")),
        ("a.csv", "", None, (FileError, "is empty")),
        ("a.csv", "id,text\n", None, (FileError, "contains no texts")),
        ("a.csv", "id,review\n1,a\n", None, (UsageError, "the columns are: id, review")),
        ("a.csv", "id,review\n1,a\n", "text ", (UsageError, "no column text ;")),
        ("a.csv", "id, text\n1, a\n", None, (UsageError, 'there is " text", with a space')),
        ("a.csv", "id,Text\n1,a\n", None, (UsageError, "no column text, but there is Text")),
        ("a.csv", "text,text\na,b\n", None, (UsageError, "2 columns are named text")),
        ("a.csv", "a good film\r\na bad film\r\n", None, (UsageError, "line 1: there is one col")),
        ("a.csv", "good\nbad\n", None, (UsageError, "good may be its name or a text")),
        ("a.csv", "id:text\n1:a\n", None, (UsageError, '"id:text" may be its name or a text')),
        ("a.csv", "sep=;\nid;text\n1;a;b\n", None, (FileError, "line 3: 3 fields, but line 2")),
        ("a.csv", "\r\n", None, (FileError, "is empty")),
        ("a.jsonl", '{"text": "a", "text": "b"}', None, (FileError, "line 1: duplicate key")),
        ("a.jsonl", SEVEN + "NaN", None, (FileError, "line 7: NaN")),
        ("a.json", '{"text": "a"}', None, (FileError, "JSON that is not a list")),
        ("a.json", '{"text": "a"}\n{"text": "b"}\n', None, (FileError, "Extra data")),
        ("a.json", "[]", None, (FileError, "contains no texts")),
        ("a.json", '["a", 1]', None, (FileError, "item 2: not a text")),
        ("a.json", '[{"text": "a", "text": "b"}]', None, (FileError, "duplicate key 'text'")),
        ("a.json", '[{"txt": "a"}]', None, (UsageError, "the columns are: txt")),
        ("a.json", "a text\n", None, (FileError, "not JSON")),
        ("a.json", "[" * 100_000, None, (FileError, "nested too deep")),
        ("a.csv", b"\xff\xfet\0e\0x\0t\0", None, (UsageError, "UTF-16")),
        ("a.csv", b"t\0e\0x\0t\0\n\0", None, (FileError, "NUL bytes")),
        ("a.xlsx", b"PK\x03\x04", None, (FileError, "a spreadsheet")),
        ("a.csv.gz", b"\x1f\x8b", None, (FileError, "is damaged")),
        ("a.txt.gz", b"\x1f\x8b", None, (UsageError, "does not say the format")),
        ("a", b"\x1f\x8b\x08", None, (FileError, "compressed")),
        ("a.parquet", b"PAR1", None, (FileError, "not a Parquet file")),
        ("a.feather", b"ARROW1", None, (FileError, "a binary table")),
        ("a.csv", b"PAR1", None, (FileError, "a binary table")),
        ("a.txt", b"PK\x03\x04\x00\x00", None, (FileError, "compressed")),
        ("a.txt", "a", "text", (UsageError, "--column does not apply")),
        ("a.csv", "id,text\n1,a\n2\n", None, (FileError, "line 3: 1 fields")),
        ("a.csv", "id,text\n1,a\n2,b,c\n", None, (FileError, "line 3: 3 fields")),
        ("a.csv", 'id,text\n1,"a\n', None, (FileError, "line 2: not CSV")),
        ("a.csv", 'id,text\n1,"a"b\n', None, (FileError, "line 2: not CSV")),
        ("a.csv", b"P\x03\x04\x00\x00", None, (FileError, "not a table")),
        ("a.csv", b"t\xe4xt", None, (UsageError, "not UTF-8")),
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


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_the_command_for_a_file_of_windows_converts_it(tmp_path: Path, name: str) -> None:
    texts = {"a.csv": "text\n“schön”\n", "a.jsonl": '"“schön”"\n', "a.txt": "“schön”"}
    with pytest.raises(UsageError) as caught:
        of_file(tmp_path, name, texts[name].encode("cp1252"))
    command = caught.value.hint.partition("wrote it: ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602 - what it prints
    made = (tmp_path / f"utf8{Path(name).suffix}").read_text("utf-8")
    assert made == texts[name]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("a.csv", "My Reviews.csv", "a.xlsx", "a.csv.gz", "a.json", "a.csv "):
        with pytest.raises(FileMissing, match="does not exist") as caught:
            read(str(tmp_path / name))
        assert "fdeploy invoke -" in caught.value.hint
    for path in ("./reviews", "../x", "~/nothing-of-this-name"):
        with pytest.raises(FileMissing):
            read(path)
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileMissing):
        read(str(tmp_path / "dangling.csv"))


def test_a_path_that_is_not_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for path, said in (
        (tmp_path / "b.jsonl", "is a folder"),
        (Path(), "is a folder"),
        (tmp_path / "pipe.csv", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(FileError, match=said):
            read(str(path))


@pytest.mark.parametrize("address", ["s3://bucket/reviews.csv", "https://x.example/a", "file:///a"])
def test_nothing_is_fetched(address: str) -> None:
    with pytest.raises(UsageError, match="is a URL, and fdeploy does not download it") as caught:
        read(address)
    assert "fdeploy invoke -" in caught.value.hint


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="is larger than"):
        read(str(path))


def test_a_file_of_another_name_is_read_and_said_so(tmp_path: Path) -> None:
    told: list[str] = []
    assert of_file(tmp_path, "my letter", "a\nb\n", told=told) == "a\nb\n"
    assert "is classified as one text" in told[0]


def test_a_table_without_a_header(tmp_path: Path) -> None:
    both = "a good film\r\na bad film\r\n"
    assert of_file(tmp_path, "a.csv", both, header=False) == ["a good film", "a bad film"]
    assert of_file(tmp_path, "a.csv", "text\na\n", header=False) == ["text", "a"]
    assert of_file(tmp_path, "b.csv", "1;a\n2;b\n", "2", header=False) == ["a", "b"]
    for column in (None, "0", "3", "text", "9" * 5_000):
        with pytest.raises(UsageError, match="a number from 1 to 2"):
            of_file(tmp_path, "b.csv", "1;a\n2;b\n", column, header=False)
    with pytest.raises(UsageError, match="--no-header does not apply"):
        read("a text", ColumnChoice(header=False))
    with pytest.raises(UsageError, match="not a table"):
        of_file(tmp_path, "a.jsonl", '"a"', header=False)


def test_decisions_are_reported(tmp_path: Path) -> None:
    told: list[str] = []
    assert of_file(tmp_path, "a.csv", "review\na\n", told=told) == ["a"]
    assert of_file(tmp_path, "a.csv", "sep=;\nid;text\n1;a\n", told=told) == ["a"]
    assert of_file(tmp_path, "a.csv", "id,text\n1,a\n", told=told) == ["a"]
    assert told == [
        "a.csv, line 1: using review as the column name",
        'a.csv, line 1: "sep=;" sets the separator and is not a text',
    ]


def test_answers_do_not_go_where_the_texts_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(UsageError, match=r"a\.jsonl is the input file"):
        for_output(tmp_path / "a.jsonl", str(path))
    assert for_output(tmp_path / "b.jsonl", str(path)) == str(tmp_path / "b.jsonl")
    assert for_output(None, "a text") is None
    path.write_bytes(b"")
    (tmp_path / "link.jsonl").symlink_to(path)
    with pytest.raises(UsageError, match="is the input file"):
        for_output(tmp_path / "link.jsonl", str(path))


# Arbitrary texts, written by the json and csv modules.
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

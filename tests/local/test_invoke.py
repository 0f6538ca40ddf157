"""``fdeploy invoke`` as a whole: it never guesses silently what its argument means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import result_of
from tests.local.stage import Ran, Stage, stage_that_was_up


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_that_was_up(tmp_path_factory.mktemp("serving")) as stage:
        stage.restore()
        stage.ok("deploy")
        yield stage


def texts(ran: Ran) -> list[str]:
    """The texts that were answered, in order."""
    assert ran.status == 0, ran.err
    return [result_of(line)["text"] for line in ran.out.splitlines()]


HEADERLESS = "this is a good film\r\nthis is a bad film\r\n"


@dataclass(frozen=True)
class File:
    """An input file, with options."""

    name: str
    content: str
    options: tuple[str, ...] = ()


def handed(serving: Stage, folder: Path, file: File, *options: str) -> Ran:
    path = folder / file.name
    path.write_bytes(file.content.encode())
    return serving("invoke", str(path), *file.options, *options)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (File("My Reviews.csv", "text\ngood film\nbad film\n"), ["good film", "bad film"]),
        (File("My Reviews.jsonl", '{"text": "good"}\n"bad"\n'), ["good", "bad"]),
        (File("My Reviews.csv", "id,said\n1,good\n", ("--column", "said")), ["good"]),
        (File("data.json", '[{"text":"good"}]'), ["good"]),
        (File("data.json", '["good", "bad"]'), ["good", "bad"]),
        (File("table.csv", HEADERLESS, ("--no-header",)), HEADERLESS.split("\r\n")[:2]),
        (
            File("table.csv", "1;good\n2;bad\n", ("--no-header", "--column", "2")),
            ["good", "bad"],
        ),
        (File("sep.csv", "sep=;\r\nid;text\r\n1;good, film\r\n"), ["good, film"]),
    ],
)
def test_a_file_is_a_file(serving: Stage, tmp_path: Path, file: File, expected: list[str]) -> None:
    assert texts(handed(serving, tmp_path, file)) == expected
    output = tmp_path / "answers.jsonl"
    assert handed(serving, tmp_path, file, "--output", str(output)).status == 0
    assert len(output.read_text().splitlines()) == len(expected)


@pytest.mark.parametrize(
    ("file", "status", "said"),
    [
        (File("nohdr.csv", HEADERLESS), 2, ("line 1: there is one column", "--no-header")),
        (File("dup.jsonl", '{"text":"good","text":"bad"}\n'), 4, ("line 1", "duplicate key")),
        (File("spacehdr.csv", "id, text\n0, good\n"), 2, ("with a space", "--column")),
        (File("data.json", '{"texts": ["good"]}'), 4, ("not a list", "write a list")),
        (File("data.xlsx", "PK\3\4"), 4, ("a spreadsheet", "CSV")),
        (File("data.csv.gz", "\x1f"), 4, ("damaged", "gzip -t")),
        (File("data.parquet", "PAR1"), 4, ("not a Parquet file", "whole")),
    ],
)
def test_ambiguous_arguments_are_refused(
    serving: Stage, tmp_path: Path, file: File, status: int, said: tuple[str, str]
) -> None:
    ran = handed(serving, tmp_path, file)
    assert ran.status == status, ran.err
    assert all(each in ran.error["message"] + ran.error["hint"] for each in said)
    assert ran.out == ""


@pytest.mark.parametrize(
    ("argument", "status", "hint"),
    [
        ("nowhere.csv", 4, "fdeploy invoke -"),
        ("No Where.json", 4, "fdeploy invoke -"),
        ("s3://bucket/reviews.csv", 2, "aws s3 cp s3://bucket/reviews.csv ."),
        ("https://host.example/reviews.csv", 2, "curl -O"),
        ("/dev/zero", 4, "fdeploy invoke -"),
        ("/", 4, "choose a file in it"),
    ],
)
def test_a_missing_file_is_not_a_text(
    serving: Stage, argument: str, status: int, hint: str
) -> None:
    ran = serving("invoke", argument)
    assert ran.status == status
    assert hint in ran.error["hint"]


def test_what_is_decided_is_said_on_stderr(serving: Stage, tmp_path: Path) -> None:
    ran = handed(serving, tmp_path, File("reviews.csv", "review\ngood\n"))
    assert texts(ran) == ["good"]
    assert "line 1: using review as the column name" in ran.err
    ran = handed(serving, tmp_path, File("letter", "good\nbad\n"))
    assert ran.status == 0
    assert "is classified as one text" in ran.err
    assert ran.result["label"]

"""A file and its answers: every row once and in order, whatever interrupts the run."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fastai_deploy.batch_invoke.job import (
    Answering,
    BatchJob,
    BatchReport,
    as_list,
    by_model,
    run_batch,
)
from fastai_deploy.batch_invoke.places import LocalOutput, open_places
from fastai_deploy.batch_invoke.run import AskOptions, Remote
from fastai_deploy.batch_invoke.tables import ColumnChoice
from fastai_deploy.errors import (
    FdeployError,
    FileError,
    FileMissing,
    InvocationError,
    UsageError,
    WorkspaceBusy,
)
from fastai_deploy.progress import Advanced, Event, Warned

LABELS = ("negative", "positive")


class Echo:
    """Answers a text with its length; ``refuse`` may raise instead."""

    rows = 7
    at_once = 3
    way = "echo"

    def __init__(self, refuse: Callable[[int], None] = lambda _number: None) -> None:
        self._refuse = refuse
        self._lock = threading.Lock()
        self.asked: list[Sequence[Any]] = []
        self.opened: list[str | None] = []
        self.stopped = False

    def ask(self, texts: Sequence[Any], top_k: int | None) -> bytes:
        with self._lock:
            self.asked.append(texts)
            number = len(self.asked)
        self._refuse(number)
        return as_list([answer(text, top_k) for text in texts])

    def stop(self) -> None:
        self.stopped = True

    @property
    def texts(self) -> list[Any]:
        return sorted(text for texts in self.asked for text in texts)

    def answering(self, **changes: Any) -> Answering:
        @contextmanager
        def opened(way: str | None) -> Iterator[Echo]:
            self.opened.append(way)
            yield self

        return replace(
            Answering(by_model(opened), LABELS, several=False, version="v1", by="a test"), **changes
        )


def answer(text: Any, top_k: int | None = None) -> dict[str, Any]:
    if not isinstance(text, str):
        message = "a text is not a string"
        return {"error": {"code": "invalid_request", "message": message, "hint": "fix it"}}
    positive = len(text) % 10 / 10
    ranked = sorted({"positive": positive, "negative": 1 - positive}.items(), key=lambda x: -x[1])
    return {
        "label": ranked[0][0],
        "score": ranked[0][1],
        "probabilities": dict(ranked[:top_k]),
        "truncated": len(text) > 90,
    }


def silent(_event: Event) -> None:
    pass


def no_s3() -> Any:
    raise AssertionError


def job(source: Path, output: Path, **changes: Any) -> BatchJob:
    overwrite = changes.get("overwrite", False)
    found, written = open_places(
        str(source),
        str(output),
        overwrite=overwrite,
        kept=output.parent,
        objects=no_s3,
        report=silent,
    )
    return BatchJob(found, written, **changes)


def run(
    source: Path, output: Path, model: Echo | None = None, *, report: Any = silent, **changes: Any
) -> BatchReport:
    model = model or Echo()
    return run_batch(job(source, output, **changes), model.answering(), report, lambda: 0.0)


def table(path: Path, count: int = 100, columns: str = "id,text") -> Path:
    path.write_text(
        columns + "\n" + "".join(f'{n},"{"x" * (n % 100)}, {n}"\n' for n in range(count))
    )
    return path


def records(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected(count: int = 100) -> list[dict[str, str]]:
    rows = []
    for n in range(count):
        text = f"{'x' * (n % 100)}, {n}"
        found = answer(text)
        rows.append(
            {
                "id": str(n),
                "text": text,
                "label": found["label"],
                "score": repr(found["score"]),
                **{f"probability_{x}": repr(found["probabilities"][x]) for x in LABELS},
                "truncated": "true" if found["truncated"] else "false",
                "error": "",
            }
        )
    return rows


def test_a_table_keeps_its_columns_and_gets_answers(tmp_path: Path) -> None:
    seen: list[Event] = []
    model = Echo()
    found = run(table(tmp_path / "in.csv"), tmp_path / "out.csv", model, report=seen.append)
    assert records(tmp_path / "out.csv") == expected()
    assert (found.rows, found.failed, found.continued) == (100, 0, 0)
    assert found.truncated == sum(row["truncated"] == "true" for row in expected()) > 0
    assert found.labels.total() == 100
    assert found.failure is None
    assert not (tmp_path / "out.csv.partial").exists()
    done = [event.done for event in seen if isinstance(event, Advanced)]
    assert done == [*range(0, 100, 7), 100]
    assert all(len(texts) <= 7 for texts in model.asked)


# Formats

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": "a film", "price": 2.5, "seen": True, "tags": ["x", "y"]},
    {"id": 2, "text": 'a "good", é\n\U0001f600 film', "price": None, "seen": None, "tags": None},
    {"id": 3, "text": None, "price": 3, "seen": False, "tags": {"a": 1}},
]


def write(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    name = path.name.removesuffix(".gz")
    out = io.StringIO(newline="")
    if name.endswith((".csv", ".tsv")):
        writer = csv.writer(out, delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(["" if value is None else value for value in row.values()])
    elif name.endswith(".json"):
        json.dump(rows, out)
    else:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return list(parquet.read_table(path).to_pylist())
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if name.endswith((".csv", ".tsv")):
        delimiter = "\t" if name.endswith(".tsv") else ","
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    if name.endswith(".json"):
        return list(json.loads(text))
    return [json.loads(line) for line in text.split("\n") if line]


NAMES = ("csv", "tsv", "jsonl", "json", "ndjson", "parquet", "csv.gz", "tsv.gz", "jsonl.gz")


@pytest.mark.parametrize("into", NAMES)
def test_json_lines_become_any_format(tmp_path: Path, into: str) -> None:
    found = run(write(tmp_path / "in.jsonl"), tmp_path / f"out.{into}")
    assert (found.rows, found.failed) == (3, 1)
    made = read(tmp_path / f"out.{into}")
    assert [row["text"] or None for row in made] == [row["text"] for row in ROWS]
    labels = [answer(row["text"]).get("label") for row in ROWS]
    if into.startswith("json") or into == "ndjson":
        assert [row.get("label") for row in made] == labels
        assert [{name: row[name] for name in ROWS[0]} for row in made] == ROWS
        assert made[0]["probabilities"] == answer("a film")["probabilities"]
        assert made[2]["error"]["code"] == "invalid_request"
        return
    assert [row["label"] or None for row in made] == labels
    assert made[2]["error"] == "invalid_request: a text is not a string"
    if into == "parquet":
        assert [row["id"] for row in made] == [1, 2, 3]
        assert [row["price"] for row in made] == [2.5, None, 3.0]
        assert [row["seen"] for row in made] == [True, None, False]
        assert [row["tags"] for row in made] == ['["x", "y"]', None, '{"a": 1}']
        assert made[0]["probability_positive"] == answer("a film")["probabilities"]["positive"]
    else:
        assert [row["id"] for row in made] == ["1", "2", "3"]
        assert [row["seen"] for row in made] == ["true", "", "false"]
        assert [row["tags"] for row in made] == ['["x", "y"]', "", '{"a": 1}']


@pytest.mark.parametrize("name", NAMES)
def test_any_format_is_read(tmp_path: Path, name: str) -> None:
    rows = [{"id": n, "text": f"film {n}"} for n in range(30)]
    path = tmp_path / f"in.{name}"
    if name == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    else:
        write(path, rows)
    found = run(path, tmp_path / "out.csv")
    assert found.rows == 30
    made = records(tmp_path / "out.csv")
    assert [(row["id"], row["text"]) for row in made] == [(str(n), f"film {n}") for n in range(30)]
    assert [row["label"] for row in made] == [answer(row["text"])["label"] for row in rows]


def test_parquet_keeps_types_and_nulls(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("text", pa.dictionary(pa.int32(), pa.string())),
            pa.field("at", pa.timestamp("ns", tz="UTC")),
            pa.field("amount", pa.decimal128(10, 2)),
            pa.field("data", pa.binary()),
            pa.field("small", pa.int8()),
        ],
        metadata={b"origin": b"a test"},
    )
    source = pa.table(
        {
            "text": pa.array(["a", None, "b"]).dictionary_encode(),
            "at": pa.array([1, None, 1_700_000_000_123_456_789], pa.int64()).cast(
                pa.timestamp("ns", tz="UTC")
            ),
            "amount": pa.array([None, Decimal("1.5"), Decimal(2)], pa.decimal128(10, 2)),
            "data": pa.array([b"\xff", None, b""]),
            "small": pa.array([1, 2, None], pa.int8()),
        },
        schema=schema,
    )
    parquet.write_table(source, tmp_path / "in.parquet")
    found = run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (found.rows, found.failed) == (3, 1)
    made = parquet.read_table(tmp_path / "out.parquet")
    assert made.select(source.column_names).cast(schema).equals(source)
    assert made.schema.metadata[b"origin"] == b"a test"
    assert made.column("label").to_pylist()[1] is None
    run(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert records(tmp_path / "out.csv")[2]["at"].startswith("2023-11-14")
    run(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")[0]["data"] == "/w=="


def test_integers_of_any_size_become_parquet(tmp_path: Path) -> None:
    """An id of 60 bits is no float, and one of 70 bits is no integer of Parquet."""
    rows = [
        {"text": "a", "id": 2**60, "mixed": 2**60, "huge": 2**70, "small": 2},
        {"text": "b", "id": 1, "mixed": 0.5, "huge": 1, "small": 0.5},
    ]
    run(write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet")
    made = parquet.read_table(tmp_path / "out.parquet")
    assert made.column("id").to_pylist() == [2**60, 1]
    assert made.column("small").to_pylist() == [2.0, 0.5]
    assert made.column("mixed").to_pylist() == [str(2**60), "0.5"]
    assert made.column("huge").to_pylist() == [str(2**70), "1"]


def test_parquet_without_text(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    for values, advice in (([b"a"], """df['text'].str.decode("utf-8")"""), ([1], ".astype(")):
        parquet.write_table(pa.table({"text": values}), source)
        with pytest.raises(UsageError, match="no text; no column is") as caught:
            run(source, tmp_path / "out.csv")
        assert advice in caught.value.hint


def test_parquet_without_the_column(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"review": ["a"], "stars": [5]}), source)
    with pytest.raises(UsageError, match="no column text; the columns are: review, stars"):
        run(source, tmp_path / "out.csv")
    with pytest.raises(UsageError, match="stars holds int64, which is no text"):
        run(source, tmp_path / "out.csv", wanted=ColumnChoice("stars"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet"]
    assert run(source, tmp_path / "out.csv", wanted=ColumnChoice("review")).rows == 1


def test_several_labels(tmp_path: Path) -> None:
    class Several(Echo):
        def ask(self, texts: Sequence[Any], top_k: int | None) -> bytes:
            del top_k
            both = {"probabilities": {"negative": 0.6, "positive": 0.7}, "truncated": False}
            return as_list(
                [{"labels": ["positive", "negative"], "scores": [0.7, 0.6], **both}] * len(texts)
            )

    model = Several()
    source = table(tmp_path / "in.csv", 2)
    for into in ("out.csv", "out.parquet"):
        run_batch(job(source, tmp_path / into), model.answering(several=True), silent, lambda: 0.0)
    assert records(tmp_path / "out.csv")[0]["labels"] == '["positive", "negative"]'
    assert read(tmp_path / "out.parquet")[0]["scores"] == [0.7, 0.6]


@pytest.mark.parametrize("into", ["out.csv", "out.tsv"])
def test_a_table_with_nul_in_a_text_can_be_read_again(tmp_path: Path, into: str) -> None:
    """A table cannot hold the character: most readers fail on it, or end the cell there."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "good\0", "k\0": "\0"}) + "\n")
    run(tmp_path / "a.jsonl", tmp_path / into)
    run(tmp_path / into, tmp_path / "again.jsonl")
    (again,) = read(tmp_path / "again.jsonl")
    assert again["text"] == "good\ufffd"
    assert again["k\ufffd"] == "\ufffd"


def test_top_k_gives_one_column_of_probabilities(tmp_path: Path) -> None:
    run(table(tmp_path / "in.csv", 3), tmp_path / "out.csv", top_k=1)
    first = records(tmp_path / "out.csv")[0]
    assert list(first) == ["id", "text", "label", "score", "probabilities", "truncated", "error"]
    assert json.loads(first["probabilities"]) == answer(", 0", 1)["probabilities"]


@pytest.mark.parametrize(
    ("columns", "prefix"),
    [
        ("label,text", "predicted_"),
        ("Label,text", "predicted_"),
        ("error,text", "predicted_"),
        ("probability_positive,text", "predicted_"),
        ("labels,text", ""),
    ],
)
def test_names_that_clash(tmp_path: Path, columns: str, prefix: str) -> None:
    seen: list[Event] = []
    run(table(tmp_path / "a.csv", 2, columns), tmp_path / "b.csv", report=seen.append)
    assert list(records(tmp_path / "b.csv")[0])[2] == f"{prefix}label"
    assert any(isinstance(event, Warned) for event in seen) == bool(prefix)
    run(tmp_path / "b.csv", tmp_path / "c.csv")
    again = list(records(tmp_path / "c.csv")[0])
    assert again[: len(again) - 6] == list(records(tmp_path / "b.csv")[0])
    assert len(set(again)) == len(again)


def test_a_table_without_a_header_and_with_another_separator(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("1;a, b;x\n2;c;y\n")
    run(tmp_path / "in.csv", tmp_path / "out.csv", wanted=ColumnChoice("2", header=False))
    made = records(tmp_path / "out.csv")
    assert [row["column_2"] for row in made] == ["a, b", "c"]


def test_the_first_rows_only(tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv")
    assert run(source, tmp_path / "out.csv", limit=10).rows == 10
    assert records(tmp_path / "out.csv") == expected(10)
    parquet.write_table(pa.table({"text": ["a"] * 30}), tmp_path / "in.parquet", row_group_size=4)
    assert run(tmp_path / "in.parquet", tmp_path / "out.jsonl", limit=10).rows == 10
    assert len(read(tmp_path / "out.jsonl")) == 10


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=40), st.sampled_from(["csv", "jsonl"]))
def test_what_was_in_a_row_is_in_it_afterwards(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    source = write(folder / f"in.{suffix}", [{"note": note, "text": text} for note, text in rows])
    run(source, folder / f"out.{suffix}")
    made = read(folder / f"out.{suffix}")
    assert [(row["note"], row["text"]) for row in made] == rows
    assert [row["label"] for row in made] == [answer(text)["label"] for _, text in rows]


# What is refused before any work

Refused = tuple[str, str, str, type[FdeployError], str]
REFUSED: list[Refused] = [
    ("in.csv", "id,text\n1,a\n2\n", "out.csv", FileError, "line 3: 1 fields"),
    ("in.csv", "id,text\n", "out.csv", FileError, "contains no rows"),
    ("in.csv", "a,b\n1,2\n", "out.csv", UsageError, "no column text"),
    ("in.jsonl", '{"text": "a"}\n{"text": \n', "out.csv", FileError, "line 2: not JSON"),
    ("in.jsonl", '{"text": "a"}\n[1]\n', "out.csv", FileError, "line 2: not a text"),
    ("in.jsonl", '{"a": "a"}\n', "out.csv", UsageError, "no column text; the columns are: a"),
    ("in.json", '{"text": "a"}', "out.csv", FileError, "not a list"),
    ("in.csv", "text,text\na,b\n", "out.csv", UsageError, "2 columns are named text"),
    ("in.csv", "id,id,text\n1,2,b\n", "out.jsonl", UsageError, "two columns named id"),
    ("in.parquet", "PAR1", "out.csv", FileError, "not a Parquet file"),
    ("in.csv", "PAR1", "out.csv", FileError, "rename it to .parquet|a binary table"),
    ("in.csv.gz", "\x1f", "out.csv", FileError, "damaged"),
    ("in.csv", "text\na\n", "out.xlsx", UsageError, "does not say the format"),
    ("in.csv", "text\na\n", "out", UsageError, "does not say the format"),
    ("in.csv", "text\na\n", "out.parquet.gz", UsageError, "does not say the format"),
    ("in.txt", "a\n", "out.csv", UsageError, "does not say the format"),
    ("in.csv", "text\na\n", "in.csv", UsageError, "is the input file"),
]


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_refused(tmp_path: Path, case: Refused) -> None:
    name, content, output, kind, said = case
    (tmp_path / name).write_text(content, encoding="latin-1")
    model = Echo()
    with pytest.raises(kind, match=said) as caught:
        run(tmp_path / name, tmp_path / output, model)
    assert caught.value.hint
    assert not model.asked
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="latin-1") == content


def test_places_that_are_no_files(tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", 3)
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to(source)
    os.mkfifo(tmp_path / "pipe.csv")
    cases: list[tuple[str, str, type[FdeployError], str]] = [
        ("in.csv", "folder", UsageError, "is a folder"),
        ("folder", "out.csv", FdeployError, "does not say the format|is a folder"),
        ("nothing.csv", "out.csv", FileMissing, "does not exist"),
        ("pipe.csv", "out.csv", FileError, "not a regular file"),
        ("in.csv", "there.csv", UsageError, "exists already"),
        ("in.csv", "link.csv", UsageError, "is the input file"),
        ("in.csv", "in.csv/out.csv", FileError, "in.csv"),
    ]
    for given_, output, kind, said in cases:
        with pytest.raises(kind, match=said):
            run(tmp_path / given_, tmp_path / output)
    assert (tmp_path / "there.csv").read_text() == "mine"
    run(source, tmp_path / "there.csv", overwrite=True)
    assert records(tmp_path / "there.csv") == expected(3)
    run(source, tmp_path / "new/folder/out.csv")
    assert records(tmp_path / "new/folder/out.csv") == expected(3)


# Interruptions


class Stop(BaseException):
    pass


def stop_at(number: int) -> Callable[[int], None]:
    def refuse(asked: int) -> None:
        if asked >= number:
            raise Stop

    return refuse


def interrupted(source: Path, output: Path, number: int = 8) -> int:
    """Interrupt a run; return how many rows are kept."""
    model = Echo(stop_at(number))
    with pytest.raises(Stop):
        run(source, output, model)
    assert model.stopped
    assert not output.exists()
    kept = json_lines(output)
    return sum(line["count"] for line in kept)


def json_lines(output: Path) -> list[Any]:
    path = output.with_name(output.name + ".partial") / "answers.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_an_interrupted_run_continues(tmp_path: Path, name: str) -> None:
    source, output = tmp_path / name, tmp_path / "out.csv"
    rows = [{"id": n, "text": f"{'x' * (n % 100)}, {n}"} for n in range(100)]
    if name == "in.parquet":
        parquet.write_table(pa.Table.from_pylist(rows), source, row_group_size=9)
    else:
        write(source, rows)
    kept = interrupted(source, output)
    assert 0 < kept < 100
    model = Echo()
    model.rows = 10  # another size: the rest of a batch is asked
    found = run(source, output, model)
    assert (found.rows, found.continued) == (100, kept)
    assert model.texts == sorted(str(row["text"]) for row in rows[kept:])
    assert model.opened == ["echo"]
    assert records(output) == expected()
    assert not (tmp_path / "out.csv.partial").exists()


def test_a_run_is_not_continued_with_another_version_of_a_remote_model(tmp_path: Path) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"

    def run_with(version: str, *, stops: bool = False) -> BatchReport:
        asked: list[Any] = []

        def ask(request: Any) -> list[Any]:
            asked.append(request)
            if stops and len(asked) > 1:
                raise Stop
            return [{**answer(text), "model": {"version": version}} for text in request["texts"]]

        remote = Remote(AskOptions(ask, lambda _seconds: None, limit=10_000))
        answering = Answering(
            by_model(lambda way: nullcontext(remote.continuing(way))),
            LABELS,
            several=False,
            version="v1",
            by="the endpoint",
        )
        return run_batch(job(source, output), answering, silent, lambda: 0.0)

    with pytest.raises(Stop):
        run_with("v1", stops=True)
    with pytest.raises(InvocationError, match="version v2 answers now, and v1 answered before"):
        run_with("v2")
    assert 0 < run_with("v1").continued < 100
    assert records(output) == expected()


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_half_a_last_line_is_asked_again(tmp_path: Path, cut: int) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupted(source, output)
    path = tmp_path / "out.csv.partial/answers.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    run(source, output)
    assert records(output) == expected()


def test_a_run_killed_before_its_output_was_written_asks_nothing_again(tmp_path: Path) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"
    output.mkdir()  # found too late to be refused early
    first = job(source, tmp_path / "other.csv")
    place = LocalOutput("out.csv", output)
    with pytest.raises(FileError, match="not a regular file"):
        run_batch(replace(first, output=place), Echo().answering(), silent, lambda: 0.0)
    output.rmdir()
    model = Echo()
    assert run(source, output, model).continued == 100
    assert not model.asked
    assert records(output) == expected()


def test_another_input_or_model_is_not_mixed_in(tmp_path: Path) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupted(source, output)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"version": "v2"}, "the model has changed"),
        ({"by": "the API"}, "started with a test"),
    ]
    for change, said in changes:
        with pytest.raises(UsageError, match=said) as caught:
            run_batch(job(source, output), Echo().answering(**change), silent, lambda: 0.0)
        assert "--overwrite" in caught.value.hint
    with pytest.raises(UsageError, match="other options"):
        run(source, output, top_k=1)
    with pytest.raises(UsageError, match="another input, "):
        run(table(tmp_path / "in2.csv"), output)
    table(source, 101)
    with pytest.raises(UsageError, match="the input has changed"):
        run(source, output)
    assert json_lines(output)
    model = Echo()
    assert run(source, output, model, overwrite=True).continued == 0
    assert records(output) == expected(101)


def test_an_input_that_changes_during_the_run(tmp_path: Path) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"

    def change(number: int) -> None:
        if number == 3:
            with source.open("a") as file:
                file.write('100,"one more"\n')

    with pytest.raises(FileError, match="changed while it was read"):
        run(source, output, Echo(change))
    assert not output.exists()


def test_two_runs_do_not_share_an_output(tmp_path: Path) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"
    first = Echo()

    def second(_number: int) -> None:
        if len(first.asked) == 1:
            run(source, output)

    first._refuse = second  # noqa: SLF001 - the model asks for the run that contains it
    with pytest.raises(WorkspaceBusy, match="another fdeploy is writing"):
        run(source, output, first)


@pytest.mark.parametrize("thing", ["folder", "file", "link"])
def test_what_is_in_the_place_of_the_run_is_left_alone(tmp_path: Path, thing: str) -> None:
    source, place = table(tmp_path / "in.csv"), tmp_path / "out.csv.partial"
    if thing == "folder":
        place.mkdir()
        (place / "diary.txt").write_text("mine")
    elif thing == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match="is in the way"):
        run(source, tmp_path / "out.csv")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_run_says_what_to_do(tmp_path: Path) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupted(source, output)
    (tmp_path / "out.csv.partial/run.json").write_text("{")
    with pytest.raises(FileError, match="damaged") as caught:
        run(source, output)
    assert caught.value.hint.startswith("rm -r ")


def test_an_error_that_all_rows_share_ends_the_run(tmp_path: Path) -> None:
    source, output = table(tmp_path / "in.csv"), tmp_path / "out.csv"

    def refuse(number: int) -> None:
        if number > 2:
            raise InvocationError("no such endpoint", hint="deploy it")

    with pytest.raises(InvocationError, match="no such endpoint"):
        run(source, output, Echo(refuse))
    run(source, output)
    assert records(output) == expected()


def test_failed_rows_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [{"id": n, "text": "a" if n % 3 else None} for n in range(30)]
    found = run(write(tmp_path / "in.jsonl", rows), tmp_path / "out.csv")
    assert (found.rows, found.failed) == (30, 10)
    assert found.labels.total() == 20
    failure = found.failure
    assert failure is not None
    assert "10 of 30 rows failed: row 1 (invalid_request), row 4" in failure.message
    assert failure.message.endswith(" and 5 more")
    assert [bool(row["error"]) for row in records(tmp_path / "out.csv")] == [
        n % 3 == 0 for n in range(30)
    ]


# A limit on the size of files is a disk that is full for this process.
FULL = """
import resource, signal, sys
from pathlib import Path
from tests.invoking.test_batch import Echo, run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
run(Path("in.csv"), Path("out.csv"))
"""


@pytest.mark.parametrize(("limit", "kept"), [(4_000, 35), (20_000, 100)], ids=["answers", "output"])
def test_a_full_disk_keeps_what_was_answered(tmp_path: Path, limit: int, kept: int) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [{"id": row["id"], "text": row["text"], "note": "n" * 300} for row in expected()]
    write(source, rows)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(limit)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "DiskFull" in done.stderr, done.stderr
    assert not output.exists()
    if limit == 20_000:
        assert sum(line["count"] for line in json_lines(output)) == 100
    else:
        assert f"{kept} rows are answered and kept" in done.stderr
    found = run(source, output)
    assert (found.rows, found.continued) == (100, kept)
    assert [row["label"] for row in records(output)] == [row["label"] for row in expected()]
    assert all(row["note"] == "n" * 300 for row in records(output))

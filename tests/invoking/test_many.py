"""Many texts: chunked, concurrent, in order; a failing text fails alone and is retried."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.batch_invoke.run import (
    Answered,
    AnswerFile,
    AskOptions,
    Batch,
    Fits,
    Row,
    answers,
    chunked,
)
from fastai_deploy.errors import FileError, InvocationError

Json = Any


class Door:
    """Answers with the text as the label, unless ``refuse`` returns an error."""

    def __init__(self, refuse: Callable[[list[str], int], InvocationError | None]) -> None:
        self._refuse = refuse
        self._lock = threading.Lock()
        self.requests: list[Json] = []
        self.slept: list[float] = []

    def ask(self, request: Json) -> Json:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        error = self._refuse(request["texts"], number)
        if error is not None:
            raise error
        return [answer(text) for text in request["texts"]]

    def work(self, **changes: Any) -> AskOptions:
        return AskOptions(
            **{"ask": self.ask, "sleep": self.slept.append, "limit": 10_000, **changes}
        )


def answer(text: str, version: str = "v1") -> Json:
    probabilities = {text: 0.9, "other": 0.1}
    model = {"name": "m", "version": version}
    return {"label": text, "score": 0.9, "probabilities": probabilities, "model": model}


def refused(status: int, code: str = "") -> InvocationError:
    return InvocationError(f"answered {status}", hint="hint", status=status, answer_code=code)


def rows(*texts: str) -> list[Row]:
    return list(enumerate(texts, 1))


def ask_all(door: Door, texts: list[Row], **changes: Any) -> list[Answered]:
    found = [each for chunk in answers(texts, door.work(**changes)) for each in chunk]
    return sorted(found, key=lambda each: each.row)


NUMBERS = [str(number) for number in range(200)]


def test_every_text_gets_its_own_answer() -> None:
    door = Door(lambda _texts, _number: None)
    found = ask_all(door, rows(*NUMBERS), top_k=2)
    assert [(each.row, each.text, each.labels) for each in found] == [
        (row, text, [text]) for row, text in rows(*NUMBERS)
    ]
    assert len(door.requests) == 7
    assert all(request["top_k"] == 2 for request in door.requests)
    assert ask_all(door, []) == []


@given(st.lists(st.text(max_size=40), max_size=80), st.integers(100, 400))
def test_chunks_keep_the_order_and_the_limit(texts: list[str], limit: int) -> None:
    chunks = list(chunked(rows(*texts), limit))
    assert [row for chunk in chunks for row in chunk] == rows(*texts)
    for chunk in chunks:
        body = json.dumps({"texts": [text for _, text in chunk], "top_k": 1_000_000})
        assert len(chunk) == 1 or len(body) <= limit


def test_a_text_that_is_too_large_fails_alone() -> None:
    door = Door(lambda texts, _n: refused(413, "too_large") if "x" * 500 in texts else None)
    found = ask_all(door, rows("a", "b", "x" * 500, "c"))
    assert [each.failed for each in found] == [False, False, True, False]
    assert found[2].body["error"] == {
        "code": "too_large",
        "message": "answered 413",
        "hint": "hint",
    }
    failure = Batch(found).failure
    assert failure is not None
    assert failure.message == "1 of 4 texts failed: row 3 (too_large)"
    assert failure.exit_code == 10


@pytest.mark.parametrize("status", [413, 500, 504])
def test_a_chunk_that_fails_is_tried_in_halves(status: int) -> None:
    door = Door(lambda texts, _number: refused(status) if len(texts) > 3 else None)
    assert not any(each.failed for each in ask_all(door, rows(*NUMBERS)))


@pytest.mark.parametrize("status", [429, 503])
def test_too_much_at_once_is_tried_again_later(status: int) -> None:
    door = Door(lambda _texts, number: refused(status, "throttled") if number % 2 else None)
    assert len(ask_all(door, rows(*NUMBERS), at_once=1)) == 200
    assert len(door.slept) == 7
    for_ever = Door(lambda _texts, _number: refused(status))
    with pytest.raises(InvocationError, match=str(status)):
        ask_all(for_ever, rows(*NUMBERS))
    assert len(for_ever.requests) == 8
    assert for_ever.slept == sorted(for_ever.slept)


@pytest.mark.parametrize(
    "error",
    [refused(403, "forbidden"), refused(429, "quota_exceeded"), refused(0), refused(404)],
    ids=str,
)
def test_a_failure_common_to_all_texts_costs_one_request(error: InvocationError) -> None:
    door = Door(lambda _texts, _number: error)
    with pytest.raises(InvocationError) as caught:
        ask_all(door, rows(*NUMBERS))
    assert caught.value is error
    assert len(door.requests) == 1
    assert door.slept == []


def test_a_response_with_the_wrong_number_of_answers_is_an_error() -> None:
    work = AskOptions(ask=lambda _request: [{}], sleep=lambda _s: None, limit=1_000)
    with pytest.raises(InvocationError, match="not a list of that length"):
        list(answers(rows("a", "b"), work))


# The answer file

FITS = Fits("v1", None)


def kept(path: Path, *texts: str) -> AnswerFile:
    file = AnswerFile(path)
    file.write(Answered(row, text, answer(text)) for row, text in rows(*texts))
    return file


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "a.jsonl")
    assert file.reusable(["a", "b", "c"], FITS) == []
    file.write([])
    file.add([Answered(3, "c", answer("c")), Answered(2, "b", {"error": {"code": "x"}})])
    file.add([Answered(1, "a", answer("a"))])
    assert [each.row for each in file.reusable(["a", "b", "c"], FITS)] == [1, 3]
    assert [each.row for each in file.reusable(["a", "b", "changed"], FITS)] == [1]
    assert file.reusable(["a", "b", "c"], Fits("v2", None)) == []
    assert file.reusable(["a", "b", "c"], Fits("v1", 1)) == []
    assert len(file.reusable(["a", "b", "c"], Fits("v1", 2))) == 2


def test_half_a_last_line_is_an_answer_that_was_never_there(tmp_path: Path) -> None:
    file = kept(tmp_path / "a.jsonl", "a", "b")
    data = file.path.read_bytes()
    file.path.write_bytes(data[:-9])
    assert [each.row for each in file.reusable(["a", "b"], FITS)] == [1]


@pytest.mark.parametrize(
    "content",
    [b"my diary", b"my diary\n", b'{"text": "a"}\n', b'{"row": 0, "text": ""}\n', b"[]\n"],
)
def test_another_file_is_not_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.jsonl"
    path.write_bytes(content)
    with pytest.raises(FileError, match="line 1: not an answer"):
        AnswerFile(path).reusable(["a"], FITS)
    assert path.read_bytes() == content


def test_the_answers_to_other_texts_are_not_written_over(tmp_path: Path) -> None:
    file = kept(tmp_path / "a.jsonl", "a", "b")
    with pytest.raises(FileError, match="other texts"):
        file.reusable(["x", "y", "z"], FITS)


def test_half_a_character_can_be_written(tmp_path: Path) -> None:
    file = kept(tmp_path / "a.jsonl", "\ud800", "é")
    assert [each.text for each in file.reusable(["\ud800", "é"], FITS)] == ["\ud800", "é"]
    assert "é" in file.path.read_text(encoding="utf-8")

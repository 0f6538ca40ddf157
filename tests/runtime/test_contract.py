from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai_deploy.runtime.contract import (
    JSON,
    MAX_TEXTS,
    Model,
    Prediction,
    Request,
    RequestError,
    encode,
    media_type,
    parse,
    render,
)
from fastai_deploy.runtime.strict_json import MAX_PARTS

CONTENT_TYPES = (
    None,
    "",
    "application/json",
    "Application/JSON; charset=utf-8",
    "text/plain",
    "text/plain; charset=iso-8859-1",
    "text/plain;charset=utf-16",
    "application/jsonlines",
    "application/x-ndjson",
)
MODEL = Model("tiny", "0123456789ab")


def refused(body: bytes, content_type: str | None = JSON) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        parse(body, content_type)
    return caught.value.status, caught.value.code


def one(body: bytes, content_type: str | None = JSON) -> Request:
    (request,) = parse(body, content_type)
    return request


def test_one_text() -> None:
    assert one(b'{"text": "a", "top_k": 2}') == Request(("a",), single=True, top_k=2)
    for whole in (b"2.0", b"2e0", b"0.2E1"):  # integers, according to JSON Schema
        assert one(b'{"text": "a", "top_k": ' + whole + b"}").top_k == 2


def test_a_list_keeps_its_order_and_the_places_of_bad_items() -> None:
    request = one(b'{"texts": ["a", 1, "b", null, "\\ud800", ["c"]]}')
    assert not request.single
    assert [item if isinstance(item, str) else item.status for item in request.items] == [
        "a",
        422,
        "b",
        422,
        422,
        422,
    ]


@pytest.mark.parametrize("content_type", [None, "", "  ", "APPLICATION/JSON", "application/json;"])
def test_json_is_the_default(content_type: str | None) -> None:
    assert one(b'{"text": "a"}', content_type).items == ("a",)


def test_a_byte_order_mark_is_not_part_of_the_text() -> None:
    assert one(b'\xef\xbb\xbf{"text": "a"}').items == ("a",)
    assert one(b"\xef\xbb\xbfa", "text/plain").items == ("a",)


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("utf-8", "utf-8"),
        ('"UTF-8"', "utf-8"),
        ("iso-8859-1", "latin-1"),
        ("Windows-1252", "cp1252"),
        ("utf-16", "utf-16"),
    ],
)
def test_plain_text_in_its_charset(charset: str, codec: str) -> None:
    body = "caf\u00e9".encode(codec)
    assert one(body, f"text/plain; format=flowed; charset={charset}").items == ("caf\u00e9",)


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "iso-8859-1"])
@pytest.mark.parametrize(
    ("sent", "texts", "top_k"),
    [
        ('{"text": "a"}', ("a",), None),
        (' \t\r\n{"texts": ["a", "b"], "top_k": 2}\n', ("a", "b"), 2),
    ],
)
def test_json_sent_as_plain_text_is_parsed_as_json(
    charset: str, sent: str, texts: tuple[str, ...], top_k: int | None
) -> None:
    request = one(sent.encode(charset), f"text/plain;charset={charset}")
    assert request == one(sent.encode(), "application/json")
    assert (request.items, request.top_k) == (texts, top_k)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"text": 1}', (422, "invalid_request")),
        (b'{"text": "a", "txt": 1}', (422, "invalid_request")),
        (b'{"text": "a", "texts": ["a"]}', (422, "invalid_request")),
        (b'{"texts": []}', (422, "invalid_request")),
        (b'{"texts": ["a"], "top_k": 0}', (422, "invalid_request")),
        (b'{"text": "\\ud800"}', (422, "invalid_request")),
        (b'{"text": "a", "text": "b"}', (400, "invalid_json")),
        (b'{"text": "a", "top_k": NaN}', (400, "invalid_json")),
    ],
)
def test_json_sent_as_plain_text_is_validated(body: bytes, error: tuple[int, str]) -> None:
    assert refused(body, "text/plain") == error == refused(body, "application/json")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{text}",
        '{"text": "a"',
        '{"text": "a"} and more',
        '{"text": "a"}{"text": "b"}',
        "{'text': 'a'}",
        '{"Text": "a"}',
        '{"note": "text"}',
        "{}",
        '["text"]',
        '"text"',
        '[{"text": "a"}]',
        '{"text": ' + "[" * 5_000 + "}",
        '{"note": {"text": "a"}}',
        "1" * 9_000,
        'see {"text": "a"}',
    ],
    ids=lambda text: text[:20],
)
def test_a_text_that_looks_like_json_stays_a_text(text: str) -> None:
    assert one(text.encode(), "text/plain;charset=UTF-8").items == (text,)


def test_an_empty_text_is_a_text() -> None:
    assert one(b"", "text/plain").items == ("",)
    assert one(b'{"text": ""}').items == ("",)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html",
        "application/xml",
        "application/json, text/plain",
        "json",
        ";",
        "text/plain; charset=rot13",
        "text/plain; charset=punycode",
        "text/plain; charset=unicode_escape",
        "text/plain; charset=\x00",
        "text/plain; charset=utf-7",
        "multipart/form-data; boundary=" + "x" * 1_000,
        "application/json\r\nx-injected: 1",
    ],
)
def test_types_that_are_not_the_contracts(content_type: str) -> None:
    assert refused(b'{"text": "a"}', content_type) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"a great film",
        b'{"text": "a"',
        b'{"text": "a"} x',
        b'{"text": "a", "text": "b"}',
        b'{"text": "a", "top_k": NaN}',
        b'{"text": "a", "top_k": -Infinity}',
        b'{"text": "\xff"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" + b'"[",[],' * (MAX_PARTS + 1),
        b"{'text': 'a'}",
    ],
)
def test_invalid_json(body: bytes) -> None:
    assert refused(body) == (400, "invalid_json")


@pytest.mark.parametrize(
    "body",
    [
        b"1",
        b"null",
        b'"a"',
        b'["a"]',
        b"{}",
        b'{"text": "a", "texts": ["b"]}',
        b'{"text": 1}',
        b'{"text": null}',
        b'{"text": "\\ud800"}',
        b'{"texts": []}',
        b'{"texts": "a"}',
        b'{"texts": {"0": "a"}}',
        b'{"txt": "a"}',
        b'{"text": "a", "top_k": 0}',
        b'{"text": "a", "top_k": -1}',
        b'{"text": "a", "top_k": true}',
        b'{"text": "a", "top_k": 1.5}',
        b'{"text": "a", "top_k": 1e400}',
        b'{"text": "a", "top_k": "1"}',
    ],
)
def test_json_that_is_not_a_request(body: bytes) -> None:
    assert refused(body) == (422, "invalid_request")


def test_an_unknown_key_is_answered_with_the_nearest_known_one() -> None:
    with pytest.raises(RequestError, match="unknown key") as caught:
        parse(b'{"text": "a", "topk": 1}', JSON)
    assert caught.value.hint == 'did you mean "top_k"?'


def test_a_number_with_many_digits_is_read_quickly() -> None:
    digits = b"9" * 1_000_000
    assert one(b'{"text": "a", "top_k": ' + digits + b"}").top_k == 10**18
    assert refused(b'{"text": "a", "top_k": -' + digits + b"}")[0] == 422
    assert refused(b'{"text": "a", "top_k": 0.' + digits + b"}")[0] == 422


def test_too_many_texts() -> None:
    texts = ["a"] * (MAX_TEXTS + 1)
    assert len(one(json.dumps({"texts": texts[1:]}).encode()).items) == MAX_TEXTS
    assert refused(json.dumps({"texts": texts}).encode()) == (413, "too_large")
    assert refused(b'{"text": "a"}\n' * (MAX_TEXTS + 1), "application/jsonlines")[0] == 413
    lines = b'{"texts": ["a", "b"]}\n' * (MAX_TEXTS // 2 + 1)
    assert refused(lines, "application/jsonlines") == (413, "too_large")


def test_brackets_inside_a_text_do_not_count() -> None:
    text = '[{"\\' * MAX_PARTS
    assert one(json.dumps({"text": text}).encode()).items == (text,)


def test_bad_items_do_not_make_a_document_too_complex() -> None:
    body = json.dumps({"texts": [{"a": [1]}] * MAX_TEXTS}).encode()
    assert len(one(body).items) == MAX_TEXTS


def test_json_lines_are_requests_of_their_own() -> None:
    body = b'{"text": "a"}\r\n\n{"txt": "b"}\nnot json\n{"texts": ["c", "d"], "top_k": 1}'
    requests = parse(body, "application/x-ndjson")
    assert [request.single for request in requests] == [True, True, True, False]
    assert requests[0].items == ("a",)
    errors = [request.items[0] for request in requests[1:3]]
    assert [error.status for error in errors if isinstance(error, RequestError)] == [422, 400]
    assert requests[3] == Request(("c", "d"), single=False, top_k=1)


def test_json_lines_without_a_line() -> None:
    assert refused(b"\n \r\n", "application/jsonlines") == (422, "invalid_request")


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@given(body=st.binary(max_size=200))
def test_parse_raises_nothing_else_on_any_bytes(content_type: str | None, body: bytes) -> None:
    checked(body, content_type)


@given(body=st.binary(max_size=50), content_type=st.text(max_size=60))
def test_parse_raises_nothing_else_on_any_content_type(body: bytes, content_type: str) -> None:
    checked(body, content_type)
    checked(body, f"text/plain; charset={content_type}")


KEYS = ("text", "texts", "top_k")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values) | st.dictionaries(st.sampled_from(KEYS) | st.text(), values),
    max_leaves=20,
)


@given(value=JSON_VALUES, content_type=st.sampled_from(CONTENT_TYPES))
def test_parse_raises_nothing_else_on_any_json(value: Any, content_type: str | None) -> None:
    checked(json.dumps(value).encode("utf-8", "surrogatepass"), content_type)


@given(text=st.text(), top_k=st.none() | st.integers(min_value=1))
def test_what_is_sent_is_what_is_read(text: str, top_k: int | None) -> None:
    request = one(json.dumps({"text": text, "top_k": top_k}).encode())
    assert request.items == (text,)
    assert request.top_k == (None if top_k is None else min(top_k, 10**18))
    assert one(json.dumps({"text": text}, ensure_ascii=False).encode()).items == (text,)


def checked(body: bytes, content_type: str | None) -> None:
    """Parse a body, and check that the result is valid."""
    outcome = parsed(body, content_type)
    if isinstance(outcome, RequestError):
        assert outcome.status in (400, 413, 415, 422)
        assert set(outcome.body()["error"]) == {"code", "message", "hint"}
        return
    for request in outcome:
        assert len(request.items) == 1 or not request.single
        assert all(
            isinstance(item, RequestError) or item.encode() for item in request.items if item
        )


def parsed(body: bytes, content_type: str | None) -> list[Request] | RequestError:
    try:
        return parse(body, content_type)
    except RequestError as error:
        return error


def test_media_type_tells_the_kind_and_the_codec() -> None:
    assert media_type("application/json; charset=latin1") == (JSON, "utf-8-sig")
    assert media_type("text/plain; charset=ISO-8859-1") == ("text/plain", "latin-1")


def prediction(*probabilities: float) -> Prediction:
    labels = ("negative", "neutral", "positive")
    return Prediction(tuple(zip(labels, probabilities, strict=True)), truncated=False)


def test_an_answer_ranks_the_labels_and_keeps_the_order_of_ties() -> None:
    answer = render([prediction(0.25, 0.5, 0.25)], Request(("a",), single=True), MODEL)
    assert answer == {
        "label": "neutral",
        "score": 0.5,
        "probabilities": {"neutral": 0.5, "negative": 0.25, "positive": 0.25},
        "truncated": False,
        "model": {"name": "tiny", "version": "0123456789ab"},
    }
    assert list(answer["probabilities"]) == ["neutral", "negative", "positive"]


def test_top_k_keeps_that_many() -> None:
    request = Request(("a",), single=True, top_k=1)
    answer = render([prediction(0.1, 0.2, 0.7)], request, MODEL)
    assert answer["probabilities"] == {"positive": 0.7}


def test_a_multi_label_answer_may_be_empty_or_hold_several() -> None:
    model = Model("tiny", "0123456789ab", threshold=0.5)
    request = Request(("a", "b"), single=False)
    several, none = render([prediction(0.6, 0.5, 0.9), prediction(0.5, 0.1, 0.2)], request, model)
    assert (several["labels"], several["scores"]) == (["positive", "negative"], [0.9, 0.6])
    assert (none["labels"], none["scores"]) == ([], [])
    assert "label" not in several


def test_errors_are_in_the_places_of_their_texts() -> None:
    request = one(b'{"texts": ["a", 1, "b"]}')
    failed = RequestError(500, "internal", "the model failed", "look")
    answers = render([prediction(0, 0, 1), failed], request, MODEL)
    assert answers[0]["label"] == "positive"
    assert answers[1]["error"]["code"] == "invalid_request"
    assert answers[2] == failed.body()


def test_numbers_that_are_not_json_are_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"score": float("nan")})

"""The Python client against real HTTP servers: a scripted one, and the local gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastai_deploy
from fastai_deploy import (
    Answer,
    ApiError,
    AsyncClient,
    Client,
    Failure,
    InvalidRequest,
    ModelError,
    Throttled,
    Unauthorized,
    Unavailable,
)
from fastai_deploy.errors import RecordMissing, UsageError
from tests.gateway.conftest import gateways
from tests.gateway.servers import Received, Reply, Script, Server, refusing

SHARES = {"positive": 0.75, "negative": 0.25}
MODEL = {"name": "reviews", "version": "3f2a9c01b7de", "precision": "bf16"}
TEXT = "the plot is thin but I loved it"


def answer(text: str) -> dict[str, object]:
    """An answer whose model is named as the text, so that each text recognizes its own."""
    return {
        "label": "positive",
        "score": 0.75,
        "probabilities": SHARES,
        "truncated": False,
        "model": {**MODEL, "name": text},
    }


def reviews(received: Received) -> Reply:
    request = json.loads(received.body)
    if "texts" in request:
        return Reply(body=json.dumps([answer(text) for text in request["texts"]]).encode())
    return Reply(body=json.dumps(answer(request["text"])).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(reviews).running() as server:
        yield server


class Sleeps(list[float]):
    """A clock's sleep that only remembers how long it was asked to."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def after(replies: list[Reply], then: Script = reviews) -> Script:
    """A server that gives some replies first."""
    lock = threading.Lock()

    def script(received: Received) -> Reply:
        with lock:
            if replies:
                return replies.pop(0)
        return then(received)

    return script


def error(status: int, code: str, **headers: str) -> Reply:
    body = {"error": {"code": code, "message": "no", "hint": "do this"}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), named)


def test_an_answer_is_typed(server: Server) -> None:
    with Client(server.url + "/classify", key="k" * 20) as api:
        given = api.classify(TEXT, top_k=2)
    assert isinstance(given, Answer)
    assert (given.label, given.score, given.truncated) == ("positive", 0.75, False)
    assert given.probabilities == SHARES
    assert (given.model.name, given.model.precision, given.model.unproven) == (TEXT, "bf16", False)
    (received,) = server.received
    assert received.path == "/classify"
    assert received.headers["x-api-key"] == "k" * 20
    assert json.loads(received.body) == {"text": TEXT, "top_k": 2}


def test_several_labels_or_none(server: Server) -> None:
    several = {"labels": ["a", "b"], "scores": [0.9, 0.6], "probabilities": {"a": 0.9, "b": 0.6}}
    rest = {"truncated": False, "model": {**MODEL, "unproven": True}}
    server.script = refusing(200, {**several, **rest})
    given = Client(server.url).classify(TEXT)
    assert (given.labels, given.scores, given.label) == (("a", "b"), (0.9, 0.6), "a")
    assert given.model.unproven
    server.script = refusing(200, {"labels": [], "scores": [], "probabilities": {"a": 0.1}, **rest})
    assert Client(server.url).classify(TEXT).label is None


def test_a_token_instead_of_a_key(server: Server) -> None:
    Client(server.url, token="t").classify(TEXT)
    assert server.received[0].headers["authorization"] == "Bearer t"
    assert "x-api-key" not in server.received[0].headers


def test_many_texts_are_answered_in_order_and_in_chunks(server: Server) -> None:
    texts = [f"text {number}" for number in range(300)]
    given = list(Client(server.url).classify_many(iter(texts)))
    assert [each.model.name for each in given if isinstance(each, Answer)] == texts
    sizes = [len(json.loads(each.body)["texts"]) for each in server.received]
    assert sum(sizes) == 300
    assert max(sizes) == 32


def test_long_texts_are_sent_in_smaller_chunks(server: Server) -> None:
    list(Client(server.url).classify_many(["x" * 60_000] * 4))
    assert [len(json.loads(each.body)["texts"]) for each in server.received] == [1, 1, 1, 1]


def test_texts_are_read_as_far_as_needed(server: Server) -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        number = 0
        while True:
            read.append(number)
            yield f"text {number}"
            number += 1

    answers = Client(server.url).classify_many(endless(), concurrency=2)
    first = next(answers)
    answers.close()  # type: ignore[attr-defined]  # a generator
    assert isinstance(first, Answer)
    assert len(read) <= 32 * 4


def test_one_bad_text_fails_alone(server: Server) -> None:
    def strict(received: Received) -> Reply:
        texts = json.loads(received.body)["texts"]
        if "bad" in texts and len(texts) > 1:
            return error(500, "model_error")
        if "bad" in texts:
            return error(500, "model_error")
        return reviews(received)

    server.script = strict
    texts = [*(f"text {number}" for number in range(10)), "bad", "last"]
    given = list(Client(server.url).classify_many(texts))
    assert len(given) == len(texts)
    assert given[10] == Failure("model_error", given[10].message, "do this")  # type: ignore[union-attr]
    assert all(isinstance(each, Answer) for at, each in enumerate(given) if at != 10)


def test_an_error_in_the_place_of_a_text(server: Server) -> None:
    said = {"error": {"code": "invalid_request", "message": "m", "hint": "h"}}
    server.script = refusing(200, [answer("a"), said])
    first, second = Client(server.url).classify_many(["a", "b"])
    assert isinstance(first, Answer)
    assert second == Failure("invalid_request", "m", "h")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_api_is_asked_again_when_it_says(server: Server, status: int) -> None:
    slept = Sleeps()
    server.script = after([error(status, "throttled", retry_after="7"), error(status, "x")])
    assert Client(server.url, sleep=slept).classify(TEXT).label == "positive"
    assert slept[0] == 7
    assert 0.5 <= slept[1] <= 1.0
    assert len(server.received) == 3


def test_it_gives_up_with_the_contract_s_words(server: Server) -> None:
    server.script = lambda _received: error(429, "throttled", retry_after="1", x_request_id="r1")
    slept = Sleeps()
    with pytest.raises(Throttled) as caught:
        Client(server.url, key="secret", retries=2, sleep=slept).classify(TEXT)
    assert len(server.received) == 3
    assert slept == [1, 1]
    found = caught.value
    assert (found.status, found.answer_code, found.request_id) == (429, "throttled", "r1")
    assert found.hint == "do this"
    assert "secret" not in f"{found} {found.__dict__}"
    assert TEXT not in str(found)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(400, "invalid_json"), InvalidRequest),
        (error(401, "unauthorized"), Unauthorized),
        (error(403, "forbidden"), Unauthorized),
        (error(404, "not_found"), ApiError),
        (error(413, "too_large"), InvalidRequest),
        (error(415, "unsupported_media_type"), InvalidRequest),
        (error(422, "invalid_request"), InvalidRequest),
        (error(429, "quota_exceeded"), Throttled),
        (error(500, "model_error"), ModelError),
        (error(504, "timeout"), Unavailable),
        (Reply(502, b"<html>bad gateway</html>"), Unavailable),
        (Reply(302, b"", {"location": "http://127.0.0.1:9/"}), ApiError),
        (Reply(200, b"not JSON"), ApiError),
        (Reply(200, b'{"label": "x"}'), ApiError),
        (Reply(200, b"[1]"), ApiError),
    ],
    ids=lambda value: f"{value.status} {value.body[:30]!r}" if isinstance(value, Reply) else "",
)
def test_errors_that_stay_are_not_retried(
    server: Server, reply: Reply, kind: type[ApiError]
) -> None:
    server.script = lambda _received: reply
    slept = Sleeps()
    with pytest.raises(ApiError) as caught:
        Client(server.url, sleep=slept).classify(TEXT)
    assert type(caught.value) is kind
    assert slept == []
    assert len(server.received) == 1


def test_too_many_or_too_few_answers_are_not_taken_for_answers(server: Server) -> None:
    server.script = refusing(200, [answer("a")])
    with pytest.raises(ApiError, match="not one of fdeploy's API"):
        list(Client(server.url).classify_many(["a", "b"]))


def test_nobody_listens(free_port: int) -> None:
    slept = Sleeps()
    with pytest.raises(Unavailable) as caught:
        Client(f"http://127.0.0.1:{free_port}/", retries=2, sleep=slept).classify(TEXT)
    assert caught.value.status == 0
    assert len(slept) == 2


def test_a_server_that_never_answers() -> None:
    slept = Sleeps()
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}/"
        with pytest.raises(Unavailable, match=r"within 0\.2 s"):
            Client(url, timeout=0.2, sleep=slept).classify(TEXT)
    assert slept == [], "a long text would only be late again"


@pytest.mark.parametrize("url", ["", "classify", "ftp://host/", "https://"])
def test_what_is_not_an_address(url: str) -> None:
    with pytest.raises(UsageError, match="not the address"):
        Client(url)


def test_the_key_is_not_shown(server: Server) -> None:
    assert "secret" not in repr(Client(server.url, key="secret"))
    assert "secret" not in repr(AsyncClient(server.url, key="secret"))


def test_async(server: Server) -> None:
    texts = [f"text {number}" for number in range(100)]

    async def work() -> tuple[Answer, list[str]]:
        async with AsyncClient(server.url, key="k") as api:
            one, two = await asyncio.gather(api.classify("one"), api.classify("two"))
            names = [
                each.model.name
                async for each in api.classify_many(texts, concurrency=3)
                if isinstance(each, Answer)
            ]
            assert two.model.name == "two"
            return one, names

    one, names = asyncio.run(work())
    assert one.model.name == "one"
    assert names == texts


def test_async_errors(server: Server) -> None:
    server.script = lambda _received: error(403, "forbidden")

    async def work() -> None:
        async with AsyncClient(server.url) as api:
            async for _ in api.classify_many(["a"] * 100):
                pass

    with pytest.raises(Unauthorized):
        asyncio.run(work())


def test_against_the_gateway(tmp_path: Path, server: Server) -> None:
    """The real gateway: its key, its limits and its errors are what the client expects."""
    with gateways(tmp_path, server) as start:
        gateway = start(max_body=2_000)
        url = f"http://127.0.0.1:{gateway.port}/classify"
        with pytest.raises(Unauthorized) as refused:
            Client(url, key="wrong").classify(TEXT)
        assert refused.value.answer_code == "forbidden"
        assert refused.value.request_id
        api = Client(url, key=gateway.key)
        assert api.classify(TEXT).model.name == TEXT
        texts = [f"{'a text ' * 20}{number}" for number in range(40)]
        given = list(api.classify_many(texts))
        assert [each.model.name for each in given if isinstance(each, Answer)] == texts
        (failure,) = api.classify_many(["x" * 3_000])
        assert isinstance(failure, Failure)
        assert failure.code == "too_large"


def test_throttled_by_the_gateway(tmp_path: Path, server: Server) -> None:
    slept = Sleeps()
    with gateways(tmp_path, server) as start:
        gateway = start(rate=0.001, burst=1)
        api = Client(
            f"http://127.0.0.1:{gateway.port}/classify", key=gateway.key, retries=1, sleep=slept
        )
        api.classify(TEXT)
        with pytest.raises(Throttled):
            api.classify(TEXT)
    assert len(slept) == 1
    assert slept[0] >= 1


def test_a_stage_without_an_api(tmp_path: Path) -> None:
    (tmp_path / "fdeploy.toml").touch()
    with pytest.raises(RecordMissing, match="create-api"):
        Client.of_stage(folder=tmp_path)


def test_proxies_of_the_environment_are_not_used_for_this_machine(
    server: Server,
) -> None:
    code = f"from fastai_deploy import Client; print(Client({server.url!r}).classify('a').label)"
    environ = {**os.environ, "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "positive\n"


def test_the_client_is_light() -> None:
    code = "import sys, fastai_deploy; fastai_deploy.Client; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "urllib3" in loaded
    assert not loaded & {"torch", "boto3", "pydantic", "typer", "rich", "numpy", "yaml"}


def test_the_types_are_those_of_what_is_exported() -> None:
    stub = Path(fastai_deploy.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    assert sorted(re.findall(r" as (\w+)", stub)) == fastai_deploy.__all__
    assert all(hasattr(fastai_deploy, name) for name in fastai_deploy.__all__)

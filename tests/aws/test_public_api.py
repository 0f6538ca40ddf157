"""What API callers get, against the double: documents, the demo page, a new key."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastai_deploy.records import Api
from tests.aws.test_flow import up
from tests.aws.world import World
from tests.packaged import Model


def ask(world: World, url: str, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(urlsplit(world.double.url).netloc, timeout=60)
    try:
        body = b'{"text": "a"}' if method == "POST" else None
        kind = {"content-type": "application/json", "host": parts.netloc}
        connection.request(method, parts.path, body, {**kind, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def with_key(world: World, api: Api, key: str) -> int:
    return ask(world, api.url, "POST", {"x-api-key": key})[0]


def test_a_key_is_replaced_and_stays_replaced(world: World, model: Model) -> None:
    _, api = up(world, model)
    before = world.target().key(api)
    assert before == Path(api.key_file).read_text()
    after = world.target().rotate_key(api)
    assert after != before
    assert Path(api.key_file).read_text() == after
    assert (with_key(world, api, before), with_key(world, api, after)) == (403, 200)
    names: Any = world.client("apigateway").get_api_keys()["items"]
    assert len(names) == 1, "the old one is deleted"
    endpoint = world.target().deploy(world.target().upload(model.artifact), model.verify)
    again = world.target().create_api(endpoint, model.verify)
    assert world.target().key(again) == after, "create-api leaves it as it is"

    status, document = ask(world, api.document, "GET", {})
    assert status == 200
    described = json.loads(document)
    assert described["servers"] == [{"url": "/dev"}]
    health = api.document.replace("/openapi.json", "/health")
    for url in (api.document, health):
        status, document = ask(world, url, "GET", {})
        assert ask(world, url, "HEAD", {}) == (status, b"")
        assert status == 200
    assert ask(world, api.url, "HEAD", {"x-api-key": after}) == (405, b"")
    assert world.target().teardown(artifacts=True).left == ()

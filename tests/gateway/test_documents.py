"""The documents that the handler serves: the URL in them, and the page's security headers."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from zipfile import ZipFile

import pytest

from fastai_deploy.api_docs.demo_page import page
from fastai_deploy.api_docs.lambda_documents import lambda_package
from fastai_deploy.api_docs.openapi import SAMPLE, encoded
from fastai_deploy.settings import load_settings
from tests.gateway.aws_events import Builder, function_url, http, rest
from tests.gateway.fakes import World

PAGE = page(SAMPLE, ["An <example> & more"])
DOCUMENTS = {"openapi.json": encoded(SAMPLE), "page.html": PAGE}


@pytest.mark.parametrize(
    ("event", "server"),
    [
        (rest(None, method="GET", path="/openapi.json"), "/dev"),
        (http(None, method="GET", path="/openapi.json"), "/dev"),
        (http(None, method="GET", path="/openapi.json", stage="$default"), "/"),
        (function_url(None, method="GET", path="/openapi.json"), "/"),
    ],
)
def test_the_document_says_where_it_was_fetched(event: dict[str, object], server: str) -> None:
    response = World(documents=DOCUMENTS).answer(event)
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    expected = {**json.loads(encoded(SAMPLE)), "servers": [{"url": server}]}
    assert json.loads(response.text) == expected


@pytest.mark.parametrize("before", ['/"evil', "/a b", "//evil.example", "evil", "/é", "/a/../b\n"])
def test_an_odd_path_is_not_repeated(before: str) -> None:
    event = rest(None, method="GET", path="/openapi.json")
    event["requestContext"]["path"] = f"{before}/openapi.json"
    response = World(documents=DOCUMENTS).answer(event)
    assert json.loads(response.text)["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("kind", [rest, http, function_url])
def test_what_was_not_shipped_is_not_there(kind: Builder) -> None:
    for path in ("/openapi.json", "/"):
        response = World().answer(kind(None, method="GET", path=path))
        assert (response.status, response.code) == (404, "not_found")


@pytest.mark.parametrize("kind", [rest, http, function_url])
def test_the_page_may_run_what_is_in_it_and_nothing_else(kind: Builder) -> None:
    response = World(documents=DOCUMENTS).answer(kind(None, method="GET", path="/"))
    assert response.status == 200
    assert response.text.encode() == PAGE
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-frame-options"] == "DENY"
    policy = dict(
        part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in response.headers["content-security-policy"]
    for kind_of, name in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{kind_of}>(.*?)</{kind_of}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"


def test_the_page_asks_nobody_else_and_escapes_what_it_is_given() -> None:
    text = PAGE.decode()
    assert "An &lt;example&gt; &amp; more" in text
    assert not re.search(
        r"https?://|//[a-z]+\.|@import|url\(|innerHTML|eval\(|style=|onclick", text
    )
    assert "localStorage" not in text
    assert "sessionStorage" not in text
    assert "document.cookie" not in text


def test_other_methods_are_not_allowed() -> None:
    response = World(documents=DOCUMENTS).answer(rest(method="POST", path="/"))
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


CARD = """\
---
license: unknown
---
<!-- Written by fdeploy export. -->
# reviews

Accuracy 0.91, <script>alert(1)</script> & more.
"""


def test_the_page_shows_the_card_as_text() -> None:
    shown = page(SAMPLE, [], CARD).decode()
    assert "Model card" in shown
    assert "Accuracy 0.91, &lt;script&gt;alert(1)&lt;/script&gt; &amp; more." in shown
    assert "license: unknown" not in shown
    assert "Written by" not in shown
    assert "Model card" not in page(SAMPLE, []).decode()


def test_a_bundle_s_card_is_packed_with_the_page(tmp_path: Path) -> None:
    def packed() -> str:
        settings = load_settings(folder=tmp_path, config=None, stage=None, environ={}, flags={})
        package = lambda_package(settings, tmp_path / "bundle", target="local")
        with ZipFile(io.BytesIO(package)) as file:
            (name,) = (each for each in file.namelist() if each.endswith("page.html"))
            return file.read(name).decode()

    assert "Model card" not in packed()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "card.md").write_text(CARD, encoding="utf-8")
    assert "Accuracy 0.91" in packed()

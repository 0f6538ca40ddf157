"""Generated client code: it runs, it names the API, and it holds no secret."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from typing import Literal

import pytest

from fastai_deploy.api_docs import client_code
from fastai_deploy.api_docs.client_code import collection
from fastai_deploy.records import Api

URL = "https://abc123.execute-api.eu-central-1.amazonaws.com/dev/classify"
Auth = Literal["key", "iam", "jwt", "none"]
SCHEMES: tuple[Auth, ...] = ("key", "iam", "jwt", "none")


def api(auth: Auth) -> Api:
    return Api("aws", URL, "demo-dev", "/home/o'neil/a key" if auth == "key" else "", "x", auth)


@pytest.mark.parametrize("auth", SCHEMES)
def test_python_is_python_and_names_the_url(auth: Auth) -> None:
    program = "\n".join(client_code.python(api(auth)))
    names = {node.id for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Name)}
    assert {"requests"} <= names
    assert URL in program
    assert "some text" in program
    assert {"key": "x-api-key", "jwt": "Bearer", "iam": "eu-central-1", "none": "{}"}[
        auth
    ] in program


@pytest.mark.parametrize("auth", SCHEMES)
def test_curl_is_understood_by_a_shell(auth: Auth) -> None:
    command = "\n".join(client_code.curl(api(auth)))
    echo = f'curl() {{ for word in "$@"; do echo "<$word>"; done; }}; {command}'
    shell = shutil.which("sh")
    assert shell
    done = subprocess.run([shell, "-c", echo], capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[-1] == f"<{URL}>"
    assert '<{"text": "some text"}>' in words
    wanted = {"key": "<x-api-key: >", "jwt": "<authorization: Bearer >", "none": "<-H>"}
    assert wanted.get(auth, "<aws:amz:eu-central-1:execute-api>") in words
    if auth == "key":
        assert "o'neil/a key" in done.stderr, "cat was asked for the very file"


@pytest.mark.parametrize("auth", SCHEMES)
def test_a_collection_asks_for_what_it_needs(auth: Auth) -> None:
    made = json.loads(collection(api(auth), "demo"))
    kinds = {"key": "apikey", "iam": "awsv4", "jwt": "bearer", "none": "noauth"}
    assert made["auth"]["type"] == kinds[auth]
    assert all(variable["value"] == "" for variable in made["variable"])
    url = made["item"][0]["request"]["url"]
    assert url["raw"] == URL
    assert url["host"][0] == "abc123"
    assert url["path"] == ["dev", "classify"]

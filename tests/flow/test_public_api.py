"""The public API through the real command: many texts, keys, documents."""

from __future__ import annotations

import csv
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fastai_deploy import Answer, Client
from tests.conftest import Fdeploy, result_of
from tests.flow.conftest import Exports
from tests.flow.learners import CONVERTIBLE
from tests.flow.test_flow import call
from tests.terminal import in_terminal

LABELS = {"negative", "neutral", "positive"}
TEXTS = [f"{mood} film, number {number}" for number in range(60) for mood in ("good", "bad")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Iterator[Fdeploy]:
    command = Fdeploy(tmp_path_factory.mktemp("it's served"))
    exports.bring(CONVERTIBLE[1], command.folder)
    (command.folder / "fdeploy.toml").write_text(
        "[project]\nname = 'reviews'\n[model]\nlearner = 'learner.pkl'\n"
        "golden = 'golden.jsonl'\n"
        "[api]\ncors_origins = ['https://app.example']\nmax_body = 200000\nburst = 20\n"
    )
    up = command.ok("up")
    assert "CORS: https://app.example may call the API" in up.stderr
    assert "rate limit" in up.stderr  # reached or not, as fast as the machine is
    (command.folder / "shown.txt").write_text(up.stdout, encoding="utf-8")
    with (command.folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "review"], *enumerate(TEXTS)])
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (command.folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    yield command
    command("teardown")


def api_of(served: Fdeploy) -> Any:
    return json.loads((served.folder / ".fdeploy/dev/create-api.json").read_bytes())


def answers(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Many texts


@pytest.mark.parametrize("through", [[], ["--api"]])
def test_a_table_is_answered_in_order(served: Fdeploy, through: list[str]) -> None:
    done = served.ok("invoke", "texts.csv", "--column", "review", "--json", *through)
    found = [result_of(line) for line in done.stdout.splitlines()]
    assert [each["text"] for each in found] == TEXTS
    assert [each["row"] for each in found] == list(range(1, 121))
    assert all(set(each["probabilities"]) == LABELS for each in found)
    single = served.ok("invoke", TEXTS[7], "--json").json
    assert found[7]["probabilities"] == pytest.approx(single["probabilities"], abs=1e-4)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert told[-1] == {"event": "advanced", "task": "invoke", "done": 120, "total": 120} | {
        "unit": "texts"
    }


def test_what_is_missing_is_asked_and_nothing_else(served: Fdeploy) -> None:
    output = served.folder / "answers.jsonl"
    first = served.ok("invoke", "texts.jsonl", "--output", "answers.jsonl", "--json").json
    assert (first["texts"], first["reused"], first["failed"]) == (120, 0, [])
    whole = output.read_bytes()
    # As after an interruption: some answers, in another order, and half of one.
    lines = whole.splitlines(keepends=True)
    output.write_bytes(b"".join([*lines[40:60], *lines[:20], lines[25][:30]]))
    again = served.ok("invoke", "texts.jsonl", "--output", "answers.jsonl")
    assert "120 answered (40 reused)" in again.stdout
    assert [each["text"] for each in answers(output)] == TEXTS
    for before, now in zip(map(json.loads, lines), answers(output), strict=True):
        assert now["probabilities"] == pytest.approx(before["probabilities"], abs=1e-4)
    less = served.ok("invoke", "texts.jsonl", "--output", "answers.jsonl", "--top-k", "1", "--json")
    assert less.json["reused"] == 0
    assert all(len(each["probabilities"]) == 1 for each in answers(output))


def test_a_text_that_is_too_large_fails_alone(served: Fdeploy) -> None:
    texts = ["good", "x " * 500_000, "bad"]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    (served.folder / "large.jsonl").write_text(lines, encoding="utf-8")
    outcome = served("invoke", "large.jsonl", "--api", "--output", "large.out", "--json")
    assert outcome.status == 10
    assert outcome.error["message"] == "1 of 3 texts failed: row 2 (too_large)"
    assert outcome.json["failed"] == [2]
    found = answers(served.folder / "large.out")
    assert [each["row"] for each in found] == [1, 2, 3]
    assert found[1]["error"]["code"] == "too_large"
    # The endpoint accepts it directly; texts that have an answer are not sent again.
    assert served.ok("invoke", "large.jsonl", "--output", "large.out", "--json").json["reused"] == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["texts.csv"], 2, "no column text; the columns are: id, review"),
        (["texts.csv", "--column", "nonsense"], 2, "no column nonsense"),
        (["absent.csv"], 4, "does not exist"),
        (["empty.csv"], 4, "is empty"),
        (["empty.jsonl"], 4, "contains no texts"),
        (["line7.jsonl"], 4, "line 7: not JSON"),
        (["learner.csv"], 2, "not UTF-8"),
        (["texts.jsonl", "--output", "texts.jsonl"], 2, "is the input file"),
        (["texts.jsonl", "--output", "fdeploy.toml"], 4, "line 1: not an answer"),
        (["texts.jsonl", "--output", "no/such/folder"], 0, ""),
        (["texts.jsonl", "--concurrency", "0"], 2, "--concurrency"),
    ],
)
def test_bad_input(served: Fdeploy, arguments: list[str], status: int, message: str) -> None:
    folder = served.folder
    (folder / "empty.csv").write_text("")
    (folder / "empty.jsonl").write_text("\n")
    (folder / "line7.jsonl").write_text('{"text": "a"}\n' * 6 + "{oops\n")
    (folder / "learner.csv").write_bytes((folder / "learner.pkl").read_bytes())
    outcome = served("invoke", *arguments, "--json")
    assert outcome.status == status, outcome.stderr
    assert "Traceback" not in outcome.stderr
    if status:
        assert message in outcome.error["message"]


def test_the_text_is_what_is_shown_and_it_paints_nothing(served: Fdeploy) -> None:
    (served.folder / "painted.jsonl").write_text(json.dumps("good \x1b[31m film\r\nred") + "\n")
    shown = served.ok("invoke", "painted.jsonl").stdout
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 1


# The key


def test_the_key_is_shown_and_replaced(served: Fdeploy) -> None:
    api = api_of(served)
    before = served.ok("key", "show").stdout.strip()
    assert before == Path(api["key_file"]).read_text(encoding="utf-8")
    assert call(api["url"], before, {"text": "a"})[0] == 200
    after = served.ok("key", "rotate", "--json").json["key"]
    assert after != before
    assert len(after) == 40
    assert call(api["url"], before, {"text": "a"})[0] == 403
    assert call(api["url"], after, {"text": "a"})[0] == 200
    assert Path(api["key_file"]).stat().st_mode & 0o777 == 0o600
    assert not (Path(api["key_file"]).parent / "proof-key").exists()
    served.ok("invoke", "a text", "--api")
    assert after not in (served.folder / ".fdeploy/dev/create-api.json").read_text()


def test_without_an_api_there_is_no_key(tmp_path: Path) -> None:
    outcome = Fdeploy(tmp_path)("key", "show", "--json")
    assert outcome.status == 7
    assert outcome.error["hint"] == "run fdeploy up learner.pkl"


# The output of create-api


def snippets(served: Fdeploy) -> tuple[str, str]:
    """The curl command and the Python program, as they were printed."""
    _, curl, *program = (served.folder / "shown.txt").read_text(encoding="utf-8").split("\n\n")
    assert curl.startswith("curl ")
    return curl, "\n\n".join(program)


def test_the_printed_curl_works(served: Fdeploy) -> None:
    command, _ = snippets(served)
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    assert set(json.loads(done.stdout)["probabilities"]) == LABELS


def test_the_printed_program_works(served: Fdeploy) -> None:
    _, program = snippets(served)
    assert "requests.post(" in program
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "probabilities" in done.stdout


def test_what_is_printed_names_the_rest(served: Fdeploy) -> None:
    api = api_of(served)
    shown = (served.folder / "shown.txt").read_text(encoding="utf-8")
    for line in (
        f"url      {api['url']}",
        f"page     {api['page']}",
        f"openapi  {api['document']}",
    ):
        assert line in shown
    assert api["key_file"] in shown
    assert Path(api["key_file"]).read_text(encoding="utf-8") not in shown


# The documents


def test_the_document_has_the_labels_of_the_model(served: Fdeploy) -> None:
    printed = served.ok("openapi", "--json").json
    assert printed["components"]["schemas"]["Label"]["enum"] == ["negative", "neutral", "positive"]
    api = api_of(served)
    status, fetched = fetch(api["document"])
    assert status == 200
    base = api["url"].removesuffix("/classify")
    assert printed == {**json.loads(fetched), "servers": [{"url": base}]}
    assert printed["info"]["title"] == "reviews"


def test_the_page_is_there(served: Fdeploy) -> None:
    status, page = fetch(api_of(served)["page"])
    assert status == 200
    assert b"Tells apart: negative, neutral, positive." in page
    assert b'data-limit="200000"' in page


def test_the_collection_holds_requests_and_no_key(served: Fdeploy) -> None:
    text = (served.folder / ".fdeploy/dev/collection.json").read_text(encoding="utf-8")
    api = api_of(served)
    key = Path(api["key_file"]).read_text(encoding="utf-8")
    assert key not in text
    collection = json.loads(text)
    assert collection["info"]["schema"].endswith("/v2.1.0/collection.json")
    assert {pair["key"]: pair["value"] for pair in collection["auth"]["apikey"]} == {
        "key": "x-api-key",
        "value": "{{key}}",
        "in": "header",
    }
    for item in collection["item"]:
        request = item["request"]
        headers = {header["key"]: header["value"] for header in request["header"]}
        status, _ = fetch(
            request["url"]["raw"],
            request["method"],
            request.get("body", {}).get("raw"),
            {**headers, "x-api-key": key},
        )
        assert status == 200, item["name"]


def fetch(
    url: str, method: str = "GET", body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, parts.path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# Who may call


def ask(url: str, key: str, kind: str, body: str, **headers: str) -> tuple[int, object]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        sent = {"content-type": kind, "x-api-key": key, **headers}
        connection.request("POST", parts.path, body, sent)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def urls(served: Fdeploy) -> list[str]:
    endpoint = json.loads((served.folder / ".fdeploy/dev/local/endpoint.json").read_bytes())
    return [api_of(served)["url"], f"http://127.0.0.1:{endpoint['port']}/invocations"]


def test_json_from_fetch_is_accepted(served: Fdeploy) -> None:
    key = served.ok("key", "show").stdout.strip()
    body = json.dumps({"text": TEXTS[0]})
    for url in urls(served):
        plain = ask(url, key, "text/plain;charset=UTF-8", body)
        assert plain == ask(url, key, "application/json", body)
        assert plain[0] == 200


def test_both_servers_answer_only_this_machine(served: Fdeploy) -> None:
    key = served.ok("key", "show").stdout.strip()
    text = json.dumps({"text": "good"})
    settings = served.folder / "fdeploy.toml"

    def statuses(**headers: str) -> list[int]:
        return [ask(url, key, "application/json", text, **headers)[0] for url in urls(served)]

    assert statuses(host="hub.example") == [403, 403]
    assert statuses(origin="https://evil.example") == [403, 403]
    assert statuses(origin="https://app.example") == [200, 200]
    assert statuses(host="localhost:1") == [200, 200]
    before = settings.read_text()
    settings.write_text(before.replace("[api]\n", "[api]\nallowed_hosts = ['hub.example']\n"))
    try:
        served.ok("up")
        assert statuses(host="hub.example", origin="https://hub.example") == [200, 200]
        assert statuses(host="evil.example") == [403, 403]
    finally:
        settings.write_text(before)
        served.ok("up")
    assert statuses(host="hub.example") == [403, 403]


# In a browser, and from Python


BROWSER = """\
#!{python}
import http.client, json, sys, urllib.parse
parts = urllib.parse.urlsplit(sys.argv[1])
found = []
for _ in range(2):
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.request("GET", parts.path)
    reply = connection.getresponse()
    found.append([reply.status, reply.getheader("location")])
    connection.close()
with open({seen!r}, "w") as file:
    json.dump([sys.argv[1:], found], file)
"""


def test_a_browser_is_given_the_key_in_the_fragment(served: Fdeploy, tmp_path: Path) -> None:
    key = (served.folder / ".fdeploy/dev/local/key").read_text()
    browser, seen = tmp_path / "browser", tmp_path / "seen.json"
    browser.write_text(BROWSER.format(python=sys.executable, seen=str(seen)), encoding="utf-8")
    browser.chmod(0o755)
    command = Fdeploy(served.folder, {"BROWSER": str(browser)})
    shown = in_terminal(command, "open")
    page = api_of(served)["page"]
    assert shown.status == 0, shown.shown
    assert shown.stdout == f"opened   {page}\n"
    arguments, replies = json.loads(seen.read_bytes())
    assert replies == [[302, f"{page}#key={key}"], [404, None]], "once, and nothing in a query"
    assert key not in f"{arguments} {shown.stdout} {shown.shown}"


def test_without_a_display_the_address_is_printed(served: Fdeploy) -> None:
    key_file = str(served.folder / ".fdeploy/dev/local/key")
    found = served.ok("open", "--json").json
    assert found == {"url": api_of(served)["page"], "opened": False, "key_file": key_file}
    plain = served.ok("open")
    assert "(fdeploy key show)" in plain.stdout
    assert Path(key_file).read_text() not in plain.stdout + plain.stderr


def test_this_machine_has_no_console(served: Fdeploy) -> None:
    assert "no console" in served("open", "--console", "--json").error["message"]


def test_the_client_finds_the_stage(served: Fdeploy) -> None:
    with Client.of_stage(folder=served.folder) as api:
        assert api.url == api_of(served)["url"]
        one = api.classify(TEXTS[0], top_k=1)
        assert len(one.probabilities) == 1
        many = list(api.classify_many(TEXTS))
    assert all(isinstance(each, Answer) for each in many)
    named = [each.label for each in many if isinstance(each, Answer)]
    done = served.ok("invoke", "texts.csv", "--column", "review", "--json")
    assert named == [result_of(line)["label"] for line in done.stdout.splitlines()]

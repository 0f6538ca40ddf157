"""Schemathesis on the OpenAPI document: no 5xx, and no answer that the document does not list."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gateway.fuzz_contract import fuzz
from tests.gateway.servers import Received, Reply
from tests.page.reviews import reviews


def test_the_gateway_answers_as_documented(tmp_path: Path) -> None:
    done = fuzz(tmp_path, examples=40, seed=1)
    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout
    assert "3 selected / 3 total" in done.stdout, "all but the document itself"


def without_model(received: Received) -> Reply:
    answer = json.loads(reviews(received).body)
    for each in answer if isinstance(answer, list) else [answer]:
        del each["model"]
    return Reply(body=json.dumps(answer).encode())


def test_an_undocumented_answer_is_found(tmp_path: Path) -> None:
    done = fuzz(tmp_path, examples=1, seed=1, script=without_model, phases="examples")
    assert done.returncode == 1, done.stdout
    assert "Response violates schema" in done.stdout

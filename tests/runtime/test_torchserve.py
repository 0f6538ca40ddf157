"""The native handler, called as TorchServe's worker calls it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.runtime.bundle import ModelError
from fastai_deploy.runtime.hosts.torchserve import Handler
from tests.runtime.bundles import PANIC, TinyBundle, panicking, write_bundle


@dataclass
class Context:
    """TorchServe's context: the model's folder, and the content types of requests and answers."""

    folder: Path
    kinds: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    types: dict[int, str] = field(default_factory=dict)

    @property
    def system_properties(self) -> dict[str, Any]:
        return {"model_dir": str(self.folder)}

    def get_request_header(self, place: int, key: str) -> Any:
        return {"content-type": self.kinds[place]} if key == "body" else None

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        del phrase
        self.statuses[idx] = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.types[idx] = value


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return write_bundle(tmp_path_factory.mktemp("torchserve") / "bundle")


@pytest.fixture(scope="module")
def handler(tiny: TinyBundle) -> Handler:
    made = Handler()
    assert made(None, Context(tiny.folder)) == []
    return made


def test_each_request_of_a_batch_gets_its_own_answer(tiny: TinyBundle, handler: Handler) -> None:
    texts = ["a great film", "no", "what a movie, what a story"]
    batch = [{"body": json.dumps({"text": text}).encode()} for text in texts]
    context = Context(tiny.folder, ["application/json"] * 3)
    for text, body in zip(texts, handler(batch, context), strict=True):
        expected = pytest.approx(tiny.expected(text), abs=1e-5)
        assert json.loads(body)["probabilities"] == expected
    assert context.statuses == {}
    assert context.types == dict.fromkeys(range(3), "application/json")


def test_one_bad_request_never_fails_its_neighbours(tiny: TinyBundle, handler: Handler) -> None:
    batch: list[dict[str, Any]] = [
        {"body": b'{"text": "no"}'},
        {"body": b"no json"},
        {"body": bytearray(b'{"txt": 1}')},
        {"body": b"a,b"},
        {"field": b"of a form that TorchServe took apart"},
        {"body": b'{"text": "no"}\n{"text": 1}'},
    ]
    json_ = "application/json"
    context = Context(tiny.folder, [json_, json_, json_, "text/csv", "", "application/jsonlines"])
    answers = handler(batch, context)
    assert context.statuses == {1: 400, 2: 422, 3: 415, 4: 415}
    assert "label" in json.loads(answers[0])
    good, bad = map(json.loads, answers[5].splitlines())
    assert ("label" in good, "error" in bad) == (True, True)
    assert context.types[5] == "application/jsonlines"


def test_a_text_on_which_the_tokenizer_panics_fails_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = write_bundle(tmp_path / "bundle", tokenizer=panicking())
    handler = Handler()
    handler(None, Context(tiny.folder))
    batch = [{"body": json.dumps({"text": text}).encode()} for text in ("no", PANIC)]
    context = Context(tiny.folder, ["application/json"] * 2)
    good, bad = map(json.loads, handler(batch, context))
    assert "label" in good
    assert bad["error"]["code"] == "model_error"
    assert context.statuses == {1: 500}
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [each["error"] for each in events if each["event"] == "defect"] == ["TokenizerFailed"]


def test_a_model_that_cannot_be_served_stops_the_worker_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = write_bundle(tmp_path / "bundle")
    with (tiny.folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        Handler()(None, Context(tiny.folder))
    event = json.loads(capsys.readouterr().err)
    assert event["event"] == "refused"
    assert "model.onnx" in event["reason"]

"""The four functions, called as the SageMaker PyTorch toolkit calls them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.runtime.bundle import ModelError
from fastai_deploy.runtime.golden_check import Predicting
from fastai_deploy.runtime.hosts.toolkit import input_fn, model_fn, output_fn, predict_fn
from tests.runtime.bundles import PANIC, TinyBundle, panicking, write_bundle


@dataclass
class Context:
    """TorchServe's context; records the status that was set."""

    statuses: list[tuple[int, str]] = field(default_factory=list)

    def set_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Record the status of the answer."""
        self.statuses.append((code, phrase))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return write_bundle(tmp_path_factory.mktemp("inference") / "bundle")


@pytest.fixture(scope="module")
def model(tiny: TinyBundle) -> Predicting:
    return model_fn(str(tiny.folder))


def invoke(
    model: Predicting, data: str | bytes | bytearray, kind: str, context: Context
) -> tuple[Any, str]:
    body, content_type = output_fn(predict_fn(input_fn(data, kind), model), "*/*", context)
    return body, content_type


def test_it_says_how_it_serves(tiny: TinyBundle, capfd: pytest.CaptureFixture[str]) -> None:
    model_fn(str(tiny.folder))
    ready = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert (ready["event"], ready["way"], ready["passed_over"]) == (
        "ready",
        "ONNX Runtime, fp32",
        [],
    )
    assert ready["threads"] == 1  # the toolkit starts a worker per core


def test_json_comes_as_text(tiny: TinyBundle, model: Predicting) -> None:
    context = Context()
    body, kind = invoke(model, '{"text": "a great film"}', "application/json", context)
    expected = pytest.approx(tiny.expected("a great film"), abs=1e-6)
    assert json.loads(body)["probabilities"] == expected
    assert kind == "application/json"
    assert context.statuses == []


def test_everything_else_comes_as_bytes(model: Predicting) -> None:
    body, kind = invoke(
        model, bytearray(b'{"text": "no"}\n{"text": 1}'), "application/jsonlines", Context()
    )
    first, second = map(json.loads, body.splitlines())
    assert "label" in first
    assert second["error"]["code"] == "invalid_request"
    assert kind == "application/jsonlines"


@pytest.mark.parametrize(
    ("data", "kind", "status", "code"),
    [
        ("no json", "application/json", 400, "invalid_json"),
        ("\ud800", "application/json", 400, "invalid_json"),
        ('{"text": 1}', "application/json", 422, "invalid_request"),
        (b"a,b", "text/csv", 415, "unsupported_media_type"),
    ],
)
def test_errors_are_answers_with_their_own_status(
    model: Predicting, data: str | bytes, kind: str, status: int, code: str
) -> None:
    context = Context()
    body, _ = invoke(model, data, kind, context)
    assert json.loads(body)["error"]["code"] == code
    assert [each[0] for each in context.statuses] == [status]


def test_a_text_on_which_the_tokenizer_panics_is_answered_by_the_contract(tmp_path: Path) -> None:
    tiny = write_bundle(tmp_path / "bundle", tokenizer=panicking())
    context = Context()
    texts = json.dumps({"texts": ["no", PANIC]})
    body, _ = invoke(model_fn(str(tiny.folder)), texts, "application/json", context)
    good, bad = json.loads(body)
    assert "label" in good
    assert bad["error"]["code"] == "model_error"
    assert context.statuses == []


def test_the_toolkit_finds_out_by_the_number_of_parameters_who_takes_a_context() -> None:
    counts = {
        function.__name__: len(signature(function).parameters)
        for function in (model_fn, input_fn, predict_fn, output_fn)
    }
    assert counts == {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 3}


def test_a_damaged_model_stops_the_worker(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.json is missing"):
        model_fn(str(tmp_path))

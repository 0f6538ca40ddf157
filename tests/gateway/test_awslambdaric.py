"""The zip that is uploaded, run by AWS's own runtime client, with a real boto3 client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.api_docs.demo_page import page
from fastai_deploy.api_docs.openapi import SAMPLE, encoded
from fastai_deploy.packaging.lambda_zip import build_lambda_package
from fastai_deploy.targets.local.gateway.sagemaker_runtime import (
    SageMakerRuntimeConfig,
    serve_sagemaker_runtime,
)
from tests.gateway.aws_events import KINDS, Builder, rest
from tests.gateway.fakes import Response
from tests.gateway.lambda_runtime import RuntimeApi, function
from tests.gateway.servers import Server, echo

DOCUMENTS = {"openapi.json": encoded(SAMPLE), "page.html": page(SAMPLE, ["a text"])}


@dataclass(frozen=True)
class Lambda:
    runtime: RuntimeApi
    model: Server
    log: Path

    def answer(self, event: Any) -> Response:
        kind, body = self.runtime.invoke(event)
        assert kind == "response", body
        return Response(body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if "{" in line]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambda]:
    folder = tmp_path_factory.mktemp("lambda")
    state = folder / "endpoint.json"
    with Server(echo).running() as model:
        state.write_bytes(model.state)
        with serve_sagemaker_runtime(
            SageMakerRuntimeConfig("demo-dev", state, "LAMBDAROLE")
        ) as url:
            environ = {
                "FDEPLOY_ENDPOINT": "demo-dev",
                "FDEPLOY_CORS_ORIGINS": "https://app.example",
                "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url,
            }
            log = folder / "log"
            with function(build_lambda_package(DOCUMENTS), folder, environ, log) as runtime:
                yield Lambda(runtime, model, log)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_is_answered(deployed: Lambda, kind: Builder) -> None:
    response = deployed.answer(kind('{"texts": ["ein söß", "b"]}'))
    assert response.status == 200
    assert [each["label"] for each in json.loads(response.text)] == ["ein söß", "b"]
    refused = deployed.answer(kind('{"txt": "a"}', headers={"Origin": "https://app.example"}))
    assert (refused.status, refused.code) == (422, "invalid_request")
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    described = deployed.answer(kind(None, method="GET", path="/openapi.json"))
    assert json.loads(described.text)["info"]["title"] == "demo"
    shown = deployed.answer(kind(None, method="GET", path="/"))
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert deployed.answer(kind(None, method="GET", path="/health")).status == 200


def test_each_request_has_a_line_with_metrics_and_without_text(deployed: Lambda) -> None:
    before = len(deployed.lines())
    deployed.answer(rest('{"text": "my private diary"}'))
    (line,) = deployed.lines()[before:]
    assert line["status"] == 200
    assert line["lambda_request_id"] != "-"
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "fdeploy"
    assert "diary" not in deployed.log.read_text()


def test_a_model_that_fails_is_an_answer_and_no_error_of_the_function(deployed: Lambda) -> None:
    state_lost = rest('{"text": "a"}')
    deployed.model.script = lambda _received: (_ for _ in ()).throw(ConnectionError)
    try:
        response = deployed.answer(state_lost)
    finally:
        deployed.model.script = echo
    assert (response.status, response.code) == (503, "not_ready")
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize("event", [None, [], "text", 1, {"Records": []}])
def test_an_invalid_event_gets_an_answer(deployed: Lambda, event: Any) -> None:
    assert deployed.answer(event).status == 404


def test_a_function_without_settings_answers_that_it_is_broken(tmp_path: Path) -> None:
    with function(build_lambda_package(), tmp_path, {}, tmp_path / "log") as runtime:
        kind, body = runtime.invoke(rest())
    assert (kind, body["statusCode"]) == ("response", 500)
    assert runtime.broken == [], "the function itself came up"
    assert "FDEPLOY_ENDPOINT" in (tmp_path / "log").read_text()

"""The zip of a function with its model, run by AWS's own runtime client."""

from __future__ import annotations

import http.server
import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.api_docs.openapi import SAMPLE, encoded
from fastai_deploy.packaging.function_zip import (
    HANDLER,
    FunctionPackage,
    build_function_package,
)
from fastai_deploy.packaging.wheels import FUNCTION
from fastai_deploy.runtime.hosts.lambda_function import STORED_VARIABLE
from tests.gateway.aws_events import KINDS, Builder, function_url, rest
from tests.gateway.fakes import Response
from tests.gateway.lambda_runtime import RuntimeApi, function
from tests.packaged import Model, write_model
from tests.runtime.bundles import GOLDEN_TEXTS

DOCUMENTS = {"openapi.json": encoded(SAMPLE)}
ENVIRON = {
    "FDEPLOY_ENDPOINT": "demo-dev-lambda",
    "FDEPLOY_CORS_ORIGINS": "https://app.example",
    "FDEPLOY_VERSION": "0123456789ab",
    "AWS_LAMBDA_FUNCTION_NAME": "demo-dev-lambda",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("model"), "tiny", container=FUNCTION)


@dataclass(frozen=True)
class Running:
    runtime: RuntimeApi
    log: Path
    task: Path

    def answer(self, event: Any) -> Response:
        kind, body = self.runtime.invoke(event)
        assert kind == "response", body
        return Response(body)

    def ask(self, event: Any) -> Any:
        kind, body = self.runtime.invoke(event)
        assert kind == "response", body
        return body

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if "{" in line]

    def line(self, event: str) -> Any:
        return next(line for line in self.lines() if line.get("event") == event)


def package(model: Model, folder: Path, **options: Any) -> FunctionPackage:
    artifact = Path(model.artifact.path)
    return build_function_package(
        artifact, folder / "function.zip", DOCUMENTS, **{"python": None, **options}
    )


@contextmanager
def running(package: FunctionPackage, folder: Path, **options: Any) -> Iterator[Running]:
    environ = {**ENVIRON, "TMPDIR": str(folder), **options.pop("environ", {})}
    log, data = folder / "log", package.path.read_bytes()
    with function(data, folder, environ, log, handler=HANDLER, **options) as runtime:
        yield Running(runtime, log, folder / "task")


@pytest.fixture(scope="module")
def deployed(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("function")
    made = package(model, folder)
    assert not made.reads
    with running(made, folder) as found:
        yield found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_is_answered_by_the_model(
    deployed: Running, model: Model, kind: Builder
) -> None:
    body = json.dumps({"texts": [GOLDEN_TEXTS[0], "no"]})
    first, second = json.loads(deployed.answer(kind(body)).text)
    assert first["probabilities"] == pytest.approx(model.bundle.expected(GOLDEN_TEXTS[0]), abs=1e-4)
    assert second["model"]["version"] == ENVIRON["FDEPLOY_VERSION"]
    refused = deployed.answer(kind('{"txt": "a"}', headers={"Origin": "https://app.example"}))
    assert (refused.status, refused.code) == (422, "invalid_request")
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    described = deployed.answer(kind(None, method="GET", path="/openapi.json"))
    assert json.loads(described.text)["info"]["title"] == "demo"
    assert deployed.answer(kind(None, method="GET", path="/health")).status == 200


def test_it_answers_a_direct_invocation_in_the_words_of_the_contract(
    deployed: Running, model: Model
) -> None:
    for text in GOLDEN_TEXTS:
        answer = deployed.ask({"text": text})
        assert answer["probabilities"] == pytest.approx(model.bundle.expected(text), abs=1e-4)
    assert len(deployed.ask({"texts": ["a", 1, "b"], "top_k": 1})) == 3
    refused = deployed.ask({"txt": "a"})
    assert (refused["status"], refused["error"]["code"]) == (422, "invalid_request")
    large = deployed.ask({"texts": ["a good film " * 100] * 1_000})
    assert len(large) == 1_000, "max_body is the public API's limit"


@pytest.mark.parametrize("event", [None, [], "text", 1, {"Records": []}])
def test_an_invalid_event_gets_an_answer(deployed: Running, event: Any) -> None:
    answer = deployed.ask(event)
    assert answer.get("status", answer.get("statusCode")) in (404, 422)


def test_a_cold_start_and_the_memory_are_logged_and_the_text_is_not(deployed: Running) -> None:
    ready = deployed.line("ready")
    assert (ready["goldens"], ready["threads"], ready["memory"]) == (2, 1, 512)
    deployed.answer(rest('{"text": "my private diary"}'))
    requests = [line for line in deployed.lines() if line.get("texts") and line["status"] == 200]
    assert [line.get("cold", False) for line in requests].count(True) == 1
    assert requests[0]["cold"]
    assert requests[-1]["memory_mb"] > 0
    assert "diary" not in deployed.log.read_text()


def test_it_writes_nothing_where_its_code_is(deployed: Running) -> None:
    deployed.ask({"text": "a"})
    written = {path.name for path in deployed.task.rglob("*") if path.is_file()}
    assert not [name for name in written if name.endswith(".pyc")]
    assert "manifest.json" in written


class _Bucket(http.server.BaseHTTPRequestHandler):
    """S3's GetObject for one object, by its own HTTP protocol."""

    def __init__(self, state: dict[str, Any], *arguments: Any) -> None:
        self.state = state
        super().__init__(*arguments)

    def do_GET(self) -> None:
        status, code = self.state["status"], self.state["code"]
        body = f"<Error><Code>{code}</Code></Error>".encode()
        if status == 206:
            first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
            body = self.state["object"][int(first) : int(last) + 1]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name
        pass


@contextmanager
def bucket(data: bytes) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The state of a bucket, and the variables of a function that reads its object."""
    state: dict[str, Any] = {"status": 206, "code": "", "object": data}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Bucket, state))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield (
            state,
            {
                STORED_VARIABLE: "s3://bucket/model.tar.gz",
                "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
            },
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def small(model: Model, tmp_path_factory: pytest.TempPathFactory) -> FunctionPackage:
    """A package for which the model is too large."""
    folder = tmp_path_factory.mktemp("small")
    whole = package(model, folder)
    made = package(model, folder, room=whole.unpacked + 64 * 1024 - 1)
    assert made.reads
    return made


def test_a_model_that_does_not_fit_is_read_from_the_bucket(
    small: FunctionPackage, model: Model, tmp_path: Path
) -> None:
    with bucket(Path(model.artifact.path).read_bytes()) as (_, environ):
        with running(small, tmp_path, environ=environ) as found:
            assert not list((found.task / "model").glob("*.onnx"))
            answer = found.ask({"text": GOLDEN_TEXTS[0]})
    assert answer["probabilities"] == pytest.approx(
        model.bundle.expected(GOLDEN_TEXTS[0]), abs=1e-4
    )


@pytest.mark.parametrize(("status", "reason"), [(404, "NoSuchKey"), (403, "AccessDenied")])
def test_a_model_that_cannot_be_read_is_503_until_it_can(
    *, small: FunctionPackage, model: Model, tmp_path: Path, status: int, reason: str
) -> None:
    with bucket(Path(model.artifact.path).read_bytes()) as (state, environ):
        state.update(status=status, code=reason)
        with running(small, tmp_path, environ=environ) as found:
            response = found.answer(rest('{"text": "a"}'))
            assert (response.status, response.code) == (503, "not_ready")
            assert response.headers["retry-after"]
            assert found.ask({"text": "a"})["error"]["code"] == "not_ready"
            assert reason in found.line("refused")["reason"]
            state["status"] = 206
            assert found.answer(rest('{"text": "a"}')).status == 200


def test_a_model_that_was_changed_is_not_served(
    small: FunctionPackage, model: Model, tmp_path: Path
) -> None:
    changed = bytearray(Path(model.artifact.path).read_bytes())
    changed[changed.index(b"model.onnx\0") + 700] ^= (
        1  # in the graph, after its header of 512 bytes
    )
    with bucket(bytes(changed)) as (_, environ), running(small, tmp_path, environ=environ) as found:
        assert found.answer(rest('{"text": "a"}')).code == "not_ready"
        assert "not the one that was deployed" in found.line("refused")["reason"]


def test_a_full_tmp_is_said_in_the_log(
    small: FunctionPackage, model: Model, tmp_path: Path
) -> None:
    limits = {resource.RLIMIT_FSIZE: 3_000}
    with bucket(Path(model.artifact.path).read_bytes()) as (_, environ):
        with running(small, tmp_path, environ=environ, limits=limits) as found:
            assert found.answer(rest('{"text": "a"}')).code == "not_ready"
            assert "cannot be written: File too large" in found.line("refused")["reason"]


def test_a_function_with_too_little_memory_says_so(model: Model, tmp_path: Path) -> None:
    made = package(model, tmp_path)
    environ = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "0"}
    with running(made, tmp_path, environ=environ) as found:
        assert found.answer(rest('{"text": "a"}')).code == "not_ready"
        assert "MB of memory" in found.line("refused")["reason"]


def test_a_request_that_takes_too_long_is_504_and_the_next_one_is_answered(
    model: Model, tmp_path: Path
) -> None:
    """Nobody waits any more: the function stops in mid-batch, and its environment stays."""
    many = json.dumps({"texts": ["a good film " * 200] * 1_000})
    environ = {"FDEPLOY_TIMEOUT_MS": "20", "FDEPLOY_MAX_BODY": "6000000"}
    with running(package(model, tmp_path), tmp_path, environ=environ) as found:
        pid = found.runtime.pid
        for event in (rest(many), function_url(many)):
            late = found.answer(event)
            assert (late.status, late.code) == (504, "timeout")
            assert found.answer(rest('{"text": "a"}')).status == 200
        line = next(line for line in found.lines() if line.get("status") == 504)
        assert 0 < line["answered"] < 1_000
        assert len(found.ask(json.loads(many))) == 1_000, "a direct invocation may take longer"
        assert found.runtime.pid == pid


@pytest.mark.parametrize("kind", [rest, function_url], ids=lambda kind: kind.__name__)
def test_a_body_of_6_mb_is_answered_up_to_the_limit_of_the_settings(
    model: Model, tmp_path: Path, kind: Builder
) -> None:
    limit = 6_000_000
    environ = {"FDEPLOY_MAX_BODY": str(limit)}
    frame = len(json.dumps({"text": ""}))
    with running(package(model, tmp_path), tmp_path, environ=environ) as found:
        for size, status in ((limit, 200), (limit + 1, 413)):
            body = json.dumps({"text": ("a film " * limit)[: size - frame]})
            assert len(body) == size
            answer = found.answer(kind(body))
            assert answer.status == status, answer.text[:200]
            if status == 413:
                assert answer.code == "too_large"
                assert str(limit) in answer.text

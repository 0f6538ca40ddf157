"""Every failure of the endpoint, through the real client, from a server that imitates it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore import exceptions as aws

from fastai_deploy.runtime.gateway.endpoint import GatewaySettings, sagemaker_runtime
from tests.gateway.aws_events import rest
from tests.gateway.fakes import SETTINGS, FakeRuntime, Response, World
from tests.gateway.servers import Received, Reply, Server

SECRET = "my-private-diary"
IMPATIENT = replace(SETTINGS, timeout_ms=1_000)


@pytest.fixture
def sagemaker() -> Iterator[Server]:
    with Server(lambda _received: Reply()).running() as server:
        yield server


def world_of(url: str, settings: GatewaySettings = SETTINGS) -> World:
    client = sagemaker_runtime(
        settings,
        proxies={},
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="id",
        aws_secret_access_key="none",
    )
    return World(runtime=client, settings=settings)


def failing(status: int, error_type: str, **members: Any) -> Reply:
    return Reply(status, json.dumps(members).encode(), {"x-amzn-errortype": error_type})


def model_error(status: int, said: str) -> Reply:
    return failing(
        424,
        "ModelError",
        Message=f'Received an error ({status}) from primary with message "{said}"',
        OriginalStatusCode=status,
        OriginalMessage=said,
        LogStreamArn="arn:aws:logs:eu-central-1:123456789012:log-group:/aws/sagemaker/x",
    )


def contract_error(code: str, **changes: Any) -> str:
    return json.dumps(
        {"error": {"code": code, "message": "said", "hint": "by the model", **changes}}
    )


def ask(sagemaker: Server, reply: Reply) -> tuple[Response, World]:
    sagemaker.script = lambda _received: reply
    world = world_of(sagemaker.url)
    return world.answer(rest(headers={"Origin": "https://app.example"})), world


def test_the_request_is_invoke_endpoint(sagemaker: Server) -> None:
    response, _ = ask(sagemaker, Reply(body=b'{"label":"x"}'))
    assert (response.status, response.json) == (200, {"label": "x"})
    (received,) = sagemaker.received
    assert received.path == "/endpoints/demo-dev/invocations"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["accept"] == "application/json"
    assert received.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=id/")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_json"),
        (413, "too_large"),
        (415, "unsupported_media_type"),
        (422, "invalid_request"),
        (503, "overloaded"),
        (503, "not_ready"),
        (504, "timeout"),
    ],
)
def test_the_models_own_contract_error_is_passed_on(
    sagemaker: Server, status: int, code: str
) -> None:
    response, world = ask(sagemaker, model_error(status, contract_error(code)))
    assert response.status == status
    assert response.json == {"error": {"code": code, "message": "said", "hint": "by the model"}}
    assert ("retry-after" in response.headers) is (status == 503)
    assert world.entries[0]["model_status"] == status
    assert world.entries[0]["log_stream"].startswith("arn:aws:logs:")


@pytest.mark.parametrize(
    ("status", "said", "expected", "code"),
    [
        (500, contract_error("internal"), 500, "model_error"),
        (500, "Traceback (most recent call last)", 500, "model_error"),
        (400, "bad input", 500, "model_error"),
        (404, "", 500, "model_error"),
        (422, contract_error("forbidden"), 500, "model_error"),
        (422, json.dumps({"error": "a text"}), 500, "model_error"),
        (422, json.dumps(["error"]), 500, "model_error"),
        (0, "timed out", 504, "timeout"),
        (408, "", 504, "timeout"),
        (413, "", 413, "too_large"),
        (429, "", 503, "overloaded"),
        (502, "", 503, "overloaded"),
        (503, "Service Unavailable", 503, "overloaded"),
        (507, "", 503, "overloaded"),
    ],
)
def test_other_failures_of_the_model_are_translated(
    sagemaker: Server, status: int, said: str, expected: int, code: str
) -> None:
    response, world = ask(sagemaker, model_error(status, said))
    assert (response.status, response.code) == (expected, code)
    assert ("retry-after" in response.headers) is (expected == 503)
    assert world.entries[0]["attempts"] == 1


@pytest.mark.parametrize(
    ("reply", "expected", "code"),
    [
        (failing(400, "ThrottlingException", Message="Rate exceeded"), 503, "overloaded"),
        (failing(429, "TooManyRequestsException", Message="Slow"), 503, "overloaded"),
        (failing(503, "ServiceUnavailable", Message="Try again"), 503, "not_ready"),
        (failing(500, "InternalFailure", Message="Internal"), 503, "overloaded"),
        (failing(530, "InternalDependencyException", Message="x"), 503, "overloaded"),
        (Reply(502, b"<html>Bad gateway</html>"), 503, "overloaded"),
        (failing(429, "ModelNotReadyException", Message="Loading"), 503, "not_ready"),
        (failing(400, "ValidationError", Message="Endpoint x not found."), 503, "not_ready"),
        (
            failing(400, "ValidationError", Message="'body' must have length less than or equal"),
            413,
            "too_large",
        ),
        (Reply(413, b""), 413, "too_large"),
        (failing(403, "AccessDeniedException", Message="User: arn is not"), 500, "internal"),
        (failing(403, "UnrecognizedClientException", Message="x"), 500, "internal"),
        (failing(403, "ExpiredTokenException", Message="x"), 500, "internal"),
        (failing(400, "SomethingNew", Message="x"), 500, "internal"),
    ],
)
def test_failures_of_sagemaker_are_translated(
    sagemaker: Server, reply: Reply, expected: int, code: str
) -> None:
    response, _ = ask(sagemaker, reply)
    assert (response.status, response.code) == (expected, code)
    assert ("retry-after" in response.headers) is (expected == 503)
    assert response.headers["access-control-allow-origin"] == "https://app.example"


def test_a_missing_permission_is_named_only_in_the_log(sagemaker: Server) -> None:
    message = "User: arn:aws:sts::1:role is not authorized to perform: sagemaker:InvokeEndpoint"
    response, world = ask(sagemaker, failing(403, "AccessDeniedException", Message=message))
    assert "sagemaker" not in response.text
    assert world.entries[0]["action"] == "sagemaker:InvokeEndpoint"
    assert world.entries[0]["reason"] == message


def test_what_the_model_repeats_of_a_text_is_not_logged(sagemaker: Server) -> None:
    response, world = ask(sagemaker, model_error(500, f"KeyError: {SECRET}"))
    assert SECRET not in world.log.getvalue() + response.text


def test_a_quick_failure_is_tried_again(sagemaker: Server) -> None:
    replies = iter([failing(503, "ServiceUnavailable", Message="x"), Reply(body=b'{"label":"x"}')])
    sagemaker.script = lambda _received: next(replies)
    world = world_of(sagemaker.url)
    assert world.answer(rest()).status == 200
    assert world.entries[0]["attempts"] == 2
    assert len(sagemaker.received) == 2


def test_no_answer_in_time_is_a_timeout(sagemaker: Server) -> None:
    released = threading.Event()

    def wait(_received: Received) -> Reply:
        released.wait(30)
        return Reply()

    sagemaker.script = wait
    world = world_of(sagemaker.url, IMPATIENT)
    try:
        response = world.answer(rest())
    finally:
        released.set()
    assert (response.status, response.code) == (504, "timeout")
    assert world.entries[0]["attempts"] == 1


def test_nobody_listening_is_not_ready(free_port: int) -> None:
    response = world_of(f"http://127.0.0.1:{free_port}").answer(rest())
    assert (response.status, response.code) == (503, "not_ready")
    assert "retry-after" in response.headers


def test_missing_credentials_are_named_in_the_log() -> None:
    world = World(FakeRuntime(aws.NoCredentialsError()))
    assert world.answer(rest()).code == "internal"
    assert world.entries[0]["action"] == "sagemaker:InvokeEndpoint"


def test_every_connection_error_of_the_client_is_tried_again() -> None:
    errors = [
        aws.EndpointConnectionError(endpoint_url="x"),
        aws.ConnectTimeoutError(endpoint_url="x"),
        aws.ConnectionClosedError(endpoint_url="x"),
        aws.ResponseStreamingError(error="x"),
    ]
    for error in errors:
        world = World(FakeRuntime(error, b"{}"))
        assert world.answer(rest()).status == 200, error
        assert world.entries[0]["attempts"] == 2

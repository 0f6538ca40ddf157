"""The SageMaker runtime on this machine, through the real client."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from fastai_deploy.runtime.gateway.endpoint import GatewaySettings, sagemaker_runtime
from fastai_deploy.targets.local.gateway.sagemaker_runtime import (
    MAX_BODY,
    SageMakerRuntimeConfig,
    serve_sagemaker_runtime,
)
from tests.gateway.servers import Received, Reply, Server, echo, refusing
from tests.runtime.server_process import until

KEY = "AKIDLOCAL"


@pytest.fixture
def model() -> Iterator[Server]:
    with Server(echo).running() as server:
        yield server


@pytest.fixture
def state(tmp_path: Path, model: Server) -> Path:
    path = tmp_path / "endpoint.json"
    path.write_bytes(model.state)
    return path


@pytest.fixture
def url(state: Path) -> Iterator[str]:
    with serve_sagemaker_runtime(SageMakerRuntimeConfig("demo-dev", state, KEY)) as url:
        yield url


def client(url: str, key: str = KEY) -> Any:
    return sagemaker_runtime(
        GatewaySettings("demo-dev"),
        proxies={},
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key="none",
    )


def invoke(url: str, body: bytes = b'{"text": "a"}', name: str = "demo-dev", key: str = KEY) -> Any:
    return client(url, key).invoke_endpoint(
        EndpointName=name, ContentType="application/json", Accept="application/json", Body=body
    )


def refused(url: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        invoke(url, **arguments)
    response: dict[str, Any] = dict(caught.value.response)
    return response


def test_an_invocation_reaches_the_model(url: str, model: Server) -> None:
    response = invoke(url)
    assert json.loads(response["Body"].read())["label"] == "a"
    assert response["ContentType"] == "application/json"
    (received,) = model.received
    assert received.path == "/invocations"
    assert received.headers["content-type"] == "application/json"
    assert "authorization" not in received.headers


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
def test_a_models_error_is_a_model_error(url: str, model: Server, status: int) -> None:
    model.script = refusing(status, {"error": {"code": "x"}})
    error = refused(url)
    assert error["Error"]["Code"] == "ModelError"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["OriginalStatusCode"] == status
    assert json.loads(error["OriginalMessage"]) == {"error": {"code": "x"}}


def test_a_slow_model_is_a_model_error_of_status_0(state: Path, model: Server) -> None:
    released = threading.Event()

    def wait(_received: Received) -> Reply:
        released.wait(30)
        return Reply()

    model.script = wait
    try:
        with serve_sagemaker_runtime(
            SageMakerRuntimeConfig("demo-dev", state, KEY, model_seconds=0.2)
        ) as url:
            assert refused(url)["OriginalStatusCode"] == 0
    finally:
        released.set()


def test_another_endpoint_is_not_there(url: str) -> None:
    error = refused(url, name="other")
    assert error["Error"]["Code"] == "ValidationError"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"port": null}', '{"port": "soon"}'])
def test_an_endpoint_without_a_live_server_is_not_there(
    url: str, state: Path, content: str
) -> None:
    state.write_text(content)
    assert refused(url)["Error"]["Code"] == "ValidationError"
    state.unlink()
    assert refused(url)["Error"]["Code"] == "ValidationError"


def test_a_dead_server_is_unavailable(url: str, model: Server, state: Path) -> None:
    with Server(echo).running() as other:
        state.write_bytes(other.state)
    assert refused(url)["Error"]["Code"] == "ServiceUnavailable"
    assert model.received == []


def test_a_body_above_6_mb_is_too_large(url: str, model: Server) -> None:
    error = refused(url, body=b"a" * (MAX_BODY + 1))
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert model.received == []


def test_others_on_this_machine_are_not_served(url: str, model: Server) -> None:
    assert refused(url, key="SOMEBODY")["Error"]["Code"] == "UnrecognizedClientException"
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("POST", "/endpoints/demo-dev/invocations", b"{}")
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 403
    assert model.received == []


@pytest.mark.parametrize(
    "path", ["/", "/endpoints/a/b/invocations", "/endpoints/a%2fb/invocations"]
)
def test_there_is_one_operation(url: str, path: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    headers = {"authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/x"}
    connection.request("POST", path, b"{}", headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 404


def test_connections_beyond_the_bound_are_closed_and_the_others_served(url: str) -> None:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    with contextlib.ExitStack() as stack:
        for _ in range(256):
            stack.enter_context(socket.create_connection((host, port), timeout=60))
        with socket.create_connection((host, port), timeout=60) as one_too_many:
            assert one_too_many.recv(1) == b""

    def served() -> bool:
        with contextlib.suppress(BotoCoreError):
            return bool(json.loads(invoke(url)["Body"].read())["label"] == "a")
        return False

    until(served)

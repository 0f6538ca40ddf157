"""The SageMaker runtime: InvokeEndpoint and InvokeEndpointAsync call the real model server.

Sources: their API references, including the errors; "Asynchronous inference" for the locations of
answers and failures. The answer of an asynchronous invocation exists when the call returns.

"Capture data from real-time endpoint" and the API reference of DataCaptureConfig, for the format
and the place of captured requests: a content type that the configuration does not name is captured
as base64. SageMaker writes them some minutes later; here they exist when the call returns.
"""

from __future__ import annotations

import base64
import json
import random
import re
import uuid
from datetime import datetime, timezone

from tests.aws_double import emulator
from tests.aws_double.containers import Container
from tests.aws_double.operation import Operation, Request
from tests.aws_double.refused import Refused
from tests.aws_double.sagemaker import SageMaker
from tests.aws_double.wire import Answer

_INVOKE_SECONDS = 60.0  # a model must answer within
_MAX_BODY = 6 * 1024 * 1024  # bytes
_S3 = re.compile(r"s3://([^/]+)/(.+)")


class Runtime:
    """Answers invocations; may take as long as the model does."""

    def __init__(self, sagemaker: SageMaker) -> None:
        self._sagemaker = sagemaker

    def invoke(self, operation: Operation, request: Request) -> Answer:
        """One of the two operations."""
        name = request.path.split("/")[2]
        # A function's own credentials are those of a session, and name no account.
        emulator.set_account(operation.account)
        with emulator.request_scope(emulator.get_account(), operation.region):
            try:
                container = self._sagemaker.live(name)
                if operation.name == "InvokeEndpointAsync":
                    return self._later(container, name, request)
            except Refused as refused:
                return _error(refused.status, refused.code, {"Message": str(refused)})
        if len(request.body) > _MAX_BODY:
            return _error(413, "RequestEntityTooLarge", {"Message": "the body is above 6 MB"})
        answer = self._now(container, request)
        with emulator.request_scope(emulator.get_account(), operation.region):
            self._capture(name, request, answer)
        return answer

    def _now(self, container: Container, request: Request) -> Answer:
        try:
            status, kind, body = _asked(container, request, request.body)
        except TimeoutError:
            return _model_error(0, "the invocation timed out")
        except OSError as error:
            return _error(503, "ServiceUnavailable", {"Message": str(error)})
        if not 200 <= status < 300:
            return _model_error(status, body.decode("utf-8", "replace"))
        variant = (b"x-amzn-invoked-production-variant", b"main")
        return 200, [(b"content-type", kind.encode()), variant], body

    def _capture(self, name: str, request: Request, answer: Answer) -> None:
        """Write the request and its answer to S3, if the endpoint's configuration says so."""
        config = self._sagemaker.capture_config(name)
        status, headers, body = answer
        if not config.get("EnableCapture") or not 200 <= status < 300:
            return
        if random.random() * 100 >= config["InitialSamplingPercentage"]:  # noqa: S311
            return
        now = datetime.now(timezone.utc)
        kinds = config.get("CaptureContentTypeHeader", {}).get("JsonContentTypes", [])
        asked = request.headers.get("content-type", "application/octet-stream")
        answered = dict(headers)[b"content-type"].decode()
        line = {
            "captureData": {
                "endpointInput": _captured(request.body, asked, "INPUT", kinds),
                "endpointOutput": _captured(body, answered, "OUTPUT", kinds),
            },
            "eventMetadata": {
                "eventId": str(uuid.uuid4()),
                "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            },
            "eventVersion": "0",
        }
        place = _S3.fullmatch(
            f"{config['DestinationS3Uri']}/{name}/main/{now:%Y/%m/%d/%H/%M-%S-%f}-{uuid.uuid4()}"
            ".jsonl"
        )
        if place:
            emulator.put_object(place[1], place[2], json.dumps(line).encode() + b"\n", {})

    def _later(self, container: Container, name: str, request: Request) -> Answer:
        source = _S3.fullmatch(request.headers.get("x-amzn-sagemaker-inputlocation", ""))
        body = emulator.object_data(source[1], source[2]) if source else None
        if body is None:
            raise Refused("ValidationError", "the InputLocation cannot be read")
        output, failed = self._sagemaker.async_places(name)
        identity = str(uuid.uuid4())
        status, _kind, answer = _asked(container, request, body)
        well = 200 <= status < 300
        place = _S3.fullmatch(f"{output if well else failed}/{identity}{'.out' if well else ''}")
        if place:
            emulator.put_object(place[1], place[2], answer, {})
        headers = [
            (b"x-amzn-sagemaker-outputlocation", f"{output}/{identity}.out".encode()),
            (b"x-amzn-sagemaker-failurelocation", f"{failed}/{identity}".encode()),
            (b"content-type", b"application/json"),
        ]
        return 202, headers, json.dumps({"InferenceId": identity}).encode()


def _captured(body: bytes, kind: str, mode: str, json_kinds: list[str]) -> dict[str, str]:
    """A part of a captured event."""
    is_json = kind.partition(";")[0].strip() in json_kinds
    data = body.decode() if is_json else base64.b64encode(body).decode()
    return {
        "observedContentType": kind,
        "mode": mode,
        "data": data,
        "encoding": "JSON" if is_json else "BASE64",
    }


def _asked(container: Container, request: Request, body: bytes) -> tuple[int, str, bytes]:
    names = {"content-type", "accept", "x-amzn-sagemaker-content-type"}
    headers = {
        name.removeprefix("x-amzn-sagemaker-"): value
        for name, value in request.headers.items()
        if name in names and value
    }
    return container.invoke(body, headers, _INVOKE_SECONDS)


def _error(status: int, code: str, members: dict[str, object]) -> Answer:
    headers = [(b"content-type", b"application/json"), (b"x-amzn-errortype", code.encode())]
    return status, headers, json.dumps(members).encode()


def _model_error(status: int, said: str) -> Answer:
    side = "client" if 400 <= status < 500 else "server"
    return _error(
        424,
        "ModelError",
        {
            "Message": f'Received {side} error ({status}) from primary with message "{said}"',
            "OriginalStatusCode": status,
            "OriginalMessage": said,
            "LogStreamArn": "",
        },
    )

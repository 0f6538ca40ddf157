"""An asynchronous endpoint: the request goes through S3, and so does the answer.

    request ──put──▶ .../async/input/<id>.json ──InvokeEndpointAsync──▶ queue ──▶ the model
    answer  ◀──get── .../async/output/... , or what went wrong in .../async/failed/...

Source: "Asynchronous inference" in the SageMaker guide. An endpoint that has scaled to zero starts
an instance first, which takes minutes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.endpoint import passed_on
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.errors import AwsDenied, AwsError, AwsMissing, InvocationError, NoAnswer

_POLL_SECONDS = 2.0
_WAIT_SECONDS = 1_800.0
_JSON = "application/json"
Json = Any


@dataclass(frozen=True)
class Queue:
    """Where requests to an asynchronous endpoint are put; ``prefix`` is without a slash."""

    bucket: Bucket
    prefix: str


def invoke_async(
    aws: Aws, name: str, queue: Queue, request: Json, *, told: Callable[[str], None]
) -> Json:
    """Send one request of the contract and wait for its answer; ``told`` hears where it will be.

    Raises InvocationError, or NoAnswer when there is none within half an hour.
    """
    key = f"{queue.prefix}/input/{uuid.uuid4()}.json"
    try:
        aws.call(
            "s3",
            "put_object",
            **queue.bucket.owned,
            Key=key,
            Body=json.dumps(request).encode(),
            ContentType=_JSON,
        )
        accepted = aws.call(
            "sagemaker-runtime",
            "invoke_endpoint_async",
            EndpointName=name,
            ContentType=_JSON,
            Accept=_JSON,
            InputLocation=queue.bucket.uri(key),
        )
    except AwsError as error:
        raise passed_on(name, error) from None
    told(f"the answer will be at {accepted['OutputLocation']}")
    return _awaited(aws, name, queue.bucket, accepted)


def _awaited(aws: Aws, name: str, bucket: Bucket, accepted: Json) -> Json:
    deadline = aws.clock() + _WAIT_SECONDS
    while aws.clock() < deadline:
        failure = _read(aws, bucket, accepted.get("FailureLocation", ""))
        if failure is not None:
            raise InvocationError(
                f"the endpoint {name} failed: {failure[:500].decode(errors='replace')}",
                hint="fdeploy logs shows why",
            )
        answer = _read(aws, bucket, accepted["OutputLocation"])
        if answer is not None:
            try:
                return json.loads(answer)
            except ValueError:
                raise InvocationError(
                    f"the endpoint {name} answered no JSON", hint="run fdeploy deploy"
                ) from None
        aws.sleep(_POLL_SECONDS)
    raise NoAnswer(
        f"the endpoint {name} has not answered within {_WAIT_SECONDS / 60:g} min",
        hint=f"look at {accepted['OutputLocation']} later, or at fdeploy logs now",
    )


def _read(aws: Aws, bucket: Bucket, uri: str) -> bytes | None:
    """The object, when it is there; without s3:ListBucket S3 says 403 until it is."""
    if not uri:
        return None
    key = uri.removeprefix(bucket.uri(""))
    try:
        answer = aws.call("s3", "get_object", **bucket.owned, Key=key)
        with boundary("s3", "GetObject"):
            data: bytes = answer["Body"].read()
    except (AwsMissing, AwsDenied):
        return None
    return data

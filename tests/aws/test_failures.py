"""Every exception of botocore becomes an error of fdeploy, with a hint what to type next."""

from __future__ import annotations

import inspect
from typing import Any

import boto3.exceptions
import botocore.exceptions
import pytest
from botocore.exceptions import ClientError

from fastai_deploy.aws.client_errors import permission, translated
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import (
    AwsCredentials,
    AwsDenied,
    AwsError,
    AwsMissing,
    AwsQuota,
    AwsThrottled,
    AwsUnreachable,
)
from tests.aws.world import World
from tests.aws_double.faults import Fault

EXCEPTIONS = sorted(
    {
        kind
        for module in (botocore.exceptions, boto3.exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and not issubclass(kind, Warning)
    },
    key=lambda kind: kind.__name__,
)


def made(kind: type[Exception]) -> Exception:
    """An instance of an exception class, whatever arguments it takes."""
    error = kind.__new__(kind)
    Exception.__init__(error, "made by a test")
    if isinstance(error, ClientError):
        error.response = {}
        error.operation_name = "Operation"
    return error


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_the_map_is_complete(kind: type[Exception]) -> None:
    error = translated(made(kind), "s3", "PutObject")
    assert isinstance(error, AwsError)
    assert error.message
    assert error.hint


def answer(code: str, words: str = "", status: int = 400) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": words},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "DescribeEndpoint")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer("ExpiredToken"), AwsCredentials),
        (answer("UnrecognizedClientException"), AwsCredentials),
        (answer("InvalidClientTokenId", status=403), AwsCredentials),
        (answer("AccessDeniedException"), AwsDenied),
        (answer("403", status=403), AwsDenied),
        (answer("ValidationError", "x is not authorized to perform: iam:PassRole on y"), AwsDenied),
        (answer("ThrottlingException"), AwsThrottled),
        (answer("SlowDown", status=503), AwsThrottled),
        (answer("ResourceLimitExceeded"), AwsQuota),
        (answer("ValidationError", "Stack with id x does not exist"), AwsMissing),
        (answer("ValidationException", 'Could not find endpoint "x".'), AwsMissing),
        (answer("404", status=404), AwsMissing),
        (answer("InternalFailure", status=500), AwsUnreachable),
        (answer("ValidationException", "1 validation error detected"), AwsError),
    ],
    ids=lambda value: value.response["Error"]["Code"] if isinstance(value, ClientError) else "",
)
def test_what_aws_answers(error: ClientError, kind: type[AwsError]) -> None:
    assert type(translated(error, "sagemaker", "DescribeEndpoint")) is kind


def test_a_missing_permission_is_named() -> None:
    words = "User: arn:aws:iam::1:user/a is not authorized to perform: sagemaker:CreateModel on x"
    error = translated(answer("AccessDeniedException", words), "cloudformation", "x")
    assert "allow sagemaker:CreateModel" in error.hint
    silent = translated(answer("AccessDenied"), "cloudformation", "x")
    assert "allow cloudformation:DescribeEndpoint" in silent.hint
    assert permission("s3", "HeadBucket") == "s3:ListBucket"
    assert permission("sagemaker-runtime", "InvokeEndpoint") == "sagemaker:InvokeEndpoint"
    assert permission("resourcegroupstaggingapi", "GetResources") == "tag:GetResources"


def test_a_refusal_that_boto3_wraps_is_unwrapped() -> None:
    error = boto3.exceptions.S3UploadFailedError("Failed to upload")
    error.__context__ = answer("AccessDenied", status=403)
    assert isinstance(translated(error, "s3", "PutObject"), AwsDenied)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("throttle", AwsThrottled),
        ("deny", AwsDenied),
        ("unwell", AwsUnreachable),
        ("reset", AwsUnreachable),
        ("lost", AwsUnreachable),
    ],
)
@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("cloudformation", "describe_stacks"),
        ("s3", "list_buckets"),
        ("sagemaker", "list_models"),
        ("lambda", "list_functions"),
        ("logs", "describe_log_groups"),
        ("cloudwatch", "describe_alarms"),
    ],
)
def test_faults_in_every_protocol(
    world: World, kind: str, error: type[AwsError], service: str, operation: str
) -> None:
    world.double.do_wrong(world.account, Fault(kind))
    with pytest.raises(error):
        world.aws().call(service, operation)
    assert [call["attempts"] for call in world.double.calls(world.account)] == [
        1 if kind == "deny" else world.attempts
    ]
    world.double.do_wrong(world.account, Fault(kind, attempts=1))
    if kind != "deny":
        world.aws().call(service, operation)


def test_a_region_that_is_none(world: World) -> None:
    aws = Aws(world.double.session(world.account, world.region), region="not a region")
    with pytest.raises(AwsUnreachable, match="region is missing or wrong"):
        aws.call("s3", "list_buckets")

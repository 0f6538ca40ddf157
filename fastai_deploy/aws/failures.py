"""Every error of boto3 and botocore, in fdeploy's words; no other module sees theirs.

no credentials, expired, a wrong profile            AwsCredentials
access denied                                       AwsDenied, with the action that is missing
what was asked for is not there                     AwsMissing
a quota or a limit of the account                   AwsQuota
throttled, still after the retries                  AwsThrottled
no connection, time-out, no such region             AwsUnreachable
anything else that AWS answers                      AwsError, with AWS's own words
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from botocore import exceptions as aws

from fastai_deploy.aws import error_codes
from fastai_deploy.errors import (
    AwsCredentials,
    AwsDenied,
    AwsError,
    AwsMissing,
    AwsQuota,
    AwsThrottled,
    AwsUnreachable,
)

_CREDENTIAL_ERRORS = (
    aws.ConfigNotFound,
    aws.ConfigParseError,
    aws.CredentialRetrievalError,
    aws.InvalidConfigError,
    aws.LoginError,
    aws.MetadataRetrievalError,
    aws.NoAuthTokenError,
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.ProfileNotFound,
    aws.RefreshWithMFAUnsupportedError,
    aws.SSOError,
    aws.TokenRetrievalError,
    aws.UnknownCredentialError,
)
_REGION_ERRORS = (
    aws.EndpointResolutionError,
    aws.InvalidRegionError,
    aws.NoRegionError,
    aws.ServiceNotInRegionError,
    aws.UnknownEndpointError,
    aws.UnknownRegionError,
)
_CONNECTION_ERRORS = (
    aws.ConnectionError,
    aws.HTTPClientError,
    aws.IncompleteReadError,
    aws.ResponseStreamingError,
)

_SIGN_IN = "sign in (aws sso login, or aws configure), or choose a profile with AWS_PROFILE"
_AGAIN = "run the same command again: it goes on where this one stopped"
_ACTION = re.compile(r"not authorized to perform:? *([\w-]+:\w+)", re.IGNORECASE)


def translated(error: Exception, service: str, operation: str) -> AwsError:
    """The error that an exception of boto3 means; ``operation`` as in ``CreateChangeSet``.

    Never raises; an exception that is not known here becomes an AwsError with its own words.
    """
    if isinstance(error, aws.ClientError):
        return _answered(error, service, operation)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, aws.ClientError):  # as boto3's S3UploadFailedError hides it
        return _answered(cause, service, operation)
    subject = f"{service} {operation}"
    if isinstance(error, _CREDENTIAL_ERRORS):
        return AwsCredentials(f"there are no usable AWS credentials: {error}", hint=_SIGN_IN)
    if isinstance(error, _REGION_ERRORS):
        return AwsUnreachable(
            f"the AWS region is missing or wrong: {error}",
            hint="set region in [project] of fdeploy.toml, or --region, such as eu-central-1",
        )
    if isinstance(error, _CONNECTION_ERRORS):
        return AwsUnreachable(
            f"{subject} was not answered: {error}",
            hint=f"check the connection, the proxy and the region, then {_AGAIN}",
        )
    return AwsError(f"{subject} failed: {type(error).__name__}: {error}", hint=_AGAIN)


def permission(service: str, operation: str) -> str:
    """The IAM action that an operation needs: ``s3`` ``HeadObject`` needs ``s3:GetObject``."""
    action = f"{error_codes.SERVICE_PREFIXES.get(service, service)}:{operation}"
    return error_codes.PERMISSIONS.get(action, action)


@dataclass(frozen=True)
class _Answer:
    """An error answer; ``status`` is HTTP's."""

    service: str
    operation: str
    code: str
    words: str
    status: int

    def __str__(self) -> str:
        return f"{self.service} {self.operation} was refused: {self.code}: {self.words}"


def _answered(error: Any, service: str, operation: str) -> AwsError:
    details = error.response.get("Error", {})
    answer = _Answer(
        service=service,
        operation=getattr(error, "operation_name", "") or operation,
        code=str(details.get("Code", "")),
        words=str(details.get("Message", "")),
        status=error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0,
    )
    for applies, build in _MEANINGS:
        if applies(answer):
            return build(answer)
    return AwsError(str(answer), hint=_AGAIN, aws_code=answer.code)


def _credentials(answer: _Answer) -> AwsError:
    what = "AWS does not accept the credentials"
    if answer.code in error_codes.EXPIRED_CODES:
        what = "the AWS credentials have expired"
    return AwsCredentials(f"{what} ({answer})", hint=_SIGN_IN, aws_code=answer.code)


def _denied(answer: _Answer) -> AwsError:
    named = _ACTION.search(answer.words)
    action = named[1] if named else permission(answer.service, answer.operation)
    return AwsDenied(
        f"the AWS credentials may not {action} ({answer})",
        hint=f"let an administrator allow {action}; fdeploy doctor --policy prints all",
        aws_code=answer.code,
    )


def _missing(answer: _Answer) -> AwsError:
    return AwsMissing(str(answer), hint="check the region and the account", aws_code=answer.code)


def _quota(answer: _Answer) -> AwsError:
    return AwsQuota(
        str(answer),
        hint="ask for a higher quota in the console under Service Quotas, "
        "or choose another --instance",
        aws_code=answer.code,
    )


def _throttled(answer: _Answer) -> AwsError:
    return AwsThrottled(str(answer), hint=f"wait a minute, then {_AGAIN}", aws_code=answer.code)


def _unwell(answer: _Answer) -> AwsError:
    return AwsUnreachable(
        str(answer),
        hint=f"see health.aws.amazon.com, wait a minute, then {_AGAIN}",
        aws_code=answer.code,
    )


def _is_denied(answer: _Answer) -> bool:
    # In IAM's own words, too: CloudFormation passes them on under its general code.
    return answer.code in error_codes.DENIED_CODES or "is not authorized to perform" in answer.words


def _is_missing(answer: _Answer) -> bool:
    # In words alone, too: SageMaker and CloudFormation have a general code for it.
    return answer.code in error_codes.MISSING_CODES or (
        answer.code in error_codes.GENERAL_CODES
        and bool(error_codes.MISSING_WORDS.search(answer.words))
    )


# The first meaning that applies is taken: codes overlap.
_MEANINGS: tuple[tuple[Callable[[_Answer], bool], Callable[[_Answer], AwsError]], ...] = (
    (lambda answer: answer.code in error_codes.CREDENTIAL_CODES, _credentials),
    (lambda answer: answer.code in error_codes.THROTTLED_CODES, _throttled),
    (lambda answer: answer.code in error_codes.QUOTA_CODES, _quota),
    (_is_denied, _denied),
    (_is_missing, _missing),
    (lambda answer: answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR, _unwell),
)

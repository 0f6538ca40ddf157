"""Translates the errors of boto3 and botocore to fdeploy's; no other module sees the originals."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from botocore import exceptions as aws

from fastai_deploy.errors import (
    AwsCredentials,
    AwsDenied,
    AwsError,
    AwsMissing,
    AwsQuota,
    AwsThrottled,
    AwsUnreachable,
)

CREDENTIAL_CODES = frozenset(
    (
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    )
)
EXPIRED_CODES = frozenset(("ExpiredToken", "ExpiredTokenException", "RequestExpired"))
SKEWED_CODES = frozenset(("RequestInTheFuture", "RequestTimeTooSkewed"))
# The answer to a HEAD request has no body, so S3 reports only its status.
DENIED_CODES = frozenset(
    (
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "Forbidden",
        "NotAuthorized",
        "OptInRequired",
        "UnauthorizedOperation",
    )
)
MISSING_CODES = frozenset(
    (
        "404",
        "ChangeSetNotFound",
        "ChangeSetNotFoundException",
        "ImageNotFoundException",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NoSuchKey",
        "NoSuchLifecycleConfiguration",
        "NoSuchTagSet",
        "NoSuchUpload",
        "NotFound",
        "NotFoundException",
        "RepositoryNotFoundException",
        "ResourceNotFound",
        "ResourceNotFoundException",
    )
)
MISSING_WORDS = re.compile(r"does not exist|Could not find|not found", re.IGNORECASE)
GENERAL_CODES = frozenset(("ValidationError", "ValidationException"))
QUOTA_CODES = frozenset(
    (
        "LimitExceeded",
        "LimitExceededException",
        "QuotaExceededException",
        "ResourceLimitExceeded",
        "ServiceQuotaExceededException",
        "TooManyBuckets",
    )
)
THROTTLED_CODES = frozenset(
    (
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    )
)

# IAM prefixes and actions that differ from the name of the service or operation.
SERVICE_PREFIXES = {
    "apigatewayv2": "apigateway",
    "resourcegroupstaggingapi": "tag",
    "sagemaker-runtime": "sagemaker",
    "service-quotas": "servicequotas",
}
PERMISSIONS = {
    # API Gateway's actions are HTTP methods; fdeploy itself only reads there.
    "apigateway:GetAccount": "apigateway:GET",
    "apigateway:GetApi": "apigateway:GET",
    "apigateway:GetApiKey": "apigateway:GET",
    "apigateway:GetDomainName": "apigateway:GET",
    "apigateway:GetRestApi": "apigateway:GET",
    "apigateway:GetStage": "apigateway:GET",
    "apigateway:GetUsagePlan": "apigateway:GET",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:DeleteObjects": "s3:DeleteObjectVersion",
    "s3:HeadBucket": "s3:ListBucket",
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListParts": "s3:ListMultipartUploadParts",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:UploadPart": "s3:PutObject",
}


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
_AGAIN = "run the same command again to continue"
_DENIAL = re.compile(r"(?:(\S+) is )?not authorized to perform:? *([\w-]+:\w+)", re.IGNORECASE)
_SKEWED = re.compile(r"Signature (expired|not yet current)")


def translated(error: Exception, service: str, operation: str) -> AwsError:
    """Translate an exception of boto3; ``operation`` is such as ``CreateChangeSet``.

    Never raises; an unknown exception becomes an AwsError with its own message.
    """
    if isinstance(error, aws.ClientError):
        return _answered(error, service, operation)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, aws.ClientError):  # boto3's S3UploadFailedError hides it like this
        return _answered(cause, service, operation)
    subject = f"{service} {operation}"
    if isinstance(error, _CREDENTIAL_ERRORS):
        return unusable(error)
    if isinstance(error, _REGION_ERRORS):
        return AwsUnreachable(
            f"the AWS region is missing or wrong: {error}",
            hint="set region in [project] of fdeploy.toml, or add --region, such as eu-central-1",
        )
    if isinstance(error, _CONNECTION_ERRORS):
        return AwsUnreachable(
            f"{subject} got no answer: {error}",
            hint=f"check the connection, the proxy and the region, then {_AGAIN}",
        )
    return AwsError(f"{subject} failed: {type(error).__name__}: {error}", hint=_AGAIN)


def unusable(why: object) -> AwsCredentials:
    """The error for credentials that no request can be signed with."""
    return AwsCredentials(f"there are no usable AWS credentials: {why}", hint=_SIGN_IN)


def permission(service: str, operation: str) -> str:
    """The IAM action of an operation: ``s3`` ``HeadObject`` needs ``s3:GetObject``."""
    action = f"{SERVICE_PREFIXES.get(service, service)}:{operation}"
    return PERMISSIONS.get(action, action)


@dataclass(frozen=True)
class Denial:
    """Who may not do what, in IAM's words."""

    who: str
    action: str

    @property
    def hint(self) -> str:
        """What to do about it."""
        return (
            f"ask an administrator to allow {self.action} (fdeploy doctor --policy prints all "
            f"permissions that fdeploy needs), then {_AGAIN}"
        )

    def __str__(self) -> str:
        return f"{self.who} lacks the permission {self.action}"


def denial(words: str) -> Denial | None:
    """The first denial in a message of AWS."""
    found = _DENIAL.search(words)
    return Denial(found[1] or "the caller", found[2]) if found else None


@dataclass(frozen=True)
class _Answer:
    """An error response; ``status`` is the HTTP status."""

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
    if answer.code in SKEWED_CODES or _SKEWED.search(answer.words):
        return AwsCredentials(
            f"AWS refuses the signature, because this machine's clock is wrong ({answer})",
            hint="set the clock (timedatectl set-ntp true), then run the same command again",
            aws_code=answer.code,
        )
    what = "AWS does not accept the credentials"
    if answer.code in EXPIRED_CODES:
        what = "the AWS credentials have expired"
    return AwsCredentials(f"{what} ({answer})", hint=_SIGN_IN, aws_code=answer.code)


def _denied(answer: _Answer) -> AwsError:
    named = denial(answer.words)
    action = named.action if named else permission(answer.service, answer.operation)
    return AwsDenied(
        f"the AWS credentials lack the permission {action} ({answer})",
        hint=f"ask an administrator to allow {action}; fdeploy doctor --policy prints all "
        "permissions that fdeploy needs",
        aws_code=answer.code,
    )


def _missing(answer: _Answer) -> AwsError:
    return AwsMissing(str(answer), hint="check the region and the account", aws_code=answer.code)


def _quota(answer: _Answer) -> AwsError:
    return AwsQuota(
        str(answer),
        hint="request a higher quota in the console under Service Quotas, "
        "or choose another --instance",
        aws_code=answer.code,
    )


def _throttled(answer: _Answer) -> AwsError:
    return AwsThrottled(str(answer), hint=f"wait a minute, then {_AGAIN}", aws_code=answer.code)


def _unwell(answer: _Answer) -> AwsError:
    return AwsUnreachable(
        str(answer),
        hint=f"check health.aws.amazon.com, wait a minute, then {_AGAIN}",
        aws_code=answer.code,
    )


def _is_denied(answer: _Answer) -> bool:
    # By the message, too: CloudFormation passes IAM's on under its own general code.
    return answer.code in DENIED_CODES or "is not authorized to perform" in answer.words


def _is_missing(answer: _Answer) -> bool:
    # By the message, too: SageMaker and CloudFormation use a general code for this.
    return answer.code in MISSING_CODES or (
        answer.code in GENERAL_CODES and bool(MISSING_WORDS.search(answer.words))
    )


# The first match wins: codes overlap.
_MEANINGS: tuple[tuple[Callable[[_Answer], bool], Callable[[_Answer], AwsError]], ...] = (
    (lambda answer: answer.code in CREDENTIAL_CODES, _credentials),
    (lambda answer: answer.code in THROTTLED_CODES, _throttled),
    (lambda answer: answer.code in QUOTA_CODES, _quota),
    (_is_denied, _denied),
    (_is_missing, _missing),
    (lambda answer: answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR, _unwell),
)

"""What AWS calls its errors, sorted by what they mean to us.

Sources: "Common Errors" of the API references, and the error tables of each service.
"""

from __future__ import annotations

import re

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
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    )
)
EXPIRED_CODES = frozenset(("ExpiredToken", "ExpiredTokenException", "RequestExpired"))
# A HEAD request's answer has no body, and S3 no more to say than its status.
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

# What a permission is called where it is not called as its operation is.
SERVICE_PREFIXES = {
    "apigatewayv2": "apigateway",
    "resourcegroupstaggingapi": "tag",
    "sagemaker-runtime": "sagemaker",
    "service-quotas": "servicequotas",
}
PERMISSIONS = {
    # API Gateway's actions are HTTP's methods; fdeploy itself only reads there.
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
    "s3:HeadObject": "s3:GetObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListParts": "s3:ListMultipartUploadParts",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:UploadPart": "s3:PutObject",
}

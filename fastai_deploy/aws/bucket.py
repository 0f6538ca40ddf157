"""The bucket for artifacts: the user's own, or one that fdeploy creates once for all projects.

    fdeploy-<account>-<region>    public access blocked, TLS only, encrypted, versioned;
                                  old versions and unfinished uploads expire

Every request names the account that must own the bucket, because bucket names are global and
someone else may have taken this one. Source: "Verifying bucket ownership" in the S3 user guide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsDenied, AwsError, AwsMissing, NotOurs
from fastai_deploy.progress import Reporter, Step

_SETTINGS_TAG = "fdeploy:settings"
_SETTINGS_VERSION = "1"  # a new number makes fdeploy apply the settings again
_OLD_VERSION_DAYS = 30
_BROKEN_UPLOAD_DAYS = 7
_NO_CONSTRAINT = "us-east-1"  # the one region that CreateBucket does not accept as a constraint
_MOST_DELETED = 1_000  # objects in one request (AWS: DeleteObjects)


@dataclass(frozen=True)
class Bucket:
    """A bucket of this account; ``ours`` if fdeploy created it."""

    name: str
    account: str
    ours: bool

    def uri(self, key: str) -> str:
        """The URI of an object."""
        return f"s3://{self.name}/{key}"

    @property
    def owned(self) -> dict[str, str]:
        """The request parameters that name the bucket and its required owner."""
        return {"Bucket": self.name, "ExpectedBucketOwner": self.account}


def encryption(kms_key: str | None) -> dict[str, str]:
    """The parameters of PutObject that encrypt with a key; without one, the bucket's default."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}


def default_bucket(aws: Aws, *, unknown: str | None = None) -> str:
    """The name of fdeploy's own bucket; at most 36 characters of the 63 that S3 allows.

    ``unknown`` is as in ``Aws.account_or``; without it AwsCredentials is raised.
    """
    account = aws.account if unknown is None else aws.account_or(unknown)
    return f"fdeploy-{account}-{aws.region}"


def find_bucket(aws: Aws, chosen: str | None) -> Bucket | None:
    """The bucket, if it exists. Raises NotOurs for another account's, or AwsError."""
    bucket = Bucket(chosen or default_bucket(aws), aws.account, ours=chosen is None)
    try:
        answer = aws.call("s3", "head_bucket", **bucket.owned)
    except AwsMissing:
        return None
    except AwsDenied as error:
        raise NotOurs(
            f"the bucket {bucket.name} does not belong to account {bucket.account}, or you have "
            f"no access to it: {error.message}",
            hint="set bucket in [project] to one of your own, or get s3:ListBucket on it",
        ) from None
    except AwsError as error:
        if error.aws_code not in ("301", "PermanentRedirect"):
            raise
        raise _elsewhere(bucket, "another region", aws.region) from None
    region = answer.get("BucketRegion", aws.region)
    if region != aws.region:
        raise _elsewhere(bucket, region, aws.region)
    return bucket


def bucket_key(aws: Aws, bucket: Bucket) -> str | None:
    """The ARN of the customer's KMS key that encrypts a bucket by default; None if there is none.

    fdeploy's own bucket has none. Raises AwsDenied without s3:GetEncryptionConfiguration, or
    AwsError.
    """
    if bucket.ours:
        return None
    try:
        answer = aws.call("s3", "get_bucket_encryption", **bucket.owned)
    except AwsMissing:
        return None
    for rule in answer["ServerSideEncryptionConfiguration"]["Rules"]:
        key = rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID")
        if key and not key.startswith("arn:"):  # an alias or an ID
            key = aws.call("kms", "describe_key", KeyId=key)["KeyMetadata"]["Arn"]
        if key:
            return str(key)
    return None  # S3's own keys, which need no permission


def expire(aws: Aws, bucket: Bucket, prefix: str, days: int) -> None:
    """Have S3 delete what is below a prefix after so many days; 0 ends that. Raises AwsError."""
    try:
        answer = aws.call("s3", "get_bucket_lifecycle_configuration", **bucket.owned)
        rules = answer["Rules"]
    except AwsMissing:
        rules = []
    rule = {
        "ID": prefix,
        "Status": "Enabled",
        "Filter": {"Prefix": f"{prefix}/"},
        "Expiration": {"Days": days},
    }
    wanted = [each for each in rules if each["ID"] != prefix] + ([rule] if days else [])
    if wanted != rules:
        aws.call(
            "s3",
            "put_bucket_lifecycle_configuration",
            **bucket.owned,
            LifecycleConfiguration={"Rules": wanted},
        )


def ensure_bucket(aws: Aws, chosen: str | None, report: Reporter) -> Bucket:
    """Find the bucket, or create fdeploy's own. Raises NotOurs, AwsMissing or AwsError."""
    bucket = find_bucket(aws, chosen)
    if bucket is None:
        if chosen is not None:
            raise AwsMissing(
                f"the bucket {chosen} (bucket in [project]) does not exist",
                hint="create it, or remove the setting to let fdeploy create one",
            )
        bucket = _create(aws, report)
    if bucket.ours and _tags(aws, bucket).get(_SETTINGS_TAG) != _SETTINGS_VERSION:
        _set_up(aws, bucket)
    return bucket


def object_versions(aws: Aws, bucket: Bucket, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield key and version of all objects under a prefix, delete markers included.

    Raises AwsError.
    """
    for page in aws.pages("s3", "list_object_versions", **bucket.owned, Prefix=prefix):
        for kind in ("Versions", "DeleteMarkers"):
            for item in page.get(kind, []):
                yield item["Key"], item["VersionId"]


def delete_objects(aws: Aws, bucket: Bucket, found: list[tuple[str, str]]) -> None:
    """Delete object versions permanently. Raises AwsError."""
    for start in range(0, len(found), _MOST_DELETED):
        chosen = found[start : start + _MOST_DELETED]
        answer = aws.call(
            "s3",
            "delete_objects",
            **bucket.owned,
            Delete={
                "Objects": [{"Key": key, "VersionId": version} for key, version in chosen],
                "Quiet": True,
            },
        )
        for error in answer.get("Errors", [])[:1]:
            raise AwsDenied(
                f"{bucket.uri(error['Key'])} cannot be deleted: {error['Code']}: "
                f"{error.get('Message', '')}",
                hint="get s3:DeleteObjectVersion on it, then run the same command again",
                aws_code=error["Code"],
            )


def _create(aws: Aws, report: Reporter) -> Bucket:
    name = default_bucket(aws)
    report(Step(f"creating the bucket {name}"))
    parameters: dict[str, Any] = {"Bucket": name, "ObjectOwnership": "BucketOwnerEnforced"}
    if aws.region != _NO_CONSTRAINT:
        parameters["CreateBucketConfiguration"] = {"LocationConstraint": aws.region}
    try:
        aws.call("s3", "create_bucket", **parameters)
    except AwsError as error:
        # Created by an earlier attempt whose answer was lost, or by a concurrent run.
        if error.aws_code != "BucketAlreadyOwnedByYou":
            raise
    return Bucket(name, aws.account, ours=True)


def _set_up(aws: Aws, bucket: Bucket) -> None:
    """Configure the bucket; the tag is written last, to mark that everything is configured."""
    aws.call(
        "s3",
        "put_public_access_block",
        **bucket.owned,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    policy = _policy(aws.partition, bucket.name)
    aws.call("s3", "put_bucket_policy", **bucket.owned, Policy=json.dumps(policy))
    aws.call(
        "s3",
        "put_bucket_encryption",
        **bucket.owned,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    aws.call(
        "s3",
        "put_bucket_versioning",
        **bucket.owned,
        VersioningConfiguration={"Status": "Enabled"},
    )
    aws.call(
        "s3",
        "put_bucket_lifecycle_configuration",
        **bucket.owned,
        LifecycleConfiguration={"Rules": [_OLD_VERSIONS_GO]},
    )
    tags = [{"Key": _SETTINGS_TAG, "Value": _SETTINGS_VERSION}]
    aws.call("s3", "put_bucket_tagging", **bucket.owned, Tagging={"TagSet": tags})


_OLD_VERSIONS_GO: dict[str, Any] = {
    "ID": "what nobody reads any more",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "NoncurrentVersionExpiration": {"NoncurrentDays": _OLD_VERSION_DAYS},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _BROKEN_UPLOAD_DAYS},
    "Expiration": {"ExpiredObjectDeleteMarker": True},
}


def _policy(partition: str, name: str) -> dict[str, Any]:
    arn = f"arn:{partition}:s3:::{name}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def _tags(aws: Aws, bucket: Bucket) -> dict[str, str]:
    try:
        answer = aws.call("s3", "get_bucket_tagging", **bucket.owned)
    except AwsMissing:
        return {}
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


def _elsewhere(bucket: Bucket, region: str, wanted: str) -> NotOurs:
    return NotOurs(
        f"the bucket {bucket.name} is in {region}, but the endpoint is deployed to {wanted}",
        hint=f"set bucket in [project] to a bucket in {wanted}, or remove the setting",
    )

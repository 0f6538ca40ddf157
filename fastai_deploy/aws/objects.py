"""The user's own objects on S3: the input and the output of a batch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from fastai_deploy import files
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.aws.upload import PART, TransferProgress
from fastai_deploy.errors import AwsDenied, AwsMissing, UsageError
from fastai_deploy.progress import Reporter

_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_AT_ONCE = 8


@dataclass(frozen=True)
class S3Object:
    """A bucket and a key."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Found:
    """The size and the ETag of an object."""

    bytes: int
    etag: str


class Objects:
    """Reads and writes objects with the credentials of the project's settings."""

    def __init__(self, aws: Aws, report: Reporter) -> None:
        self._aws = aws
        self._report = report

    def parse(self, uri: str) -> S3Object:
        """The bucket and the key of a URI. Raises UsageError."""
        match = _URI.fullmatch(uri)
        if match is None or match[2].endswith("/"):
            raise UsageError(
                f"{uri} does not name an object on S3",
                hint="write s3://BUCKET/KEY, such as s3://my-bucket/reviews/may.csv",
            )
        return S3Object(match[1], match[2])

    def find(self, at: S3Object) -> Found:
        """Look an object up. Raises AwsMissing, AwsDenied or AwsError."""
        try:
            answer = self._aws.call("s3", "head_object", Bucket=at.bucket, Key=at.key)
        except AwsMissing as error:
            raise AwsMissing(
                f"{at} does not exist",
                hint=f"check the name: aws s3 ls s3://{at.bucket}/{_folder(at.key)}",
                aws_code=error.aws_code,
            ) from None
        except AwsDenied as error:
            raise AwsDenied(
                f"{at} cannot be read: there is no such object, or the credentials lack "
                f"s3:GetObject on it",
                hint="check the name and the profile, or ask for s3:GetObject and s3:ListBucket",
                aws_code=error.aws_code,
            ) from None
        return Found(int(answer["ContentLength"]), str(answer["ETag"]).strip('"'))

    def check_writable(self, at: S3Object, *, overwrite: bool) -> None:
        """Check that an object may be written, without writing one.

        Raises UsageError if there is one and ``overwrite`` is false, AwsDenied or AwsError.
        """
        if not overwrite and self._exists(at):
            raise UsageError(
                f"{at} exists already", hint="choose another output, or add --overwrite"
            )
        # Needs the permission of a write, and leaves nothing.
        upload = self._aws.call("s3", "create_multipart_upload", Bucket=at.bucket, Key=at.key)
        self._aws.call(
            "s3",
            "abort_multipart_upload",
            Bucket=at.bucket,
            Key=at.key,
            UploadId=upload["UploadId"],
        )

    def download(self, at: S3Object, path: Path, size: int, etag: str) -> None:
        """Copy an object to a file. Raises UsageError if it is another one by now, or AwsError."""
        client = self._aws.client("s3")
        progress = TransferProgress(self._report, "download", size)
        with boundary("s3", "GetObject"), files.file_errors(path):
            client.download_file(
                at.bucket, at.key, str(path), Callback=progress.add, Config=_transfer()
            )
        if self.find(at) != Found(size, etag):
            files.remove(path)
            raise UsageError(f"{at} changed while it was copied", hint="run the same command again")

    def upload(self, path: Path, at: S3Object, *, overwrite: bool) -> None:
        """Copy a file to an object. Raises UsageError if there is one by now, or AwsError."""
        if not overwrite and self._exists(at):
            raise UsageError(
                f"{at} exists by now, and was not there when the run began",
                hint="move it away, then run the same command again to upload the output",
            )
        client = self._aws.client("s3")
        progress = TransferProgress(self._report, "upload", path.stat().st_size)
        with boundary("s3", "PutObject"), files.file_errors(path):
            client.upload_file(
                str(path), at.bucket, at.key, Callback=progress.add, Config=_transfer()
            )

    def _exists(self, at: S3Object) -> bool:
        try:
            self.find(at)
        except (AwsMissing, AwsDenied):  # without s3:ListBucket S3 does not tell, and a write can
            return False
        return True


def _transfer() -> TransferConfig:
    return TransferConfig(
        multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=_AT_ONCE
    )


def _folder(key: str) -> str:
    return key[: key.rfind("/") + 1]

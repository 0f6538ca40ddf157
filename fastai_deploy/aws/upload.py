"""Uploads files to S3: once, with checksums verified by S3, and resumable.

Every part is sent with its SHA-256, and S3 rejects a part that differs. Afterwards, the checksum of
the object is compared with the file's. Source: "Checking object integrity for data uploads" in the
S3 user guide: the checksum of a multipart object is the checksum of the parts' checksums, followed
by a hyphen and the number of parts.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from fastai_deploy import files
from fastai_deploy.aws.bucket import Bucket, encryption
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.errors import AwsError, AwsMissing, FileError
from fastai_deploy.progress import Advanced, Reporter, Step

PART = 16 << 20  # bytes; also the size from which a multipart upload is used
_SENDERS = 8


@dataclass(frozen=True)
class FileDigest:
    """A file's size, its SHA-256, and the SHA-256 of each of its parts."""

    size: int
    sha256: str
    parts: tuple[bytes, ...]

    @property
    def checksum(self) -> str:
        """The checksum that S3 reports for the object."""
        if self.size < PART:
            return _base64(bytes.fromhex(self.sha256))
        return f"{_base64(hashlib.sha256(b''.join(self.parts)).digest())}-{len(self.parts)}"


def digest(path: Path) -> FileDigest:
    """Read a file once. Raises FileError."""
    whole, parts, size = hashlib.sha256(), [], 0
    with files.file_errors(path), path.open("rb") as file:
        while chunk := file.read(PART):
            whole.update(chunk)
            parts.append(hashlib.sha256(chunk).digest())
            size += len(chunk)
    return FileDigest(size, whole.hexdigest(), tuple(parts))


class Uploads:
    """Uploads files to a bucket; ``metadata`` is stored with every object.

    ``kms_key`` encrypts them; an object that has another key is uploaded again.
    """

    def __init__(
        self,
        aws: Aws,
        bucket: Bucket,
        report: Reporter,
        metadata: Mapping[str, str],
        kms_key: str | None = None,
    ) -> None:
        self._aws = aws
        self._bucket = bucket
        self._report = report
        self._metadata = dict(metadata)
        self._kms_key = kms_key

    def file(self, path: Path, key: str, *, sha256: str) -> str:
        """Upload a file with this hash, unless it is already stored, and return its URI.

        Raises FileError if the file's hash differs, or AwsError.
        """
        found = digest(path)
        if found.sha256 != sha256:
            raise FileError(
                f"{path} is not the artifact that fdeploy package wrote: its hash differs",
                hint="run fdeploy package",
            )
        if self._has(key, found):
            self._report(Step(f"{self._bucket.uri(key)} is already stored"))
        else:
            progress = TransferProgress(self._report, "upload", found.size)
            # An interrupted upload has the key that it began with.
            if found.size < PART or not (
                self._resume(path, key, found, progress) and self._has(key, found)
            ):
                self._send(path, key, progress)
            self._check(key, found)
        return self._bucket.uri(key)

    def data(self, data: bytes, key: str) -> str:
        """Upload a few bytes, unless already stored, and return the URI. Raises AwsError."""
        sha256 = hashlib.sha256(data)
        found = FileDigest(len(data), sha256.hexdigest(), (sha256.digest(),))
        if not self._has(key, found):
            self._aws.call(
                "s3",
                "put_object",
                **self._bucket.owned,
                Key=key,
                Body=data,
                ChecksumSHA256=found.checksum,
                Metadata=self._metadata,
                **encryption(self._kms_key),
            )
        return self._bucket.uri(key)

    def _has(self, key: str, found: FileDigest) -> bool:
        try:
            answer = self._aws.call(
                "s3", "head_object", **self._bucket.owned, Key=key, ChecksumMode="ENABLED"
            )
        except AwsMissing:
            return False
        stored = (answer["ContentLength"], answer.get("ChecksumSHA256"))
        has_key = self._kms_key in (None, answer.get("SSEKMSKeyId"))
        return has_key and stored == (found.size, found.checksum)

    def _check(self, key: str, found: FileDigest) -> None:
        if not self._has(key, found):
            raise AwsError(
                f"{self._bucket.uri(key)} differs from what was sent",
                hint="run fdeploy upload again",
            )

    def _send(self, path: Path, key: str, progress: TransferProgress) -> None:
        """Upload a file with boto3's transfer manager."""
        client = self._aws.client("s3")
        with boundary("s3", "PutObject"), files.file_errors(path):
            client.upload_file(
                str(path),
                self._bucket.name,
                key,
                ExtraArgs={
                    "ChecksumAlgorithm": "SHA256",
                    "ExpectedBucketOwner": self._bucket.account,
                    "Metadata": self._metadata,
                    **encryption(self._kms_key),
                },
                Callback=progress.add,
                Config=TransferConfig(
                    multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=_SENDERS
                ),
            )

    def _resume(self, path: Path, key: str, found: FileDigest, progress: TransferProgress) -> bool:
        """Complete an interrupted upload; False if there is none."""
        upload = self._broken_off(key)
        if upload is None:
            return False
        stored = self._stored_parts(upload, key)
        parts = []
        self._report(Step("resuming an interrupted upload"))
        with files.file_errors(path), path.open("rb") as file:
            for number, part in enumerate(found.parts, start=1):
                checksum = _base64(part)
                etag = stored.get((number, checksum))
                data = b"" if etag else _part(file, number)
                etag = etag or self._send_part(upload, key, number, data, checksum)
                parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum})
                progress.add(min(PART, found.size - (number - 1) * PART))
        self._aws.call(
            "s3",
            "complete_multipart_upload",
            **self._bucket.owned,
            Key=key,
            UploadId=upload,
            MultipartUpload={"Parts": parts},
        )
        return True

    def _broken_off(self, key: str) -> str | None:
        """The newest unfinished upload of a key with SHA-256 checksums."""
        answer = self._aws.call("s3", "list_multipart_uploads", **self._bucket.owned, Prefix=key)
        uploads = [
            item
            for item in answer.get("Uploads", [])
            if item["Key"] == key and item.get("ChecksumAlgorithm", "SHA256") == "SHA256"
        ]
        newest = max(uploads, key=lambda item: item["Initiated"], default=None)
        return str(newest["UploadId"]) if newest else None

    def _stored_parts(self, upload: str, key: str) -> dict[tuple[int, str], str]:
        """The ETag of each stored part, by number and checksum."""
        pages = self._aws.pages("s3", "list_parts", **self._bucket.owned, Key=key, UploadId=upload)
        return {
            (part["PartNumber"], part.get("ChecksumSHA256", "")): part["ETag"]
            for page in pages
            for part in page.get("Parts", [])
        }

    def _send_part(self, upload: str, key: str, number: int, data: bytes, checksum: str) -> str:
        answer = self._aws.call(
            "s3",
            "upload_part",
            **self._bucket.owned,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=data,
            ChecksumSHA256=checksum,
        )
        return str(answer["ETag"])


class TransferProgress:
    """Counts and reports the bytes that several threads transfer."""

    def __init__(self, report: Reporter, task: str, total: int) -> None:
        self._report = report
        self._task = task
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Add bytes; ``count`` is negative when a part is sent again."""
        with self._lock:
            self._done += count
            self._report(Advanced(self._task, max(0, self._done), self._total))


def _part(file: Any, number: int) -> bytes:
    file.seek((number - 1) * PART)
    data: bytes = file.read(PART)
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

"""Reads artifacts in the bucket."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fastai_deploy import files
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.errors import AwsMissing, FileError
from fastai_deploy.progress import Advanced, Reporter
from fastai_deploy.records import Deployed


def download(aws: Aws, version: Deployed, path: Path, report: Reporter) -> None:
    """Write the artifact of a version to ``path``, verifying its hash.

    Raises AwsMissing if it was deleted, FileError if it differs, or AwsError.
    """
    digest, done = hashlib.sha256(), 0
    with opened(aws, version) as artifact, files.replacing(path) as file:
        while chunk := artifact.read(files.CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            report(Advanced("download", done, version.bytes))
        if digest.hexdigest() != version.sha256:
            raise FileError(
                f"{version.uri} is not the artifact of version {version.version}: its hash differs",
                hint="run fdeploy versions, and choose another one",
            )


@contextmanager
def opened(aws: Aws, version: Deployed) -> Iterator[BinaryIO]:
    """The artifact of a version, as a stream. Raises AwsMissing if it was deleted, or AwsError."""
    place, _, key = version.uri.removeprefix("s3://").partition("/")
    wanted = {"Bucket": place, "Key": key, "ExpectedBucketOwner": aws.account}
    try:
        body = aws.call("s3", "get_object", **wanted)["Body"]
    except AwsMissing:
        raise AwsMissing(
            f"the artifact of version {version.version} ({version.uri}) is gone",
            hint="choose another one: fdeploy versions",
        ) from None
    with closing(body):
        yield io.BufferedReader(_Body(body), files.CHUNK)


class _Body(io.RawIOBase):
    """The body of an answer of S3, whose errors are AwsErrors."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer."""
        with boundary("s3", "GetObject"):
            data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

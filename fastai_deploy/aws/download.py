"""Downloads objects of the bucket."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastai_deploy import files
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.errors import AwsMissing, FileError
from fastai_deploy.progress import Advanced, Reporter
from fastai_deploy.records import Deployed


def download(aws: Aws, version: Deployed, path: Path, report: Reporter) -> None:
    """Write the artifact of a version to ``path``, verifying its hash.

    Raises AwsMissing if it was deleted, FileError if it differs, or AwsError.
    """
    place, _, key = version.uri.removeprefix("s3://").partition("/")
    try:
        answer = aws.call(
            "s3", "get_object", Bucket=place, Key=key, ExpectedBucketOwner=aws.account
        )
    except AwsMissing:
        raise AwsMissing(
            f"the artifact of version {version.version} ({version.uri}) is gone",
            hint="choose another one: fdeploy versions",
        ) from None
    digest, done = hashlib.sha256(), 0
    with files.replacing(path) as file:
        while True:
            with boundary("s3", "GetObject"):
                chunk = answer["Body"].read(files.CHUNK)
            if not chunk:
                break
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            report(Advanced("download", done, version.bytes))
        if digest.hexdigest() != version.sha256:
            raise FileError(
                f"{version.uri} is not the artifact of version {version.version}: its hash differs",
                hint="run fdeploy versions, and choose another one",
            )

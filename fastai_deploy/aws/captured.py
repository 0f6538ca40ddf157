"""Captured requests and answers of an endpoint in the bucket, the newest first.

    <prefix>/<endpoint>/<variant>/yyyy/mm/dd/hh/<file>.jsonl

Source: "Capture data from real-time endpoint" in the SageMaker developer guide. The hour is in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.aws.specs import VARIANT
from fastai_deploy.errors import AwsMissing


def captured_lines(
    aws: Aws, bucket: Bucket, prefix: str, endpoint: str, since: datetime
) -> Iterator[bytes]:
    """The lines of the hour of ``since`` and all later ones. Raises AwsError.

    Nothing is read before it is asked for, so that a caller may stop.
    """
    place = f"{prefix}/{endpoint}/{VARIANT}/"
    pages = aws.pages(
        "s3",
        "list_objects_v2",
        **bucket.owned,
        Prefix=place,
        StartAfter=f"{place}{since:%Y/%m/%d/%H}",
    )
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    for key in sorted(keys, reverse=True):
        try:
            answer = aws.call("s3", "get_object", **bucket.owned, Key=key)
        except AwsMissing:  # expired since
            continue
        with boundary("s3", "GetObject"):
            data = answer["Body"].read()
        yield from reversed(data.split(b"\n"))

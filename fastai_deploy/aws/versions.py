"""The history of deployed versions: one small object per deploy, next to the artifacts.

    fdeploy/<project>/<stage>/deployments/<date>-<version>.json

It is written after an endpoint has been verified against its goldens, so that ``rollback`` knows
which versions worked. The live version is not stored here: the stack's tag says which one it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.ownership import Operator
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.errors import AwsMissing
from fastai_deploy.naming import stage_folder
from fastai_deploy.records import Deployed, StoredArtifact
from fastai_deploy.workspace import parsed


class Deployments:
    """The versions of one stage."""

    def __init__(self, aws: Aws, bucket: Bucket, project: str, stage: str) -> None:
        self._aws = aws
        self._bucket = bucket
        self._prefix = f"{stage_folder(project, stage)}deployments/"

    def add(self, stored: StoredArtifact, operator: Operator, *, again: bool) -> None:
        """Add a verified version; ``again`` adds it even if it is already the newest.

        Raises AwsError.
        """
        newest = max(self._keys(), default="")
        if not again and newest.endswith(f"-{stored.version}.json"):
            return
        deployed = Deployed.of(stored, self._aws.now(), str(operator))
        self._aws.call(
            "s3",
            "put_object",
            **self._bucket.owned,
            Key=f"{self._prefix}{deployed.at}-{deployed.version}.json",
            Body=json.dumps(asdict(deployed)).encode(),
            ContentType="application/json",
        )

    def listed(self) -> list[Deployed]:
        """Each version once, by its last deploy, newest first. Raises AwsError."""
        newest: dict[str, Deployed] = {}
        for key in sorted(self._keys(), reverse=True):
            version = key.rpartition("-")[2].removesuffix(".json")
            if version in newest:
                continue
            try:
                answer = self._aws.call("s3", "get_object", **self._bucket.owned, Key=key)
                with boundary("s3", "GetObject"):
                    entry = answer["Body"].read()
            except AwsMissing:
                continue
            place = f"s3://{self._bucket.name}/{key}"
            newest[version] = parsed(Deployed, entry, place, f"run aws s3 rm {place}")
        return list(newest.values())

    def _keys(self) -> Iterator[str]:
        pages: Iterator[Any] = self._aws.pages(
            "s3", "list_objects_v2", **self._bucket.owned, Prefix=self._prefix
        )
        for page in pages:
            for item in page.get("Contents", []):
                yield item["Key"]

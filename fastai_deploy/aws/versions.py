"""Which versions were deployed: one small object a deploy, beside the artifacts.

    fdeploy/<project>/<stage>/deployments/<date>-<version>.json

It is written when an endpoint has answered its goldens, so that ``rollback`` knows what was right
before. What is live is not read here: the stack's own tag says that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.ownership import Operator
from fastai_deploy.aws.session import Aws, boundary
from fastai_deploy.errors import AwsMissing, UsageError
from fastai_deploy.naming import stage_folder
from fastai_deploy.records import StoredArtifact

_DATE = "%Y%m%dT%H%M%SZ"
_SHOWN = 12  # hexadecimal digits of a version


@dataclass(frozen=True)
class Deployed:
    """A version that was verified; ``at`` is in UTC, ``by`` who deployed it."""

    version: str
    sha256: str
    uri: str
    bytes: int
    at: str
    by: str

    def stored(self) -> StoredArtifact:
        """The artifact, to be deployed again."""
        return StoredArtifact("aws", self.uri, self.sha256, self.bytes, self.sha256)


class Deployments:
    """The versions of one stage."""

    def __init__(self, aws: Aws, bucket: Bucket, project: str, stage: str) -> None:
        self._aws = aws
        self._bucket = bucket
        self._prefix = f"{stage_folder(project, stage)}deployments/"

    def add(self, stored: StoredArtifact, operator: Operator, *, again: bool) -> None:
        """Remember a version that was verified; ``again`` also when it is the newest already.

        Raises AwsError.
        """
        newest = max(self._keys(), default="")
        if not again and newest.endswith(f"-{stored.sha256[:_SHOWN]}.json"):
            return
        now = self._aws.now()
        deployed = Deployed(
            version=stored.sha256[:_SHOWN],
            sha256=stored.sha256,
            uri=stored.uri,
            bytes=stored.bytes,
            at=now.strftime(_DATE),
            by=str(operator),
        )
        self._aws.call(
            "s3",
            "put_object",
            **self._bucket.owned,
            Key=f"{self._prefix}{deployed.at}-{deployed.version}.json",
            Body=json.dumps(asdict(deployed)).encode(),
            ContentType="application/json",
        )

    def listed(self) -> list[Deployed]:
        """The versions, newest first, each once: as it was deployed last. Raises AwsError."""
        newest: dict[str, Deployed] = {}
        for key in sorted(self._keys(), reverse=True):
            version = key.rpartition("-")[2].removesuffix(".json")
            if version in newest:
                continue
            try:
                answer = self._aws.call("s3", "get_object", **self._bucket.owned, Key=key)
                with boundary("s3", "GetObject"):
                    newest[version] = Deployed(**json.loads(answer["Body"].read()))
            except AwsMissing:
                continue
        return list(newest.values())

    def before(self, live: str, wanted: str | None) -> Deployed:
        """The version ``wanted``, else the one before the live one. Raises UsageError."""
        versions = self.listed()
        known = ", ".join(version.version for version in versions) or "none"
        if wanted:
            found = [version for version in versions if version.version.startswith(wanted)]
            if len(found) != 1:
                many = "several versions" if found else "no version"
                raise UsageError(
                    f"{wanted} is {many} that was deployed",
                    hint=f"choose one of: {known}",
                )
            return found[0]
        others = [version for version in versions if version.version != live]
        if not others:
            raise UsageError(
                f"there is no version before {live}", hint="fdeploy versions lists what there is"
            )
        return others[0]

    def _keys(self) -> Iterator[str]:
        pages: Iterator[Any] = self._aws.pages(
            "s3", "list_objects_v2", **self._bucket.owned, Prefix=self._prefix
        )
        for page in pages:
            for item in page.get("Contents", []):
                yield item["Key"]

"""Batch transform jobs of SageMaker: start, find, follow, stop; their shards and their answers.

    s3://bucket/fdeploy/<project>/stages/<stage>/batch/<run>/
        in/00000.jsonl        a shard: a request of the contract on each line
        in/<attempt>.manifest the shards that a job reads
        out/00000.jsonl.out   its answers, a line for each

A shard whose answers are there is not read again, so a run that is continued, or a job that fails,
costs what is missing. The requests go through boto3 and not ``sagemaker.core.resources``: importing
that takes five seconds of processor time, and its clients are global, so that nothing would check
the account, limit the attempts or translate the errors.

Sources: "CreateTransformJob", "DescribeTransformJob" and "StopTransformJob" of the API reference;
"Use batch transform to get inferences from large datasets" for the names of outputs, and that a
manifest lists the keys below its first element.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy import naming
from fastai_deploy.aws.bucket import Bucket, delete_objects, encryption, object_versions
from fastai_deploy.aws.inventory import RUNNING_JOBS
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.templates.render import TRANSFORM_GROUP
from fastai_deploy.errors import AwsError, AwsMissing, DeployError

_COMPLETED = "Completed"
_CONCURRENT = 4  # requests to a container at a time
_LARGEST = 6  # MB of a request
_SECONDS = 600  # of a request
_RETRIES = 3
_POLL_SECONDS = 15.0
_LOG_LINES = 8


@dataclass(frozen=True)
class Job:
    """A transform job as SageMaker describes it."""

    name: str
    attempt: int
    status: str
    reason: str


@dataclass(frozen=True)
class Machines:
    """What a job runs on."""

    instance: str
    count: int
    volume_key: str | None = None


class TransformJobs:
    """The jobs of one stage. ``tags`` are put on every job."""

    def __init__(
        self,
        aws: Aws,
        owner: Owner,
        bucket: Bucket,
        tags: Mapping[str, str],
        kms_key: str | None = None,
    ) -> None:
        self._aws = aws
        self._owner = owner
        self._bucket = bucket
        self._tags = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._kms_key = kms_key

    def newest(self, run: str) -> Job | None:
        """The last job of a run; None if it has none yet. Raises AwsError."""
        found = None
        attempt = 0
        while True:
            attempt += 1
            job = self._find(run, attempt)
            if job is None:
                return found
            found = job

    def start(self, run: str, attempt: int, model: str, shards: Sequence[str], on: Machines) -> Job:
        """Start a job for some shards. Raises AwsError, AwsQuota without free instances."""
        name = naming.transform_job(self._owner.project, self._owner.stage, run, attempt)
        manifest = f"{self._folder(run)}/in/{attempt}.manifest"
        listed = [{"prefix": self._bucket.uri(f"{self._folder(run)}/in/")}, *shards]
        self._put(manifest, json.dumps(listed).encode())
        key = {"KmsKeyId": self._kms_key} if self._kms_key else {}
        volume = {"VolumeKmsKeyId": on.volume_key} if on.volume_key else {}
        request: dict[str, Any] = {
            "TransformJobName": name,
            "ModelName": model,
            "MaxConcurrentTransforms": _CONCURRENT,
            "MaxPayloadInMB": _LARGEST,
            # A line has as many texts as a request should have. MultiRecord would put as many lines
            # into a request as fit into megabytes, far more than the contract's thousand texts.
            "BatchStrategy": "SingleRecord",
            "ModelClientConfig": {
                "InvocationsTimeoutInSeconds": _SECONDS,
                "InvocationsMaxRetries": _RETRIES,
            },
            "TransformInput": {
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "ManifestFile",
                        "S3Uri": self._bucket.uri(manifest),
                    }
                },
                "ContentType": "application/json",
                "SplitType": "Line",
            },
            "TransformOutput": {
                "S3OutputPath": self._bucket.uri(f"{self._folder(run)}/out/"),
                "Accept": "application/json",
                "AssembleWith": "Line",
                **key,
            },
            "TransformResources": {
                "InstanceType": on.instance,
                "InstanceCount": min(on.count, len(shards)),
                **volume,
            },
            "Tags": self._tags,
        }
        self._aws.call("sagemaker", "create_transform_job", **request)
        return Job(name, attempt, "InProgress", "")

    def follow(self, job: Job, notify: Callable[[], None]) -> Job:
        """Wait until a job ends; ``notify`` is called from time to time. Raises AwsError."""
        while job.status in RUNNING_JOBS:
            notify()
            self._aws.sleep(_POLL_SECONDS)
            job = self._described(job.name, job.attempt)
        return job

    def check(self, job: Job) -> None:
        """Raise DeployError, with AWS's reason and the last lines of the log, unless it is done."""
        if job.status == _COMPLETED:
            return
        lines = "".join(f"\n    {line[:300]}" for line in self._log(job.name))
        raise DeployError(
            f"the transform job {job.name} is {job.status}: {job.reason or 'AWS gives no reason'}"
            + (f"; its log ends with:{lines}" if lines else ""),
            hint="run the same command again to continue with the shards that have no answers",
        )

    def stored(self, run: str, kind: str) -> dict[str, int]:
        """The names and sizes of the shards (``in``) or answers (``out``) of a run."""
        prefix = f"{self._folder(run)}/{kind}/"
        pages = self._aws.pages("s3", "list_objects_v2", **self._bucket.owned, Prefix=prefix)
        return {
            item["Key"].removeprefix(prefix): int(item["Size"])
            for page in pages
            for item in page.get("Contents", [])
        }

    def upload(self, run: str, shard: str, data: bytes) -> None:
        """Store a shard. Raises AwsError."""
        self._put(f"{self._folder(run)}/in/{shard}", data)

    def answers(self, run: str, shard: str) -> bytes:
        """The answers to a shard, a line for each of its lines. Raises AwsError."""
        key = f"{self._folder(run)}/out/{shard}.out"
        body = self._aws.call("s3", "get_object", **self._bucket.owned, Key=key)["Body"]
        data: bytes = body.read()
        return data

    def clean(self, run: str) -> None:
        """Delete the shards and the answers of a run. Raises AwsError."""
        prefix = f"{self._folder(run)}/"
        delete_objects(
            self._aws, self._bucket, list(object_versions(self._aws, self._bucket, prefix))
        )

    def _put(self, key: str, data: bytes) -> None:
        self._aws.call(
            "s3",
            "put_object",
            **self._bucket.owned,
            Key=key,
            Body=data,
            **encryption(self._kms_key),
        )

    def _find(self, run: str, attempt: int) -> Job | None:
        name = naming.transform_job(self._owner.project, self._owner.stage, run, attempt)
        try:
            return self._described(name, attempt)
        except AwsMissing:
            return None

    def _described(self, name: str, attempt: int) -> Job:
        found = self._aws.call("sagemaker", "describe_transform_job", TransformJobName=name)
        return Job(name, attempt, found["TransformJobStatus"], found.get("FailureReason", ""))

    def _log(self, job: str) -> list[str]:
        """The last lines of a job's containers; none if they cannot be read."""
        last: deque[str] = deque(maxlen=_LOG_LINES)
        try:
            for page in self._aws.pages(
                "logs",
                "filter_log_events",
                logGroupName=TRANSFORM_GROUP,
                logStreamNamePrefix=f"{job}/",
            ):
                last.extend(event["message"].rstrip() for event in page["events"])
        except AwsError:  # what went wrong with the job matters more
            return list(last)
        return list(last)

    def _folder(self, run: str) -> str:
        return f"{naming.batch_prefix(self._owner.project, self._owner.stage)}/{run}"

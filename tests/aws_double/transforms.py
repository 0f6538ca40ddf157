"""Batch transform: a job starts the model's container and asks it record by record.

Sources: "CreateTransformJob", "DescribeTransformJob", "ListTransformJobs" and "StopTransformJob" of
the API reference; "Use batch transform to get inferences from large datasets": each input file
gives a file with ``.out`` behind its name, which is stored when all of its records are answered;
SplitType Line sends a line, without its end, in a request (SingleRecord) or as many as fit
(MultiRecord); AssembleWith Line puts a line end behind each answer. "S3DataSource": a manifest is a
list whose first element has the prefix of the others. A request that is not answered with 200 fails
the job. The containers log to /aws/sagemaker/TransformJobs, in streams that begin with the job.
"""

from __future__ import annotations

import contextvars
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.aws_double import emulator
from tests.aws_double.behaviour import Behaviour
from tests.aws_double.containers import Container, NotHealthy
from tests.aws_double.refused import Refused
from tests.aws_double.shapes import enum_problem

_GROUP = "/aws/sagemaker/TransformJobs"
_S3 = re.compile(r"s3://([^/]+)/(.*)")
_HOLD_SECONDS = 0.02
_QUOTA = (
    "The account-level service limit '{instance} for transform job usage' is {quota} Instances, "
    "with current utilization of 0 Instances and a request delta of {count} Instances. Please use "
    "AWS Service Quotas to request an increase for this quota."
)
Json = Any


@dataclass
class Job:
    """A transform job."""

    name: str
    request: Json
    status: str = "InProgress"
    reason: str = ""
    created: float = field(default_factory=time.time)
    ended: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)


class Transforms:
    """The jobs; ``model`` finds a model, ``container`` makes its container; both raise Refused."""

    def __init__(
        self,
        model: Callable[[str], Json],
        container: Callable[[Json], Container],
        behaviour: Callable[[], Behaviour],
    ) -> None:
        self.jobs: Any = emulator.Store()
        self._model = model
        self._container = container
        self._behaviour = behaviour
        self._running: list[tuple[str, Job, threading.Thread]] = []

    def create(self, request: Json) -> Json:
        """CreateTransformJob: the model must exist, the name be new, the instance type be one."""
        name = request["TransformJobName"]
        if name in self.jobs:
            raise Refused(
                "ResourceInUse",
                "Job name must be unique within an AWS account and region, and a "
                f"job with this name already exists ({self.arn(name)})",
            )
        problem = enum_problem("CreateTransformJob", request)
        if problem:
            raise Refused("ValidationException", problem)
        model = self._model(request["ModelName"])
        resources = request["TransformResources"]
        quota = self._behaviour().quota.get(resources["InstanceType"])
        if quota is not None and quota < resources["InstanceCount"]:
            raise Refused(
                "ResourceLimitExceeded",
                _QUOTA.format(
                    instance=resources["InstanceType"],
                    quota=quota,
                    count=resources["InstanceCount"],
                ),
            )
        job = Job(name, request)
        self.jobs[name] = job
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._run, job, model), daemon=True)
        self._running.append((emulator.get_account(), job, thread))
        thread.start()
        return {"TransformJobArn": self.arn(name)}

    def describe(self, request: Json) -> Json:
        """DescribeTransformJob."""
        job = self._found(request["TransformJobName"])
        shown = {
            **{key: value for key, value in job.request.items() if key != "Tags"},
            "TransformJobArn": self.arn(job.name),
            "TransformJobStatus": job.status,
            "CreationTime": job.created,
        }
        if job.ended:
            shown["TransformEndTime"] = job.ended
        return {**shown, **({"FailureReason": job.reason} if job.reason else {})}

    def listed(self, request: Json) -> Json:
        """ListTransformJobs, by NameContains and StatusEquals."""
        part, status = request.get("NameContains", ""), request.get("StatusEquals")
        return {
            "TransformJobSummaries": [
                {
                    "TransformJobName": job.name,
                    "TransformJobArn": self.arn(job.name),
                    "CreationTime": job.created,
                    "TransformJobStatus": job.status,
                }
                for job in self.jobs.values()
                if part in job.name and status in (None, job.status)
            ]
        }

    def stop(self, request: Json) -> Json:
        """StopTransformJob; one that has ended cannot be stopped."""
        job = self._found(request["TransformJobName"])
        if job.status != "InProgress":
            raise Refused(
                "ValidationException",
                f"The request was rejected because the transform job is in status {job.status}.",
            )
        job.status = "Stopping"
        job.stopping.set()
        return {}

    def of_arn(self, arn: str) -> Job | None:
        """The job with this ARN."""
        found: Job | None = self.jobs.get(arn.rpartition("/")[2])
        return found if found is not None and self.arn(found.name) == arn else None

    def arn(self, name: str) -> str:
        """The ARN of a job."""
        place = f"{emulator.get_region()}:{emulator.get_account()}"
        return f"arn:aws:sagemaker:{place}:transform-job/{name}"

    def close(self, account: str) -> None:
        """End the jobs of an account, or all of them."""
        for owner, job, thread in self._running:
            if account in {"", owner}:
                job.stopping.set()
                thread.join(timeout=60)

    def _found(self, name: str) -> Job:
        if name not in self.jobs:
            raise Refused("ResourceNotFound", f"Could not find requested job with name: {name}")
        found: Job = self.jobs[name]
        return found

    def _run(self, job: Job, model: Json) -> None:
        lines: list[str] = []
        try:
            self._answer(job, model, lines)
            job.status = "Stopped" if job.stopping.is_set() else "Completed"
        except (Refused, NotHealthy, OSError) as error:
            lines += getattr(error, "log", [])
            job.reason = str(error)
            job.status = "Failed"
        job.ended = time.time()
        self._write_log(job, lines)

    def _answer(self, job: Job, model: Json, lines: list[str]) -> None:
        if self._behaviour().no_capacity:
            raise Refused("CapacityError", "Unable to provision requested ML compute capacity.")
        container = self._container(model)
        try:
            lines += container.start(60.0)
            for bucket, key in self._keys(job):
                while self._behaviour().hold and not job.stopping.is_set():
                    time.sleep(_HOLD_SECONDS)
                if job.stopping.is_set():
                    return
                self._file(job, container, bucket, key)
                if self._behaviour().transform_fails:
                    lines.append("a line of the container's log")
                    raise Refused("ClientError", self._behaviour().transform_fails)
        finally:
            container.stop()

    def _keys(self, job: Job) -> list[tuple[str, str]]:
        """The input files of a manifest."""
        place = self._place(job.request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])
        data = emulator.object_data(*place)
        if data is None:
            raise Refused("ClientError", f"The manifest {place} cannot be read")
        first, *rest = json.loads(data)
        bucket, prefix = self._place(first["prefix"])
        return [(bucket, f"{prefix}{name}") for name in rest]

    def _file(self, job: Job, container: Container, bucket: str, key: str) -> None:
        """Answer one file; its output is stored when it is whole."""
        given = job.request["TransformInput"]
        data = emulator.object_data(bucket, key)
        if data is None:
            raise Refused("ClientError", f"s3://{bucket}/{key} cannot be read")
        headers = {
            "content-type": given["ContentType"],
            "accept": job.request["TransformOutput"].get("Accept", "*/*"),
        }
        answers = []
        for record in self._records(job, bytes(data)):
            status, _kind, body = container.invoke(record, headers, 600.0)
            if status != 200:
                said = body.decode("utf-8", "replace")
                raise Refused("ClientError", f"{key}: the algorithm answered {status}: {said}")
            answers.append(body)
        end = b"\n" if job.request["TransformOutput"].get("AssembleWith") == "Line" else b""
        output, prefix = self._place(job.request["TransformOutput"]["S3OutputPath"])
        name = f"{prefix.rstrip('/')}/{key.rpartition('/')[2]}.out"
        emulator.put_object(output, name, b"".join(each + end for each in answers), {})

    def _records(self, job: Job, data: bytes) -> list[bytes]:
        if job.request["TransformInput"].get("SplitType") != "Line":
            return [data]
        records = [line for line in data.split(b"\n") if line]
        if job.request.get("BatchStrategy") != "MultiRecord":
            return records
        most = job.request.get("MaxPayloadInMB", 6) << 20
        joined: list[bytes] = []
        for record in records:
            if joined and len(joined[-1]) + len(record) + 1 <= most:
                joined[-1] += b"\n" + record
            else:
                joined.append(record)
        return joined

    def _place(self, uri: str) -> tuple[str, str]:
        place = _S3.fullmatch(uri)
        if place is None:
            raise Refused("ValidationException", f"{uri} is no location in S3")
        return place[1], place[2]

    def _write_log(self, job: Job, lines: list[str]) -> None:
        stream = f"{job.name}/i-0123456789abcdef0-1"
        emulator.create_log_group({"logGroupName": _GROUP})
        emulator.create_log_stream({"logGroupName": _GROUP, "logStreamName": stream})
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in lines if line]
        emulator.put_log_events(
            {"logGroupName": _GROUP, "logStreamName": stream, "logEvents": events}
        )

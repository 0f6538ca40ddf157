"""Nothing is left of a stage: what is deleted, in which order, and the proof.

    1. the ttl stack         before it deletes the others beneath us
    2. the api stack         nobody is let in any more
    3. the endpoint stack    nothing costs by the hour any more
    4. what no stack holds   endpoints, configurations and models that a stack had to give up;
                             log groups, which containers and functions make anew
    5. data in the bucket    captured and asynchronous data, the list of deploys; with ``artifacts``
                             what no other stage uses, and our bucket when it is empty then
    6. the inventory         by names and by tags

A stack that cannot delete something is asked again, and lets go of it at last; step 4 takes care of
that, or the inventory names it. Everything may be gone already, deleted by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastai_deploy.aws import bucket as buckets
from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.deployment import Deployment
from fastai_deploy.aws.inventory import Inventory, ResourceRef, artifacts_of, data_of
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import AwsError, AwsMissing, StackFailed
from fastai_deploy.progress import Reporter, Step, Warned, silent
from fastai_deploy.records import Teardown

_STACK_ATTEMPTS = 3
_PAUSE_SECONDS = 15.0
_ENDPOINT_SECONDS = 3_600.0  # one that is being created cannot be deleted until it fails
_INDEX_SECONDS = 60.0  # the index of tags is late
_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class TeardownScope:
    """How much is removed; ``bucket`` is the user's own, or None for fdeploy's."""

    artifacts: bool
    bucket: str | None


class StageTeardown:
    """Removes everything of one owner."""

    def __init__(self, aws: Aws, owner: Owner, deployment: Deployment, report: Reporter) -> None:
        self._aws = aws
        self._owner = owner
        self._deployment = deployment
        self._report = report
        self._inventory = Inventory(aws, owner)
        self._deletes: Mapping[str, Callable[[str], None]] = {
            "endpoint": self._delete_endpoint,
            "endpoint configuration": lambda name: self._delete(
                "sagemaker", "delete_endpoint_config", EndpointConfigName=name
            ),
            "model": lambda name: self._delete("sagemaker", "delete_model", ModelName=name),
            "function": lambda name: self._delete("lambda", "delete_function", FunctionName=name),
            "log group": lambda name: self._delete("logs", "delete_log_group", logGroupName=name),
            "alarm": lambda name: self._delete("cloudwatch", "delete_alarms", AlarmNames=[name]),
        }

    def run(self, scope: TeardownScope) -> Teardown:
        """Remove it all; the proof says what is left. Raises NotOurs, StackBusy or AwsError."""
        bucket = buckets.find_bucket(self._aws, scope.bucket)
        found = [*self._inventory.everything(), *self._stored(bucket, scope)]
        self._report(Step(f"{len(found)} found"))
        for name in self._inventory.names.stacks:
            self._remove_stack(name)
        self._remove_all(self._inventory.outside(), tried=set())
        if bucket is not None:
            self._remove_stored(bucket, scope)
        left = self._left(bucket, scope)
        kept = self._kept(bucket, scope)
        return Teardown(
            target="aws",
            found=tuple(map(str, found)),
            deleted=tuple(str(ref) for ref in found if ref not in left),
            left=tuple(map(str, left)),
            kept=tuple(map(str, kept)),
        )

    def begin(self) -> Teardown:
        """Ask AWS to delete the stacks, and no more: nothing is proven. Raises as :meth:`run`."""
        names = self._inventory.names.stacks
        begun = tuple(f"stack {name}" for name in names if self._deployment.begin_removal(name))
        if begun:
            self._report(
                Warned(
                    "AWS goes on without us; log groups and data are still there",
                    hint="fdeploy teardown removes them, and proves that nothing is left",
                )
            )
        return Teardown(target="aws", found=begun, deleted=(), left=(), begun=begun)

    # Stacks and what they let go of

    def _remove_stack(self, name: str) -> None:
        for attempt in range(1, _STACK_ATTEMPTS + 1):
            if self._is_removed(name, let_go=attempt == _STACK_ATTEMPTS):
                return
            self._aws.sleep(_PAUSE_SECONDS)

    def _is_removed(self, name: str, *, let_go: bool) -> bool:
        try:
            self._deployment.remove(name, let_go=let_go)
        except StackFailed as error:
            self._report(Warned(error.message, hint="asking AWS again"))
            return False
        return True

    def _remove_all(self, refs: Iterable[ResourceRef], tried: set[ResourceRef]) -> None:
        """Delete what fdeploy can; what was ``tried`` before is tried again without a word."""
        for ref in refs:
            delete = self._deletes.get(ref.kind)
            if delete is not None:
                report = silent if ref in tried else self._report
                tried.add(ref)
                self._remove(ref, delete, report)

    def _remove(self, ref: ResourceRef, delete: Callable[[str], None], report: Reporter) -> None:
        report(Step(f"deleting the {ref}"))
        try:
            delete(ref.name)
        except AwsError as error:
            report(Warned(f"{ref}: {error.message}", hint=error.hint))

    def _delete_endpoint(self, name: str) -> None:
        deadline = self._aws.clock() + _ENDPOINT_SECONDS
        while True:
            try:
                state = self._aws.call("sagemaker", "describe_endpoint", EndpointName=name)
            except AwsMissing:
                return
            if state["EndpointStatus"] not in ("Creating", "Updating", "Deleting"):
                self._delete("sagemaker", "delete_endpoint", EndpointName=name)
            elif self._aws.clock() > deadline:
                return
            self._aws.sleep(_POLL_SECONDS)

    def _delete(self, service: str, operation: str, **parameters: Any) -> None:
        try:
            self._aws.call(service, operation, **parameters)
        except AwsMissing:
            return

    # The bucket

    def _stored(self, bucket: Bucket | None, scope: TeardownScope) -> list[ResourceRef]:
        """What the bucket holds that goes, and the bucket where it goes too."""
        if bucket is None:
            return []
        data = data_of(self._aws, bucket, self._owner)
        refs = {ResourceRef("data", bucket.uri(key)) for key, _ in data}
        if scope.artifacts:
            artifacts = artifacts_of(self._aws, bucket, self._owner)
            refs |= {ResourceRef("artifact", bucket.uri(key)) for key, _ in artifacts}
            if bucket.ours and self._is_all(bucket, refs):
                refs.add(ResourceRef("bucket", bucket.name))
        return sorted(refs)

    def _remove_stored(self, bucket: Bucket, scope: TeardownScope) -> None:
        found = list(data_of(self._aws, bucket, self._owner))
        if scope.artifacts:
            found += artifacts_of(self._aws, bucket, self._owner)
        if found:
            self._report(Step(f"deleting {len(found)} stored objects"))
            buckets.delete_objects(self._aws, bucket, found)
        if scope.artifacts and bucket.ours and self._is_all(bucket, set()):
            self._report(Step(f"deleting the bucket {bucket.name}"))
            self._delete("s3", "delete_bucket", **bucket.owned)

    def _is_all(self, bucket: Bucket, refs: set[ResourceRef]) -> bool:
        """Whether the bucket holds nothing else."""
        names = {ref.name for ref in refs}
        held = buckets.object_versions(self._aws, bucket, "")
        return all(bucket.uri(key) in names for key, _version in held)

    def _kept(self, bucket: Bucket | None, scope: TeardownScope) -> list[ResourceRef]:
        """The artifacts that stay, told."""
        if bucket is None or scope.artifacts:
            return []
        keys = {key for key, _version in artifacts_of(self._aws, bucket, self._owner)}
        kept = sorted(ResourceRef("artifact", bucket.uri(key)) for key in keys)
        if kept:
            self._report(
                Warned(
                    f"kept in the bucket {bucket.name}: {len(kept)} artifacts",
                    hint="fdeploy teardown --artifacts removes them too",
                )
            )
        return kept

    # The proof

    def _left(self, bucket: Bucket | None, scope: TeardownScope) -> list[ResourceRef]:
        """What is still there when the index of tags had the time to notice.

        A log group may come back meanwhile: who writes to it may be the last to end.
        """
        deadline = self._aws.clock() + _INDEX_SECONDS
        tried: set[ResourceRef] = set()
        while True:
            there = bucket and buckets.find_bucket(self._aws, scope.bucket)
            left = [*self._inventory.outside(), *self._stored(there or None, scope)]
            if not left or self._aws.clock() > deadline:
                return left
            self._remove_all(left, tried)
            self._aws.sleep(_POLL_SECONDS)

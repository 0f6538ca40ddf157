"""Deletes everything in a stage, in this order, and verifies that nothing is left.

    1. the ttl stack         before it can delete the others concurrently
    2. the API stack         ends public access
    3. the batch stack       the model of a batch transform
       the endpoint stack    ends the hourly cost
       the function stack    the model in a function
    4. stray resources       transform jobs that run; endpoints, configurations and models that a
                             stack had to retain; log groups, which containers and Lambdas
                             create again
    5. data in the bucket    captured and asynchronous data, the list of deploys; with ``artifacts``
                             those that no other stage uses, and fdeploy's bucket if then empty
    6. images in ECR         this stage's tags; the images that no other stage uses; the repository
                             when it is empty
    7. the inventory         by names and by tags

If a stack cannot delete a resource, the deletion is retried and finally retains it; step 4 deletes
it, or the inventory reports it. For want of a permission nothing is retained: the stack stays, with
what is in it, for the next teardown. Anything may be gone already, deleted by hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastai_deploy import naming
from fastai_deploy.aws import bucket as buckets
from fastai_deploy.aws.bucket import Bucket
from fastai_deploy.aws.client_errors import denial
from fastai_deploy.aws.deployment import Deployment
from fastai_deploy.aws.inventory import Inventory, ResourceRef, artifacts_of, data_of
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.repository import ImageRepository, StageImages, StoredImage
from fastai_deploy.aws.session import Aws
from fastai_deploy.aws.stacks import Stack, stage_stacks
from fastai_deploy.errors import (
    AwsDenied,
    AwsError,
    AwsMissing,
    NotOurs,
    StackFailed,
    UsageError,
)
from fastai_deploy.progress import Reporter, Step, Warned, silent
from fastai_deploy.records import Teardown, counted

EVEN_IF_PROTECTED = "to delete it anyway, run fdeploy teardown --even-if-protected"
_STACK_ATTEMPTS = 3
_IMAGES = ("image", "image tag", "image repository")
_PAUSE_SECONDS = 15.0
_ENDPOINT_SECONDS = 3_600.0  # one that is being created cannot be deleted until it fails
_JOB_SECONDS = 900.0  # a transform job takes minutes to stop
_INDEX_SECONDS = 60.0  # the tag index lags behind
_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class TeardownScope:
    """What to delete; ``bucket`` is the user's own, or None for fdeploy's."""

    artifacts: bool
    bucket: str | None


@dataclass(frozen=True)
class _Pushed:
    """Images in ECR: those that only the stage has, and those that another stage uses."""

    own: tuple[ResourceRef, ...] = ()
    kept: tuple[ResourceRef, ...] = ()


def _pushed(repository: str, found: StageImages | None) -> _Pushed:
    if found is None:
        return _Pushed()

    def named(image: StoredImage) -> str:
        return f"{repository}:{image.tag}" if image.tag else f"{repository}@{image.digest}"

    kept = tuple(ResourceRef("image", named(image)) for image in found.kept)
    own = [ResourceRef("image", named(image)) for image in found.unused]
    shared = {tag for image in found.kept for tag in image.tags} & set(found.tags)
    own += [ResourceRef("image tag", f"{repository}:{tag}") for tag in sorted(shared)]
    if not kept:
        own.append(ResourceRef("image repository", repository))
    return _Pushed(tuple(own), kept)


class StageTeardown:
    """Deletes all resources of one owner.

    ``agreed`` is called with what was found before anything is deleted, and stops it by raising.
    ``confirmed``: stacks with termination protection are deleted too.
    """

    def __init__(
        self,
        aws: Aws,
        owner: Owner,
        deployment: Deployment,
        report: Reporter,
        *,
        images: ImageRepository,
        confirmed: bool,
        agreed: Callable[[Sequence[ResourceRef]], None] = lambda _found: None,
    ) -> None:
        self._aws = aws
        self._owner = owner
        self._deployment = deployment
        self._report = report
        self._images = images
        self._confirmed = confirmed
        self._agreed = agreed
        self._inventory = Inventory(aws, owner)
        self._deletes: Mapping[str, Callable[[str], None]] = {
            "endpoint": self._delete_endpoint,
            "endpoint configuration": lambda name: self._delete(
                "sagemaker", "delete_endpoint_config", EndpointConfigName=name
            ),
            "model": lambda name: self._delete("sagemaker", "delete_model", ModelName=name),
            "transform job": self._stop_job,
            "function": lambda name: self._delete("lambda", "delete_function", FunctionName=name),
            "log group": lambda name: self._delete("logs", "delete_log_group", logGroupName=name),
            "alarm": lambda name: self._delete("cloudwatch", "delete_alarms", AlarmNames=[name]),
            # The first of them deletes all of them.
            **dict.fromkeys(_IMAGES, lambda _name: self._images.clear()),
        }

    def run(self, scope: TeardownScope) -> Teardown:
        """Delete everything and return what is left.

        Raises UsageError for a protected stack, NotOurs, StackBusy or AwsError.
        """
        names = self._inventory.names.stacks
        stacks = stage_stacks(self._aws, names, self._owner)
        self._refuse_protected(stacks.ours)
        bucket = buckets.find_bucket(self._aws, scope.bucket)
        pushed = self._look_for_images()
        found = [*self._inventory.everything(), *self._stored(bucket, scope), *pushed.own]
        if not found:
            stacks.refuse_strangers_alone(self._owner)
        self._report(Step(f"found {counted(len(found), 'resource')}"))
        self._agreed(found)
        for name in names:
            self._remove_stack(name)
        self._remove_all(self._inventory.outside(), tried=set())
        if bucket is not None:
            self._remove_stored(bucket, scope)
        self._remove_all(pushed.own, tried=set())
        left = self._left(bucket, scope, pushed)
        kept = [*self._kept(bucket, scope), *pushed.kept]
        return Teardown(
            target="aws",
            found=tuple(map(str, found)),
            deleted=tuple(str(ref) for ref in found if ref not in left),
            left=tuple(map(str, left)),
            kept=tuple(map(str, kept)),
            region=self._aws.region,
            account=self._aws.account,
        )

    def begin(self) -> Teardown:
        """Start deleting the stacks and verify nothing. Raises the errors of :meth:`run`."""
        names = self._inventory.names.stacks
        stacks = stage_stacks(self._aws, names, self._owner)
        stacks.refuse_strangers_alone(self._owner)
        self._refuse_protected(stacks.ours)
        self._agreed([ref for ref in self._inventory.outside() if ref.kind == "stack"])
        begun = tuple(
            f"stack {stack.name}"
            for stack in stacks.ours
            if self._deployment.begin_removal(stack.name)
        )
        if begun:
            self._report(
                Warned(
                    "AWS deletes the stacks in the background; log groups and data still exist",
                    hint="run fdeploy teardown to delete them and verify that nothing is left",
                )
            )
        return Teardown(
            target="aws",
            found=begun,
            deleted=(),
            left=(),
            begun=begun,
            region=self._aws.region,
            account=self._aws.account,
        )

    # Stacks and retained resources

    def _refuse_protected(self, found: Sequence[Stack]) -> None:
        """Raise UsageError for a stack that was protected, whatever the settings say by now."""
        protected = [stack.name for stack in found if stack.protected]
        if protected and not self._confirmed:
            raise UsageError(
                f"{protected[0]} has termination protection, although protect is false in "
                "[project]",
                hint=EVEN_IF_PROTECTED,
            )

    def _remove_stack(self, name: str) -> None:
        for attempt in range(1, _STACK_ATTEMPTS + 1):
            if self._is_settled(name, retain_stuck=attempt == _STACK_ATTEMPTS):
                return
            self._aws.sleep(_PAUSE_SECONDS)

    def _is_settled(self, name: str, *, retain_stuck: bool) -> bool:
        """Delete a stack; whether it is gone, or another attempt would not help."""
        try:
            self._deployment.remove(name, retain_stuck=retain_stuck)
        except NotOurs as error:
            self._report(Warned(f"left alone: {error.message}", hint=error.hint))
        except StackFailed as error:
            if denied := denial(error.reason):
                self._report(Warned(f"{name} is not deleted: {denied}", hint=denied.hint))
                return True
            self._report(Warned(error.message, hint="retrying"))
            return False
        return True

    def _remove_all(self, refs: Iterable[ResourceRef], tried: set[ResourceRef]) -> None:
        """Delete the resources that fdeploy can; repeated attempts (``tried``) are not reported."""
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

    def _stop_job(self, name: str) -> None:
        """Stop a transform job, and wait until it costs nothing."""
        deadline = self._aws.clock() + _JOB_SECONDS
        self._delete("sagemaker", "stop_transform_job", TransformJobName=name)
        while ResourceRef("transform job", name) in self._inventory.outside():
            if self._aws.clock() > deadline:
                return
            self._aws.sleep(_POLL_SECONDS)

    def _delete(self, service: str, operation: str, **parameters: Any) -> None:
        try:
            self._aws.call(service, operation, **parameters)
        except AwsMissing:
            return

    # The bucket

    def _stored(self, bucket: Bucket | None, scope: TeardownScope) -> list[ResourceRef]:
        """The objects to delete, and the bucket if it is deleted too."""
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
            self._report(Step(f"deleting {counted(len(found), 'stored object')}"))
            buckets.delete_objects(self._aws, bucket, found)
        if bucket.ours:
            for prefix in (naming.captured_prefix, naming.async_prefix):
                with contextlib.suppress(AwsDenied):  # a rule for nothing does no harm
                    place = prefix(self._owner.project, self._owner.stage)
                    buckets.expire(self._aws, bucket, place, 0)
        if scope.artifacts and bucket.ours and self._is_all(bucket, set()):
            self._report(Step(f"deleting the bucket {bucket.name}"))
            self._delete("s3", "delete_bucket", **bucket.owned)

    def _is_all(self, bucket: Bucket, refs: set[ResourceRef]) -> bool:
        """Whether the bucket contains nothing else."""
        names = {ref.name for ref in refs}
        held = buckets.object_versions(self._aws, bucket, "")
        return all(bucket.uri(key) in names for key, _version in held)

    def _kept(self, bucket: Bucket | None, scope: TeardownScope) -> list[ResourceRef]:
        """The artifacts that stay; reports them."""
        if bucket is None or scope.artifacts:
            return []
        keys = {key for key, _version in artifacts_of(self._aws, bucket, self._owner)}
        kept = sorted(ResourceRef("artifact", bucket.uri(key)) for key in keys)
        if kept:
            self._report(
                Warned(
                    f"kept {counted(len(kept), 'artifact')} in the bucket {bucket.name}",
                    hint="run fdeploy teardown --artifacts to delete them too",
                )
            )
        return kept

    # The images

    def _look_for_images(self) -> _Pushed:
        """What the stage has in ECR; who may not look there is warned."""
        try:
            return _pushed(self._images.name, self._images.of_stage())
        except AwsDenied as error:
            self._report(
                Warned(f"no images were looked for in ECR: {error.message}", hint=error.hint)
            )
            return _Pushed()

    # The proof

    def _left(
        self, bucket: Bucket | None, scope: TeardownScope, pushed: _Pushed
    ) -> list[ResourceRef]:
        """What is still left once the tag index has had time to catch up.

        A log group may reappear in the meantime, if something still writes to it.
        """
        deadline = self._aws.clock() + _INDEX_SECONDS
        tried: set[ResourceRef] = set()
        while True:
            there = bucket and buckets.find_bucket(self._aws, scope.bucket)
            left = [*self._inventory.outside(), *self._stored(there or None, scope)]
            left += _pushed(self._images.name, self._images.of_stage()).own if pushed.own else ()
            if not left or self._aws.clock() > deadline:
                return left
            self._remove_all(left, tried)
            self._aws.sleep(_POLL_SECONDS)

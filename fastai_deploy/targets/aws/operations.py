"""Plan, status, logs, versions, rollback, doctor and templates of a stage in AWS.

Only ``rollback`` changes anything.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from fastai_deploy import naming
from fastai_deploy.aws import logs as log_lines
from fastai_deploy.aws import status as stage_status
from fastai_deploy.aws.bucket import default_bucket, find_bucket
from fastai_deploy.aws.captured import captured_lines
from fastai_deploy.aws.change_sets import planned
from fastai_deploy.aws.doctor import Doctor
from fastai_deploy.aws.download import download, opened
from fastai_deploy.aws.endpoint import EndpointState, find_endpoint
from fastai_deploy.aws.images import OWN
from fastai_deploy.aws.permissions import resolved, role_policies, user_policies
from fastai_deploy.aws.repository import NO_ACCOUNT
from fastai_deploy.aws.session import console_url
from fastai_deploy.aws.specs import EndpointSpec, Location, ModelSpec
from fastai_deploy.aws.stacks import Stack, our_stack
from fastai_deploy.errors import AwsDenied, FileMissing, UsageError
from fastai_deploy.progress import Step, Warned
from fastai_deploy.records import Artifact, Deployed, Endpoint, StoredArtifact
from fastai_deploy.stage_reports import (
    Checkup,
    LogLine,
    PlannedChange,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)
from fastai_deploy.targets.aws import checks, expiry
from fastai_deploy.targets.aws.checks import artifact_check
from fastai_deploy.targets.aws.function import FunctionStage
from fastai_deploy.targets.aws.stacks import StackDefinition
from fastai_deploy.targets.aws.target import AwsTarget
from fastai_deploy.versions import (
    answers_as,
    list_versions,
    model_change,
    previous_version,
)

# A placeholder until an artifact is packaged; no check depends on its values.
_NO_ARTIFACT = Artifact("", "0" * 64, 0, "")
# Without credentials: a policy variable that IAM fills in.
_ANY_ACCOUNT = "${aws:PrincipalAccount}"


class AwsOperations:
    """Operations on a target's stage."""

    def __init__(self, target: AwsTarget) -> None:
        self._target = target
        self._context = target.context

    def plan(self, artifact: Artifact) -> StagePlan:
        """Run the checks and return what ``deploy`` and ``create-api`` would change.

        Raises the errors of those commands.
        """
        if self._is_function:
            return self._function_plan(artifact, self._would_store(artifact))
        context, stored = self._context, self._in_ecr(self._would_store(artifact))
        spec = context.definitions.endpoint_spec(stored)
        subject = checks.subject(context, spec)
        if subject.estimate:
            subject.estimate.require()
        for check in Doctor(context.aws).examine(subject):
            if check.outcome != "passed":
                context.report(Warned(f"{check.name}: {check.message}", hint=check.hint))
        changes: list[PlannedChange] = []
        state = find_endpoint(context.aws, spec.name)
        blueprints = list(self._blueprints(stored))
        for stack, definition in blueprints:
            rollout = context.rollout(naming.endpoint_log_group(definition.service))
            plan = rollout.plan(context.request(stack, definition))
            changes += planned(stack, plan.changes)
            if definition.service == spec.name:
                self._report_patch(plan.stack, spec.model)
                changes += self._instances_set(stack, spec, state, changes)
        end = expiry.planned_end(context, stored.sha256)
        templates = [definition.template for _, definition in blueprints]
        cost = checks.cost(context, spec, templates, state.instances if state else 0)
        model = model_change(artifact, self.live_version(), self.deployed)
        return StagePlan((*changes, *end.changes), cost, end.ends, end.ends_now, model)

    def _function_plan(self, artifact: Artifact, stored: StoredArtifact) -> StagePlan:
        """The same for the model in a function."""
        context, function = self._context, FunctionStage(self._context)
        plan, spec = function.plan(stored)
        subject = checks.function_subject(context, spec)
        if subject.estimate:
            subject.estimate.require()
        for check in Doctor(context.aws).examine(subject):
            if check.outcome != "passed":
                context.report(Warned(f"{check.name}: {check.message}", hint=check.hint))
        name = naming.api_stack(context.owner.project, context.owner.stage)
        definition = self._api_definition(stored)
        rollout = context.rollout(naming.function_log_group(function.name))
        api = rollout.plan(context.request(name, definition))
        end = expiry.planned_end(context, stored.sha256)
        changes = (*planned(function.stack, plan.changes), *planned(name, api.changes))
        model = model_change(artifact, self.live_version(), self.deployed)
        cost = checks.function_cost(context, spec)
        return StagePlan((*changes, *end.changes), cost, end.ends, end.ends_now, model)

    @property
    def _is_function(self) -> bool:
        return self._context.settings.sections.endpoint.kind == "lambda"

    def _report_patch(self, stack: Stack | None, model: ModelSpec) -> None:
        """Report that another build of the image would serve than the one that runs."""
        before, _, old = (stack.parameters.get("Image", "") if stack else "").partition("@")
        after, _, new = model.image.partition("@")
        if not old or old == new:
            return
        if model.server == OWN and after.startswith(before):  # by its tag, if it is not in ECR yet
            what = "fdeploy's image has changed since the last deploy: its code, libraries or base"
            self._context.report(Step(f"{what}; the endpoint moves to it, with the same model"))
        elif before == after:
            self._context.report(Step(f"AWS has patched the image since: {new} instead of {old}"))

    def _in_ecr(self, stored: StoredArtifact) -> StoredArtifact:
        """The artifact with its image by the digest, if that is in ECR already."""
        if not stored.image_tag:
            return stored
        images = self._context.images
        try:
            found = images.find(stored.image_tag)
        except AwsDenied:  # the checks name the permission
            return stored
        return replace(stored, image=images.uri(found.digest)) if found else stored

    @staticmethod
    def _instances_set(
        stack: str, spec: EndpointSpec, state: EndpointState | None, changes: list[PlannedChange]
    ) -> list[PlannedChange]:
        """The change of an endpoint to its number of instances, which is no change of a stack."""
        moves = any(change.type == "SageMaker::EndpointConfig" for change in changes)
        if state is None or moves or spec.fixed_instances in (0, state.desired):
            return []
        properties = (f"instances: {state.desired} to {spec.fixed_instances}",)
        kind = "SageMaker::Endpoint"
        return [PlannedChange(stack, "change", kind, "Endpoint", properties, interrupts=False)]

    def status(self) -> Status:
        """The state of the stage. Raises NotOurs or AwsError."""
        return stage_status.status(self._context.aws, self._context.owner)

    def logs(self, *, api: bool, since: timedelta, follow: bool) -> Iterator[LogLine]:
        """The log lines of the endpoint's containers or the API's Lambda.

        Raises NotOurs or AwsError.
        """
        aws, owner = self._context.aws, self._context.owner
        kind = self._context.settings.sections.endpoint.kind
        model = naming.model_stack(owner.project, owner.stage, kind)
        our_stack(aws, naming.api_stack(owner.project, owner.stage) if api else model, owner)
        name = naming.endpoint_name(owner.project, owner.stage, kind)
        group = naming.endpoint_log_group(name)
        if self._is_function:  # which is the API's too
            group = naming.function_log_group(name)
        elif api:
            group = naming.function_log_group(naming.function_name(owner.project, owner.stage))
        start = aws.now() - since
        if follow:
            return log_lines.follow(aws, (group,), start)
        return log_lines.since(aws, group, start)

    def console(self) -> str:
        """The stage's stacks in the AWS console. Asks AWS nothing."""
        owner, region = self._context.owner, self._context.aws.region
        prefix = naming.api_stack(owner.project, owner.stage).removesuffix("api")
        found = f"#/stacks?filteringText={prefix}&filteringStatus=active&viewNested=true"
        return console_url(region, f"cloudformation/home?region={region}{found}")

    def versions(self) -> tuple[Version, ...]:
        """The deployed versions, newest first. Raises AwsError."""
        return list_versions(self.deployed(), self.live_version())

    def artifact_of(self, version: Deployed, folder: Path) -> Path:
        """Download the artifact of a version. Raises FileError, AwsMissing or AwsError."""
        path = folder / "model.tar.gz"
        download(self._context.aws, version, path, self._context.report)
        return path

    def opened(self, version: Deployed) -> AbstractContextManager[BinaryIO]:
        """The artifact of a version in the bucket. Raises AwsMissing or AwsError."""
        return opened(self._context.aws, version)

    def deployed(self) -> Sequence[Deployed]:
        """The verified versions, newest first; none without a bucket."""
        context = self._context
        bucket = find_bucket(context.aws, context.settings.sections.project.bucket)
        return context.deployments(bucket).listed() if bucket else ()

    def live_version(self) -> str:
        """The version of the stack; empty without one. Raises NotOurs or AwsError.

        A function's stack may have a newer version beside the one that serves.
        """
        owner, kind = self._context.owner, self._context.settings.sections.endpoint.kind
        name = naming.model_stack(owner.project, owner.stage, kind)
        stack = our_stack(self._context.aws, name, owner)
        if stack is None:
            return ""
        return stack.outputs.get("LiveVersion") or stack.tags.get(naming.VERSION_TAG, "")

    def captured(self, since: timedelta) -> Iterator[bytes]:
        """The lines of data capture in the bucket, the newest first. Raises NotOurs or AwsError."""
        context = self._context
        owner, kind = context.owner, context.settings.sections.endpoint.kind
        bucket = find_bucket(context.aws, context.settings.sections.project.bucket)
        if bucket is None:
            return
        prefix = naming.captured_prefix(owner.project, owner.stage)
        endpoint = naming.endpoint_name(owner.project, owner.stage, kind)
        start = context.aws.now() - since
        yield from captured_lines(context.aws, bucket, prefix, endpoint, start)

    def rollback(self, wanted: str | None) -> Endpoint:
        """Deploy the version before the live one, or ``wanted``, again.

        The time at which the stage deletes itself does not change. Raises UsageError, FileMissing
        without a bucket, and the errors of ``deploy``.
        """
        context = self._context
        own = context.settings.sections.project.bucket
        bucket = find_bucket(context.aws, own)
        live = self.live_version()
        if not live:
            raise UsageError("nothing is deployed in this stage", hint="run fdeploy up")
        if bucket is None:
            raise FileMissing(
                f"the bucket {own or default_bucket(context.aws)} is gone, and with it the earlier "
                "versions",
                hint="run fdeploy upload && fdeploy deploy",
            )
        chosen = previous_version(context.deployments(bucket).listed(), live, wanted)
        stored = chosen.stored(self._target.name)
        return self._target.deploy(stored, answers_as(chosen.version), sets_end=False)

    def doctor(self, artifact: Artifact | None) -> Checkup:
        """Check that a deploy would work. Raises SettingsError."""
        context = self._context
        packaged = artifact_check(artifact, self._target.container(artifact))
        doctor = Doctor(context.aws)
        credentials = doctor.credentials()
        if credentials.outcome == "failed":  # the other checks depend on the account
            return Checkup((credentials, packaged))
        if self._is_function:
            stored = self._would_store(artifact or _NO_ARTIFACT)
            function = context.definitions.function_spec(stored)
            found = doctor.examine(checks.function_subject(context, function))
            speed = checks.speed_check(context, function)
            return Checkup((credentials, *found, *([speed] if speed else []), packaged))
        if artifact is None and context.own_server.decided(None) is not None:
            artifact = replace(_NO_ARTIFACT, server=OWN, image_tag="not-packaged-yet")
        stored = self._in_ecr(self._would_store(artifact or _NO_ARTIFACT))
        spec = context.definitions.endpoint_spec(stored)
        examined = doctor.examine(checks.subject(context, spec))
        base = context.own_server.base_check(stored)
        return Checkup((credentials, *examined, *([base] if base else []), packaged))

    def policies(self) -> Policies:
        """The IAM policies that the stage needs: the caller's, then those of the settings' roles.

        Without credentials they are for the account of whoever has them. Raises SettingsError.
        """
        context = self._context
        needs = checks.needs(context, unknown=_ANY_ACCOUNT)
        if needs.makes_roles and needs.roles.boundary is None:
            context.report(
                Warned(
                    "whoever has these permissions can create IAM roles with any policy, and so "
                    "become an administrator of the account",
                    hint="to bind the roles, set permissions_boundary in [project]",
                )
            )
        stored = self._would_store(_NO_ARTIFACT, unknown=_ANY_ACCOUNT)
        own = {
            name: resolved(
                document,
                account=arn.split(":")[4],
                region=context.aws.region,
                partition=needs.partition,
            )
            for name, (arn, document) in context.definitions.given_roles(stored).items()
        }
        return Policies({**user_policies(needs), **role_policies(needs), **own})

    def template(self, artifact: Artifact) -> Templates:
        """The templates that ``deploy`` and ``create-api`` would apply. Raises SettingsError.

        Without credentials, ``ACCOUNT`` is in the place of the account.
        """
        stored = self._would_store(artifact, unknown=NO_ACCOUNT)
        account = NO_ACCOUNT not in stored.uri
        stacks = dict(self._blueprints(stored, account=account))
        ends = expiry.wanted_end(self._context)
        if ends is not None:
            name = expiry.stack_name(self._context)
            stacks[name] = self._context.definitions.ttl(stored.sha256, ends)
        return Templates({name: self._by_hand(name, stack) for name, stack in stacks.items()})

    def _by_hand(self, name: str, definition: StackDefinition) -> str:
        """A template with the stage's values as defaults, under the command that deploys it."""
        given = self._context.tags(definition)
        tags = " ".join(shlex.quote(f"{key}={value}") for key, value in given.items())
        return (
            f"# aws cloudformation deploy --stack-name {name} --template-file {name}.yaml \\\n"
            f"#   --capabilities CAPABILITY_NAMED_IAM --tags {tags}\n"
            f"{definition.template.with_defaults()}"
        )

    def _blueprints(
        self, stored: StoredArtifact, *, account: bool = True
    ) -> Iterator[tuple[str, StackDefinition]]:
        """The stacks by name, in the order in which they are created."""
        context = self._context
        project, stage = context.owner.project, context.owner.stage
        if self._is_function:
            wanted = FunctionStage(context).wanted(stored)
            yield (
                naming.function_stack(project, stage),
                wanted.definition(wanted.in_place_of(None)),
            )
        else:
            yield naming.endpoint_stack(project, stage), context.definitions.endpoint(stored)
        if context.settings.sections.endpoint.kind != "async":
            yield naming.api_stack(project, stage), self._api_definition(stored, account=account)

    def _api_definition(self, stored: StoredArtifact, *, account: bool = True) -> StackDefinition:
        context = self._context
        digest = hashlib.sha256(context.lambda_package()).hexdigest()
        bucket, _, _ = stored.uri.removeprefix("s3://").partition("/")
        code = Location(bucket, naming.code_key(context.owner.project, digest))
        return context.definitions.api(code, digest, account=account)

    def _would_store(self, artifact: Artifact, *, unknown: str | None = None) -> StoredArtifact:
        """Where an artifact would be stored, to plan before it is uploaded."""
        context = self._context
        chosen = context.settings.sections.project.bucket
        bucket = chosen or default_bucket(context.aws, unknown=unknown)
        key = naming.artifact_key(context.owner.project, artifact.sha256)
        return StoredArtifact.of(artifact, "aws", f"s3://{bucket}/{key}", context.aws.region)

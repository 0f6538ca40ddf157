"""What is done with a stage beside the flow: planned, looked at, read, taken back.

One function a command: ``plan``, ``status``, ``logs``, ``versions``, ``rollback`` and ``doctor``,
with the ``policies`` that are needed. None but ``rollback`` changes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from fastai_deploy import naming
from fastai_deploy.aws import logs as log_lines
from fastai_deploy.aws import status as stage_status
from fastai_deploy.aws.bucket import default_bucket, find_bucket
from fastai_deploy.aws.doctor import Check, Doctor, Subject
from fastai_deploy.aws.logs import LogLine
from fastai_deploy.aws.planning import StagePlan, planned
from fastai_deploy.aws.policy import Needs, user_policies
from fastai_deploy.aws.pricing import endpoint_cost, instance_price
from fastai_deploy.aws.stacks import our_stack
from fastai_deploy.aws.template.spec import Instances, Location
from fastai_deploy.aws.versions import Deployed
from fastai_deploy.errors import ParityError, UsageError
from fastai_deploy.lambda_package import build_lambda_package
from fastai_deploy.records import Endpoint, StoredArtifact
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.aws.target import AwsTarget
from fastai_deploy.targets.base import Invoke, Json

_RECENT = timedelta(hours=1)


@dataclass(frozen=True)
class Version:
    """A version that was deployed, and whether it is the one that serves."""

    deployed: Deployed
    live: bool


def plan(context: Context, stored: StoredArtifact) -> StagePlan:
    """What ``deploy`` and ``create-api`` would change. Raises the errors of theirs."""
    endpoint = context.blueprints.endpoint(stored)
    serving = context.serving(naming.endpoint_log_group(endpoint.service))
    stack = naming.endpoint_stack(context.owner.project, context.owner.stage)
    changes = planned(stack, serving.plan(context.request(stack, endpoint)))
    if context.settings.sections.endpoint.kind != "async":
        digest = hashlib.sha256(build_lambda_package()).hexdigest()
        bucket = context.settings.sections.project.bucket or default_bucket(context.aws)
        code = Location(bucket, naming.code_key(context.owner.project, digest))
        stack = naming.api_stack(context.owner.project, context.owner.stage)
        request = context.request(stack, context.blueprints.api(code, digest))
        changes += planned(stack, serving.plan(request))
    spec = context.blueprints.endpoint_spec(stored)
    capacity = spec.capacity
    price = instance_price(
        stage_status.price_list(context.aws),
        capacity.type if isinstance(capacity, Instances) else "",
        context.aws.region,
    )
    return StagePlan(tuple(changes), endpoint_cost(spec, price))


def status(context: Context) -> stage_status.Status:
    """How the stage is doing. Raises AwsError."""
    return stage_status.status(context.aws, context.owner)


def logs(context: Context, *, api: bool = False, follow: bool = False) -> Iterator[LogLine]:
    """The lines of the last hour of the endpoint, or of the API; ``follow`` goes on for ever.

    Raises AwsError.
    """
    kind = context.settings.sections.endpoint.kind
    owner = context.owner
    group = naming.endpoint_log_group(naming.endpoint_name(owner.project, owner.stage, kind))
    if api:
        group = naming.function_log_group(naming.function_name(owner.project, owner.stage))
    start = context.aws.now() - _RECENT
    if follow:
        return log_lines.follow(context.aws, (group,), start)
    return log_lines.since(context.aws, group, start)


def versions(context: Context) -> list[Version]:
    """The versions that were deployed, newest first. Raises AwsError."""
    bucket = find_bucket(context.aws, context.settings.sections.project.bucket)
    live = _live_version(context)
    found = context.deployments(bucket).listed() if bucket else []
    return [Version(deployed, deployed.version == live) for deployed in found]


def rollback(target: AwsTarget, wanted: str | None = None) -> Endpoint:
    """Deploy the version before the live one, or ``wanted``, again.

    Its goldens stand in its artifact: the model server asks itself them before it is healthy; here
    it is asked which version it is. Raises UsageError, and the errors of ``deploy``.
    """
    context = target.context
    bucket = find_bucket(context.aws, context.settings.sections.project.bucket)
    live = _live_version(context)
    if bucket is None or not live:
        raise UsageError("nothing is deployed in this stage", hint="run fdeploy up")
    chosen = context.deployments(bucket).before(live, wanted)

    def verify(invoke: Invoke) -> None:
        answered = invoke({"text": "ready?"})["model"]["version"]
        if answered != chosen.version:
            raise ParityError(
                f"version {answered} answers, and not {chosen.version}",
                hint="run fdeploy status, then fdeploy deploy",
            )

    return target.deploy(chosen.stored(), verify)


def doctor(context: Context, stored: StoredArtifact) -> list[Check]:
    """Whether a deploy of this artifact would work. Raises SettingsError."""
    spec = context.blueprints.endpoint_spec(stored)
    instances = spec.capacity if isinstance(spec.capacity, Instances) else None
    subject = Subject(
        owner=context.owner,
        bucket=context.settings.sections.project.bucket,
        image=spec.model.image,
        instance=instances.type if instances else None,
        count=instances.count if instances else 0,
    )
    return Doctor(context.aws).examine(subject)


def policies(context: Context) -> Mapping[str, Json]:
    """The permissions that the stage needs, as documents to copy. Raises AwsError."""
    project = context.settings.sections.project
    return user_policies(
        Needs(
            project=context.owner.project,
            bucket=project.bucket or default_bucket(context.aws),
            partition=context.aws.partition,
            kms_key=project.kms_key,
            signs_requests=context.settings.sections.api.auth == "iam",
        )
    )


def would_store(context: Context, sha256: str, size: int) -> StoredArtifact:
    """Where an artifact would be stored: enough to plan with before it is uploaded."""
    bucket = context.settings.sections.project.bucket or default_bucket(context.aws)
    key = naming.artifact_key(context.owner.project, sha256)
    return StoredArtifact("aws", f"s3://{bucket}/{key}", sha256, size, sha256)


def _live_version(context: Context) -> str:
    stack = our_stack(
        context.aws,
        naming.endpoint_stack(context.owner.project, context.owner.stage),
        context.owner,
    )
    return stack.tags.get(naming.VERSION_TAG, "") if stack else ""

"""Answers shards of requests with a batch transform, on as many instances as are asked for.

    agree (price) -> upload shards -> stack (model, role) -> job -> answers -> clean

Everything is named by the run, so a run that is continued finds what there is: shards, answers, a
job that still runs. What is left if it is not continued is found by teardown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from fastai_deploy import naming
from fastai_deploy.aws.bucket import ensure_bucket
from fastai_deploy.aws.inventory import RUNNING_JOBS, Inventory
from fastai_deploy.aws.pricing import pricing_region, transform_price
from fastai_deploy.aws.specs import EndpointSpec, Instances, Location
from fastai_deploy.aws.templates.render import transform_template
from fastai_deploy.aws.transform import Machines, TransformJobs
from fastai_deploy.errors import DeployError, SettingsError
from fastai_deploy.progress import Step
from fastai_deploy.records import StoredArtifact, counted
from fastai_deploy.targets.aws import claim
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.aws.stacks import SettingsStackDefinitions, StackDefinition


class BatchTransform:
    """Answers the shards of one run with an artifact on ``instances`` instances."""

    def __init__(self, context: Context, stored: StoredArtifact, instances: int) -> None:
        self._context = context
        self._stored = stored
        self._instances = instances
        project = context.settings.sections.project
        self._bucket = ensure_bucket(context.aws, project.bucket, context.report)
        tags = {**project.tags, **context.owner.tags, naming.VERSION_TAG: stored.version}
        self._jobs = TransformJobs(context.aws, context.owner, self._bucket, tags, project.kms_key)
        self._spec = self._specified()

    def agree(self, run: str) -> None:
        """Show what an hour costs, and ask, unless the run's job is there already.

        Raises NotOurs for another project's stage, UsageError for a no, or AwsError.
        """
        context, on = self._context, self._capacity
        claim.refuse_another_projects(context)
        job = self._jobs.newest(run)
        if job is not None and job.status in RUNNING_JOBS:
            return
        aws = context.aws
        pricing = aws.elsewhere(pricing_region(aws.region))
        price = transform_price(
            lambda **wanted: pricing.call("pricing", "get_products", **wanted),
            on.type,
            aws.region,
        )
        machines = f"{self._instances} x {on.type}"
        if price.per_hour is None:
            cost = f"price unknown: {price.reason}"
        else:
            total = price.per_hour * self._instances
            cost = f"{total:.2f} {price.currency} an hour, billed by the second while it runs"
        context.report(Step(f"{machines} in account {aws.account}, {aws.region}: {cost}"))
        context.consent.agree(f"Start a batch transform on {machines}?", refused="nothing started")

    def stored(self, run: str) -> Mapping[str, int]:
        """The shards that are uploaded, with their sizes."""
        return self._jobs.stored(run, "in")

    def upload(self, run: str, shard: str, data: bytes) -> None:
        """Upload a shard."""
        self._jobs.upload(run, shard, data)

    def transform(
        self, run: str, shards: Sequence[str], notify: Callable[[frozenset[str]], None]
    ) -> None:
        """Have all shards answered; ``notify`` receives those that are.

        A job of an earlier call is followed if it runs; otherwise a job is started for what is
        missing. Raises DeployError if it fails, or AwsError.
        """
        job = self._jobs.newest(run)
        if job is not None and job.status in RUNNING_JOBS:
            self._context.report(Step(f"following the transform job {job.name}"))
            job = self._jobs.follow(job, lambda: notify(self._answered(run)))
        answered = self._answered(run)
        missing = [each for each in shards if each not in answered]
        if missing:
            attempt = job.attempt + 1 if job else 1
            model = self._model()
            job = self._jobs.start(
                run, attempt, model, missing, Machines(self._capacity.type, self._instances)
            )
            self._context.report(
                Step(f"the transform job {job.name} reads {counted(len(missing), 'shard')}")
            )
            job = self._jobs.follow(job, lambda: notify(self._answered(run)))
            self._jobs.check(job)
            left = set(shards) - self._answered(run)
            if left:
                raise DeployError(
                    f"the transform job {job.name} is completed, but {counted(len(left), 'shard')} "
                    "have no answers",
                    hint="run the same command again to continue",
                )
        notify(frozenset(shards))

    def answers(self, run: str, shard: str) -> bytes:
        """The answers to a shard, a line for each of its lines."""
        return self._jobs.answers(run, shard)

    def clean(self, run: str) -> None:
        """Delete what the run has in the bucket, and the stack unless another run uses it."""
        context = self._context
        self._jobs.clean(run)
        if not any(Inventory(context.aws, context.owner).running_transforms()):
            context.deployment().remove(self._stack)

    @property
    def _stack(self) -> str:
        owner = self._context.owner
        return naming.batch_stack(owner.project, owner.stage)

    @property
    def _capacity(self) -> Instances:
        assert isinstance(self._spec.capacity, Instances)  # noqa: S101 - see _specified
        return self._spec.capacity

    def _answered(self, run: str) -> frozenset[str]:
        return frozenset(
            name.removesuffix(".out") for name in self._jobs.stored(run, "out") if ".out" in name
        )

    def _model(self) -> str:
        """The name of the model, whose stack is made first."""
        context = self._context
        definition = StackDefinition(transform_template(self._spec), "", self._stored.version)
        applied = context.deployment().apply(context.request(self._stack, definition))
        return applied.stack.outputs["ModelName"]

    def _specified(self) -> EndpointSpec:
        """The specification of an asynchronous endpoint, which reads and writes a bucket, too.

        Raises SettingsError.
        """
        context = self._context
        settings, owner = context.settings, context.owner
        endpoint = settings.sections.endpoint
        if endpoint.kind in ("serverless", "lambda") and endpoint.instance is None:
            raise SettingsError(
                "a batch transform runs on instances, and the settings name none",
                hint="add --instance ml.c6i.large (or another type)",
            )
        changed = endpoint.model_copy(update={"kind": "async", "data_capture": 0})
        sections = settings.sections.model_copy(update={"endpoint": changed})
        definitions = SettingsStackDefinitions(
            replace(settings, sections=sections), context.aws, context.bundle
        )
        spec = definitions.endpoint_spec(self._stored)
        place = Location(self._bucket.name, naming.batch_prefix(owner.project, owner.stage))
        return replace(spec, name=self._stack, output=place, capture=None, scaling=None)

"""Checks before any change in AWS: artifact, permissions, quota, memory, price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastai_deploy.aws import status as stage_status
from fastai_deploy.aws.bucket import default_bucket
from fastai_deploy.aws.capacity import (
    Instance,
    MemoryEstimate,
    MemoryNeed,
    function_memory,
    in_function,
    known_types,
    on_instance,
    on_serverless,
)
from fastai_deploy.aws.costs import function_kept, function_million
from fastai_deploy.aws.doctor import Doctor, Limits, Subject
from fastai_deploy.aws.endpoint import find_endpoint
from fastai_deploy.aws.function_speed import Speed, speed_table
from fastai_deploy.aws.images import OWN
from fastai_deploy.aws.list_prices import PriceBook, default_folder, price_book
from fastai_deploy.aws.permissions import Needs
from fastai_deploy.aws.pricing import Price, instance_price, stage_cost
from fastai_deploy.aws.specs import (
    BATCH_PERCENT,
    INVOKE_SECONDS,
    EndpointSpec,
    FunctionSpec,
    Instances,
)
from fastai_deploy.aws.templates.render import endpoint_template
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.aws.wanted import wanted_roles
from fastai_deploy.errors import FileError
from fastai_deploy.packaging.artifact import read_contents
from fastai_deploy.packaging.served_model import served_model
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.progress import Step, Warned
from fastai_deploy.records import Artifact
from fastai_deploy.settings.aws_sections import MAX_BODY_BYTES, MAX_GATEWAY_SECONDS
from fastai_deploy.settings.constraints import MAX_SERVERLESS_BODY
from fastai_deploy.stage_reports import BY_USAGE, Check, Cost
from fastai_deploy.targets.aws.context import Context
from fastai_deploy.targets.aws.costs import where_it_fits
from fastai_deploy.targets.aws.stacks import chosen_image, could_be_own

_AGAIN = "run fdeploy package"


def artifact_check(artifact: Artifact | None, container: Container) -> Check:
    """Check the artifact; a mismatch only warns, because ``deploy`` packages it again."""
    name = "artifact"
    if artifact is None:
        return Check(name, "warned", "nothing is packaged yet", "run fdeploy package")
    try:
        packed = read_contents(Path(artifact.path))
    except FileError as error:
        return Check(name, "failed", error.message, error.hint)
    image = f"the {container.name} has Python {container.python} on {container.platform}"
    about = f"version {artifact.version}"
    wrong = list(packed.mismatches(container))
    if wrong:
        return Check(name, "warned", f"{about} does not fit: {'; '.join(wrong)}; {image}", _AGAIN)
    if packed.learner or packed.bare:
        what = f"is a learner for Python {packed.learner}; {image}"
        if packed.bare:
            what = f"is the model; the {container.name} has the serving code and libraries"
        return Check(name, "passed", f"{about} {what}")
    if packed.python is None:
        sentence = (
            f"{about} has no wheels: the container would install them when it starts; {image}"
        )
        return Check(name, "warned", sentence, _AGAIN)
    return Check(name, "passed", f"{about} has {len(packed.wheels)} wheels; {image}")


def subject(context: Context, spec: EndpointSpec) -> Subject:
    """What the doctor checks."""
    instances = spec.capacity if isinstance(spec.capacity, Instances) else None
    count, batch = _started(context, spec)
    own = spec.model.image if spec.model.server == OWN else ""
    served = served_model(context.bundle)
    _, chosen = chosen_image(context.settings, context.aws.region, served, own=own)
    api = context.settings.sections.api
    behind_api = spec.kind != "async"
    return Subject(
        owner=context.owner,
        needs=needs(context),
        unused=frozenset(_unused(context, spec)),
        bucket=context.settings.sections.project.bucket,
        image=spec.model.image,
        image_name=chosen.uri,
        server=spec.model.server,
        instance=instances.type if instances else None,
        count=batch if spec.rollout.rolling and batch else count,
        rolling=0 if spec.rollout.rolling else batch,
        limits=Limits(
            function_seconds=api.timeout if behind_api else None,
            gateway_seconds=MAX_GATEWAY_SECONDS if behind_api else None,
            endpoint_seconds=INVOKE_SECONDS,
            largest_request=api.max_body if behind_api else None,
            endpoint_takes=MAX_SERVERLESS_BODY if spec.kind == "serverless" else MAX_BODY_BYTES,
        ),
        estimate=estimate(context, spec),
    )


def function_subject(context: Context, spec: FunctionSpec) -> Subject:
    """What the doctor checks of the model in a function."""
    api, served = context.settings.sections.api, served_model(context.bundle)
    estimate = None
    if served is not None:
        need = MemoryNeed(served.function_bytes, "function")
        estimate = in_function(spec.function.memory, need)
    return Subject(
        owner=context.owner,
        needs=needs(context),
        unused=frozenset(_unused_by_function(context)),
        bucket=context.settings.sections.project.bucket,
        image="",
        image_name="",
        instance=None,
        count=0,
        rolling=0,
        limits=Limits(
            function_seconds=api.timeout,
            gateway_seconds=MAX_GATEWAY_SECONDS,
            endpoint_seconds=spec.function.timeout,
            largest_request=api.max_body,
            endpoint_takes=MAX_BODY_BYTES,
        ),
        estimate=estimate,
        function=spec.function.concurrency or 0,
    )


def _unused_by_function(context: Context) -> Iterator[str]:
    yield from ("application-autoscaling", "sagemaker", "ecr")
    if context.settings.sections.project.ttl is None:
        yield "scheduler"


_SAMPLE_MS = 100


def function_cost(context: Context, spec: FunctionSpec) -> Cost:
    """What a million requests cost, and from where the cheapest instance costs less.

    They take what is expected of the model; 100 ms if nothing is known of it.
    """
    prices = price_book(context.aws.region, default_folder())
    memory = spec.function.memory
    speed, advice = _expected(context, spec, prices)
    taken = speed.warm_ms if speed else _SAMPLE_MS
    million = function_million(prices, memory, taken)
    if million is None:
        return Cost(None, None, "USD", f"no price of Lambda in {prices.region} is known here")
    each = f"requests of {taken:,.0f} ms with {memory:,} MB"
    note = f"{BY_USAGE}, nothing when idle: about {million:,.2f} USD per million {each}"
    fits, _ = where_it_fits(context.settings, context.bundle, context.aws.region)
    priced = [prices.hour[kind] for kind, _ in fits.types if kind in prices.hour]
    if priced:
        daily = min(priced) * 24 / million * 1_000_000
        note += f", which is less than an instance below {daily:,.0f} requests a day"
    more = function_kept(prices, memory, warm=spec.provisioned or 0, snapshot=spec.snapstart)
    return Cost(None, None, "USD", "; ".join((note, *more, *([advice] if advice else ()))))


def speed_check(context: Context, spec: FunctionSpec) -> Check | None:
    """How fast the model is expected to be, and with which memory it would be quicker.

    None if nothing is known of the model.
    """
    prices = price_book(context.aws.region, default_folder())
    speed, advice = _expected(context, spec, prices)
    if speed is None:
        return None
    message = speed_table().told(speed)
    if speed.million is not None:
        message += f"; {speed.million:,.2f} USD per million"
    return Check("speed", "passed", f"{message}; {advice}" if advice else message)


def _expected(context: Context, spec: FunctionSpec, prices: PriceBook) -> tuple[Speed | None, str]:
    """How fast the model is expected to be, and the memory that is quicker for about the price.

    None if nothing is known of the model; no advice if there is no such memory.
    """
    table, served = speed_table(), served_model(context.bundle)
    speed = table.speed(served, spec.function.memory, prices) if served else None
    if served is None or speed is None:
        return None, ""
    least = function_memory(served.function_bytes, least=1)
    advised = table.advised(served, least, prices)
    if advised is None or advised.warm_ms >= speed.warm_ms:
        return speed, ""
    return speed, f"memory = {advised.memory} in [endpoint.function] is quicker ({advised})"


def check_function(context: Context, spec: FunctionSpec) -> None:
    """Run the checks and report the price. Raises AwsQuota if a deploy must fail."""
    for warned in Doctor(context.aws).require(function_subject(context, spec)):
        context.report(Warned(f"{warned.name}: {warned.message}", hint=warned.hint))
    context.report(Step(f"price: {function_cost(context, spec).note}"))


def _started(context: Context, spec: EndpointSpec) -> tuple[int, int]:
    """How many instances a deploy starts beside the old ones: all at once, and batch by batch.

    The second is 0 for a new endpoint, and for one of a single instance.
    """
    if not isinstance(spec.capacity, Instances):
        return 0, 0
    state = find_endpoint(context.aws, spec.name)
    if state is None:
        return spec.capacity.count, 0
    if state.config == endpoint_template(spec).parameters["EndpointConfigName"]:
        return 0, 0
    count = max(state.desired if spec.scaling else spec.capacity.count, 1)
    return count, math.ceil(count * BATCH_PERCENT / 100) if count > 1 else 0


def estimate(context: Context, spec: EndpointSpec) -> MemoryEstimate | None:
    """Whether the model fits in the endpoint's memory; None if there is no bundle."""
    served = served_model(context.bundle)
    if served is None:
        return None
    if isinstance(spec.capacity, Instances):
        has_gpu = Instance(spec.capacity.type).accelerator == "gpu"
        size = (has_gpu and served.gpu_bytes) or served.bytes
        need = MemoryNeed(size, spec.model.server, served.learner)
        return on_instance(spec.capacity.type, need, known_types())
    need = MemoryNeed(served.bytes, spec.model.server, served.learner)
    return on_serverless(spec.capacity.memory, need)


def needs(context: Context, *, unknown: str | None = None) -> Needs:
    """The permissions this stage needs; see ``default_bucket`` for ``unknown``. Raises AwsError."""
    project = context.settings.sections.project
    roles = wanted_roles(context.settings)
    is_async = context.settings.sections.endpoint.kind == "async"  # which has no Lambda
    given = roles.execution and (roles.function or is_async) and project.ttl is None
    return Needs(
        project=context.owner.project,
        bucket=project.bucket or default_bucket(context.aws, unknown=unknown),
        partition=context.aws.partition,
        kms_key=project.kms_key,
        bucket_key=context.definitions.bucket_key,
        signs_requests=context.settings.sections.api.auth == "iam",
        roles=roles,
        makes_roles=not given,
        own_image=could_be_own(context.settings, context.bundle),
    )


def _unused(context: Context, spec: EndpointSpec) -> Iterator[str]:
    """The services, as in IAM actions, that these settings do not use."""
    if context.settings.sections.project.ttl is None:
        yield "scheduler"
    if spec.scaling is None:
        yield "application-autoscaling"
    if spec.kind == "async":  # which has no API
        yield from ("apigateway", "lambda")


def cost(
    context: Context, spec: EndpointSpec, templates: Sequence[Template], instances: int = 0
) -> Cost:
    """What the stage costs, as far as AWS's price list says; ``instances`` run now."""
    price = Price(None)
    if isinstance(spec.capacity, Instances):
        products = stage_status.price_list(context.aws)
        price = instance_price(products, spec.capacity.type, context.aws.region)
    return stage_cost(spec, price, templates, instances)


def check(context: Context, spec: EndpointSpec, template: Template) -> None:
    """Run the checks and report the price. Raises AwsQuota or AwsMissing if a deploy must fail."""
    for warned in Doctor(context.aws).require(subject(context, spec)):
        context.report(Warned(f"{warned.name}: {warned.message}", hint=warned.hint))
    found = cost(context, spec, [template])
    context.report(Step(f"price: {found}"))

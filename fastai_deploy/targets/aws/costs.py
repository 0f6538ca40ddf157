"""Where a stage's model would fit on AWS, and its list prices; opens AWS only to refresh them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastai_deploy.aws.capacity import (
    DEFAULT_INSTANCE,
    SERVERLESS,
    Instance,
    MemoryNeed,
    function_memory,
    instance_memory,
    known_types,
    on_serverless,
)
from fastai_deploy.aws.costs import Fits
from fastai_deploy.aws.function_speed import speed_table
from fastai_deploy.aws.images import OWN, Family, choose_image, installed_tables
from fastai_deploy.aws.list_prices import PriceBook, refresh
from fastai_deploy.aws.pricing import pricing_region
from fastai_deploy.aws.session import Aws
from fastai_deploy.errors import SettingsError, TargetUnavailable
from fastai_deploy.packaging.served_model import MAX_FUNCTION_MODEL, ServedModel, served_model
from fastai_deploy.settings import Settings

_SMALLEST = ServedModel(bytes=0, gpu_bytes=None, python=None)


def where_it_fits(settings: Settings, bundle: Path, region: str) -> tuple[Fits, bool]:
    """The places that a bundle's model fits, and whether there is a bundle to tell."""
    found = served_model(bundle)
    served = found or _SMALLEST
    endpoint = settings.sections.endpoint
    chosen = endpoint.instance or DEFAULT_INSTANCE if settings.target == "aws" else ""
    if endpoint.kind in ("serverless", "lambda"):
        chosen = endpoint.kind
    server: Family = OWN if _own(settings, served) else "torchserve"
    need = MemoryNeed(served.bytes, server, served.learner)
    asked = endpoint.serverless.memory if endpoint.kind == "serverless" else SERVERLESS[0]
    memory = next(
        (mb for mb in SERVERLESS if mb >= asked and not on_serverless(mb, need).tight), None
    )
    function = None
    if not served.learner and served.function_bytes <= MAX_FUNCTION_MODEL:
        function = endpoint.function.memory or function_memory(served.function_bytes)
    speed = speed_table().speed(served, function, PriceBook(region)) if function else None
    taken = speed.warm_ms if speed else None
    types = tuple(_types(settings, served, region))
    return Fits(types, memory, chosen, function, taken), found is not None


def _own(settings: Settings, served: ServedModel) -> bool:
    """Whether fdeploy's own server would serve the model on a processor."""
    endpoint = settings.sections.endpoint
    return not endpoint.image and not served.learner and endpoint.server in ("auto", OWN)


def _types(settings: Settings, served: ServedModel, region: str) -> Iterator[tuple[str, int]]:
    """The instance types that have an image for the model and memory enough, with their memory."""
    tables, endpoint = installed_tables(), settings.sections.endpoint
    for kind in known_types():
        instance, memory = Instance(kind), instance_memory(kind)
        if memory is None or instance.accelerator not in ("none", "gpu") or instance.old_gpu:
            continue
        if instance.accelerator == "gpu" and served.gpu_bytes is None and served is not _SMALLEST:
            continue  # the bundle has no graph for a GPU, which would be paid for nothing
        if instance.accelerator == "none" and _own(settings, served):
            if memory >= MemoryNeed(served.bytes, OWN).needed:
                yield kind, memory
            continue
        try:
            image = choose_image(
                tables,
                instance,
                region=region,
                server=endpoint.server,
                override=endpoint.image,
                python=served.python,
            )
        except (SettingsError, TargetUnavailable):
            continue
        on_gpu = served.gpu_bytes if image.accelerator == "gpu" else None
        if memory >= MemoryNeed(on_gpu or served.bytes, image.family, served.learner).needed:
            yield kind, memory


def refreshed(aws: Aws, folder: Path) -> PriceBook:
    """Ask AWS's price list for every price of a region and keep them. Raises AwsError."""
    near = aws.elsewhere(pricing_region(aws.region))

    def products(service: str, wanted: Mapping[str, str]) -> Iterable[Mapping[str, Any]]:
        return near.pages(
            "pricing",
            "get_products",
            ServiceCode=service,
            FormatVersion="aws_v1",
            Filters=[
                {"Type": "TERM_MATCH", "Field": field, "Value": value}
                for field, value in wanted.items()
            ],
        )

    return refresh(aws.region, folder, products, aws.now())

"""Which container image serves the artifact: one table of rules, the first that fits wins.

    p2          TorchServe 1.12.1   the last image for its GPU (Kepler)
    p3          TorchServe 2.6.0    the Ray Serve image moves on to a torch without its GPU (Volta)
    Graviton    TorchServe 2.6.0    there is no Ray Serve image for ARM
    any other   Ray Serve           still gets patches
    any other   TorchServe 2.6.0    where a region has nothing else, or the settings ask for it

Sources: the tables of sagemaker-core for versions, registries and regions; the data and pages of
aws/deep-learning-containers for Python, system, end of patches and the AMI; the pytorch issue
172352 for Volta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastai_deploy.aws.image_tables import ImageTables, Release
from fastai_deploy.aws.instances import LIVING_GPUS, Instance
from fastai_deploy.errors import SettingsError

Family = Literal["ray-serve", "torchserve"]

# Drivers of the host. The default one is too old for the CUDA 12.9 of the Ray Serve image.
_GPU_AMI = "al2-ami-sagemaker-inference-gpu-3-1"  # driver 550
_BLACKWELL_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"  # driver 580; Blackwell needs 570
_ENDED = "AWS ended the patches of the TorchServe images on 2026-06-30"


@dataclass(frozen=True)
class Image:
    """A container image and what the artifact must fit.

    ``python`` is such as ``3.13``, None where it is not known; ``platform`` is the newest manylinux
    tag whose wheels run in it; ``inference_ami`` is what the production variant must name.
    """

    uri: str
    family: Family
    python: str | None
    platform: str
    accelerator: Literal["cpu", "gpu"]
    inference_ami: str | None
    reason: str
    warnings: tuple[str, ...] = ()

    @property
    def registry(self) -> str:
        """The account that owns the repository."""
        return self.uri.partition(".")[0]

    @property
    def repository(self) -> str:
        """The repository's name."""
        return self.uri.partition("/")[2].partition("@")[0].partition(":")[0]


@dataclass(frozen=True)
class Rule:
    """An image and the instances that it is for; ``table`` says where its release stands."""

    family: Family
    table: tuple[str, str | None, str]
    fits: Callable[[Instance], bool]
    python: str
    glibc: str
    reason: str
    warning: str = ""


def _is_common(instance: Instance) -> bool:
    """An x86 processor, with or without a GPU that today's software supports."""
    return not instance.arm and not instance.old_gpu and instance.accelerator in ("none", "gpu")


RULES = (
    Rule(
        "torchserve",
        ("pytorch", "inference", "1.12.1"),
        lambda instance: instance.family == "p2",
        "3.8",
        "2_31",
        "the last image that supports the GPU of P2",
        "AWS has deprecated P2, and this image gets no patches any more; a GPU of today has "
        f"{LIVING_GPUS}",
    ),
    Rule(
        "torchserve",
        ("pytorch", "inference", "2.6.0"),
        lambda instance: instance.family == "p3",
        "3.12",
        "2_35",
        "the last image that is sure to support the GPU of P3",
        f"{_ENDED}; {LIVING_GPUS} gets an image that is patched",
    ),
    Rule(
        "torchserve",
        ("pytorch", "inference_graviton", "2.6.0"),
        lambda instance: instance.arm and instance.accelerator == "none",
        "3.12",
        "2_35",
        "the newest image for Graviton",
        f"{_ENDED}; an x86 instance such as ml.m5.large gets an image that is patched",
    ),
    Rule(
        "ray-serve",
        ("ray-serve", None, "latest"),
        _is_common,
        "3.13",
        "2_34",
        "the image family that still gets patches",
    ),
    Rule(
        "torchserve",
        ("pytorch", "inference", "2.6.0"),
        # Its CUDA 12.4 is older than Blackwell.
        lambda instance: _is_common(instance) and not instance.blackwell,
        "3.12",
        "2_35",
        "the newest TorchServe image",
        _ENDED,
    ),
)


def choose_image(
    tables: ImageTables,
    instance: Instance,
    *,
    region: str,
    server: Literal["auto", "ray-serve", "torchserve"] = "auto",
    override: str | None = None,
) -> Image:
    """The image for an instance in a region; ``override`` is the user's own choice.

    Raises SettingsError when no image fits, TargetUnavailable when the tables lack a release.
    """
    if override:
        return _overridden(override, instance, server)
    fitting = [rule for rule in RULES if rule.fits(instance) and server in ("auto", rule.family)]
    if not fitting:
        raise SettingsError(_no_image(instance, server), hint=_way_out(instance, server))
    lacking = ""
    for rule in fitting:
        release = tables.release(*rule.table)
        if region in release.registries:
            return _image(rule, release, instance, region, lacking)
        lacking = f" (the {rule.family} image is not in {region})"
    regions = ", ".join(sorted(release.registries))
    raise SettingsError(
        f"AWS has no {fitting[0].family} image for {instance.type} in {region}",
        hint=f"choose a region that has it: {regions}",
    )


def _image(rule: Rule, release: Release, instance: Instance, region: str, lacking: str) -> Image:
    accelerator = _accelerator(instance)
    machine = "aarch64" if instance.arm else "x86_64"
    return Image(
        uri=release.uri(region, accelerator),
        family=rule.family,
        python=rule.python,
        platform=f"manylinux_{rule.glibc}_{machine}",
        accelerator=accelerator,
        inference_ami=_ami(rule.family, instance),
        reason=f"{rule.reason}{lacking}",
        warnings=(rule.warning,) if rule.warning else (),
    )


def _overridden(uri: str, instance: Instance, server: str) -> Image:
    """The user's image; its family and Python are read from its name where they are in it."""
    name = uri.rpartition("/")[2]
    ray = server == "ray-serve" or (server == "auto" and name.startswith("ray"))
    family: Family = "ray-serve" if ray else "torchserve"
    python = next(
        (f"3.{part[3:]}" for part in name.replace(":", "-").split("-") if part[:3] == "py3"), None
    )
    return Image(
        uri=uri,
        family=family,
        python=python,
        platform=f"manylinux_2_28_{'aarch64' if instance.arm else 'x86_64'}",
        accelerator=_accelerator(instance),
        inference_ami=_ami(family, instance),
        reason="the settings name it (endpoint.image)",
    )


def _accelerator(instance: Instance) -> Literal["cpu", "gpu"]:
    return "gpu" if instance.accelerator == "gpu" else "cpu"


def _ami(family: Family, instance: Instance) -> str | None:
    if instance.accelerator != "gpu" or family != "ray-serve":
        return None
    return _BLACKWELL_AMI if instance.blackwell else _GPU_AMI


def _no_image(instance: Instance, server: str) -> str:
    if instance.accelerator in ("neuron", "gaudi"):
        return (
            f"{instance.type} computes with a chip that ONNX Runtime and this artifact cannot use"
        )
    if server == "auto":
        return f"AWS has no PyTorch serving image for {instance.type}"
    return f"AWS has no {server} image for {instance.type}"


def _way_out(instance: Instance, server: str) -> str:
    if server != "auto" and any(rule.fits(instance) for rule in RULES):
        return "set server to auto in [endpoint]"
    return f"choose a processor such as ml.m5.large or ml.c6i.large, or a GPU: {LIVING_GPUS}"

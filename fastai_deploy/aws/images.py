"""Selects the container image for an artifact: a table of rules, of which the first match wins.

Image versions come from the tables shipped with sagemaker-core, read without importing it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastai_deploy.aws.capacity import LIVING_GPUS, Instance
from fastai_deploy.errors import SettingsError, TargetUnavailable
from fastai_deploy.image.build import container_of

# Service domains by region prefix; all others use amazonaws.com.
# Source: botocore's partitions.json, against which a test checks this.
_DOMAINS = (
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
)


@dataclass(frozen=True)
class Release:
    """A release in an image table; ``registries`` maps regions to registry accounts."""

    version: str
    repository: str
    registries: Mapping[str, str]
    python: str | None
    tags: Mapping[str, str]

    def uri(self, region: str, accelerator: str) -> str:
        """The image for ``cpu`` or ``gpu``. Raises KeyError for a region without it."""
        registry = self.registries[region]
        return (
            f"{registry}.dkr.ecr.{region}.{domain(region)}/"
            f"{self.repository}:{self.tags[accelerator]}"
        )


class ImageTables:
    """The image tables in a folder, such as ``pytorch.json``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def release(self, framework: str, scope: str | None, version: str) -> Release:
        """Look up a release of ``pytorch`` (with a scope) or ``ray-serve`` (without).

        Raises TargetUnavailable if this version of the table has no such release.
        """
        path = self._folder / f"{framework}.json"
        try:
            table = json.loads(path.read_bytes())
            part = table[scope] if scope else table
            aliases = part.get("version_aliases", {})
            version = aliases.get(version, version) if isinstance(aliases, dict) else version
            return _release(version, part["versions"][version])
        except (OSError, KeyError, ValueError) as error:
            raise TargetUnavailable(
                f"the installed sagemaker-core lists no {framework} {version} image ({error})",
                hint="run pip install --upgrade sagemaker-core, or set image in [endpoint]",
            ) from None


def installed_tables() -> ImageTables:
    """The tables of the installed sagemaker-core. Raises TargetUnavailable if there is none."""
    spec = importlib.util.find_spec("sagemaker")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location, "core", "image_uri_config")
        if folder.is_dir():
            return ImageTables(folder)
    raise TargetUnavailable(
        "the package sagemaker-core, which lists AWS's container images, is not installed",
        hint="pip install sagemaker-core",
    )


def domain(region: str) -> str:
    """The domain of a region's services: ``amazonaws.com``, in China ``amazonaws.com.cn``."""
    return next((name for prefix, name in _DOMAINS if region.startswith(prefix)), "amazonaws.com")


def _release(version: str, entry: Mapping[str, Any]) -> Release:
    """Parse a table entry; tags are composed as the SDK does it."""
    python = (entry.get("py_versions") or [None])[-1]
    suffixes = entry.get("container_version", {})
    if "tag_prefix" in entry:  # ray: serve-ml-sagemaker-cpu-v1
        tags = {kind: f"{entry['tag_prefix']}-{suffix}" for kind, suffix in suffixes.items()}
    elif suffixes:  # pytorch-inference-arm64: 2.6.0-cpu-py312-ubuntu22.04-sagemaker
        tags = {
            kind: f"{version}-{kind}-{python}-{suffix}-sagemaker"
            for kind, suffix in suffixes.items()
        }
    else:  # pytorch-inference: 2.6.0-cpu-py312
        tags = {kind: f"{version}-{kind}-{python}" for kind in ("cpu", "gpu")}
    return Release(version, entry["repository"], entry["registries"], python, tags)


Family = Literal["fdeploy", "ray-serve", "torchserve"]
OWN: Family = "fdeploy"
"""fdeploy's own server, in an image that fdeploy makes."""

# Host AMIs, by GPU driver. The default driver is too old for the CUDA 12.9 of the Ray Serve image.
_GPU_AMI = "al2-ami-sagemaker-inference-gpu-3-1"  # driver 550
_BLACKWELL_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"  # driver 580; Blackwell needs 570
_ENDED = "AWS ended the patches of the TorchServe images on 2026-06-30"


@dataclass(frozen=True)
class Image:
    """A container image and what an artifact must match.

    ``python`` is such as ``3.13``, None if unknown; ``platform`` is the newest manylinux tag whose
    wheels run in it; ``inference_ami`` is the AMI that the production variant must set; ``tagged``
    is the URI with its tag, if ``uri`` has the digest.
    """

    uri: str
    family: Family
    python: str | None
    platform: str
    accelerator: Literal["cpu", "gpu"]
    inference_ami: str | None
    reason: str
    warnings: tuple[str, ...] = ()
    tagged: str = ""

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
    """An image and the instances it is for; ``table`` locates its release."""

    family: Family
    table: tuple[str, str | None, str]
    fits: Callable[[Instance], bool]
    python: str
    glibc: str
    reason: str
    warning: str = ""


def _is_common(instance: Instance) -> bool:
    """Whether it has an x86 processor, with no GPU or one that current software supports."""
    return not instance.arm and not instance.old_gpu and instance.accelerator in ("none", "gpu")


RULES = (
    Rule(
        "torchserve",
        ("pytorch", "inference", "1.12.1"),
        lambda instance: instance.family == "p2",
        "3.8",
        "2_31",
        "the last image that supports the GPU of P2",
        "AWS has deprecated P2, and this image no longer gets patches; for a current GPU, use "
        f"{LIVING_GPUS}",
    ),
    Rule(
        "torchserve",
        ("pytorch", "inference", "2.6.0"),
        lambda instance: instance.family == "p3",
        "3.12",
        "2_35",
        "the last image known to support the GPU of P3",
        f"{_ENDED}; {LIVING_GPUS} gets an image that is still patched",
    ),
    Rule(
        "torchserve",
        ("pytorch", "inference_graviton", "2.6.0"),
        lambda instance: instance.arm and instance.accelerator == "none",
        "3.12",
        "2_35",
        "the newest image for Graviton",
        f"{_ENDED}; an x86 instance such as ml.m5.large gets an image that is still patched",
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


@dataclass(frozen=True)
class _Old:
    """An older release of TorchServe: the last one for a Python."""

    python: str
    version: str
    glibc: str


_OLD_X86 = (
    _Old("3.11", "2.5.1", "2_35"),
    _Old("3.10", "2.2.0", "2_31"),
    _Old("3.9", "1.13.1", "2_31"),
    _Old("3.8", "1.12.1", "2_31"),
)
_OLD_ARM = (
    _Old("3.11", "2.4.0", "2_35"),
    _Old("3.10", "2.2.1", "2_31"),
    _Old("3.8", "1.12.1", "2_31"),
)


def _runs_old_x86(instance: Instance) -> bool:
    """P2's last release is 1.12.1, which has its own rule; Blackwell needs newer releases."""
    common = _is_common(instance) or instance.family == "p3"
    return common and not instance.blackwell


def _runs_old_arm(instance: Instance) -> bool:
    return instance.arm and instance.accelerator == "none"


# For learners that need an older Python.
OLD_RULES = tuple(
    Rule(
        "torchserve",
        ("pytorch", scope, old.version),
        fits,
        old.python,
        old.glibc,
        f"the newest image with Python {old.python}, which the learner needs",
        f"{_ENDED}; a learner for Python 3.13 gets an image that is still patched",
    )
    for scope, releases, fits in (
        ("inference", _OLD_X86, _runs_old_x86),
        ("inference_graviton", _OLD_ARM, _runs_old_arm),
    )
    for old in releases
)


def choose_image(
    tables: ImageTables,
    instance: Instance,
    *,
    region: str,
    server: Literal["auto", "fdeploy", "ray-serve", "torchserve"] = "auto",
    override: str | None = None,
    python: str | None = None,
) -> Image:
    """Select AWS's image for an instance in a region; ``override`` is the user's own image.

    ``python`` is the version, such as ``3.11``, that a learner served from its original pickle
    needs. Raises SettingsError if no image fits, TargetUnavailable if the tables lack a release.
    """
    if override:
        if server == OWN:
            return own_image(override, instance, "set as endpoint.image")
        return _overridden(override, instance, server, python)
    rules = RULES if python is None else (*RULES, *OLD_RULES)
    able = [rule for rule in rules if rule.fits(instance) and server in ("auto", rule.family)]
    if not able:
        raise SettingsError(_no_image(instance, server), hint=_way_out(instance, server))
    fitting = [rule for rule in able if python in (None, rule.python)]
    if not fitting:
        raise _no_python(python or "", instance, able, server)
    lacking = ""
    for rule in fitting:
        release = tables.release(*rule.table)
        if region in release.registries:
            return _image(rule, release, instance, region, lacking)
        lacking = f" (the {rule.family} image is not in {region})"
    regions = ", ".join(sorted(release.registries))
    raise SettingsError(
        f"AWS has no {fitting[0].family} image for {instance.type} in {region}",
        hint=f"choose one of its regions: {regions}",
    )


def own_image(uri: str, instance: Instance, reason: str) -> Image:
    """An image of fdeploy's own server; it has no GPU libraries, and runs converted models."""
    fits = container_of("aarch64" if instance.arm else "x86_64")
    return Image(uri, OWN, fits.python, fits.platform, "cpu", None, reason)


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


def _overridden(uri: str, instance: Instance, server: str, needed: str | None) -> Image:
    """The user's image, with family and Python read from its name as far as it states them.

    Raises SettingsError if its Python is not the one that is needed.
    """
    name = uri.rpartition("/")[2]
    ray = server == "ray-serve" or (server == "auto" and name.startswith("ray"))
    family: Family = "ray-serve" if ray else "torchserve"
    python = next(
        (f"3.{part[3:]}" for part in name.replace(":", "-").split("-") if part[:3] == "py3"), None
    )
    if needed and python not in (None, needed):
        raise SettingsError(
            f"the learner needs Python {needed}, but the image {uri} has {python}",
            hint="choose an image with that Python, or remove image from [endpoint]",
        )
    return Image(
        uri=uri,
        family=family,
        python=python or needed,
        platform=f"manylinux_2_28_{'aarch64' if instance.arm else 'x86_64'}",
        accelerator=_accelerator(instance),
        inference_ami=_ami(family, instance),
        reason="set as endpoint.image",
    )


def _accelerator(instance: Instance) -> Literal["cpu", "gpu"]:
    return "gpu" if instance.accelerator == "gpu" else "cpu"


def _ami(family: Family, instance: Instance) -> str | None:
    if instance.accelerator != "gpu" or family != "ray-serve":
        return None
    return _BLACKWELL_AMI if instance.blackwell else _GPU_AMI


def _no_python(python: str, instance: Instance, able: list[Rule], server: str) -> SettingsError:
    pythons = sorted({rule.python for rule in able}, key=lambda name: int(name[2:]))
    hint = (
        "choose another --instance, such as ml.m5.large (3.8 to 3.13), set your own image in "
        "[endpoint], or export the learner again with another --python"
    )
    if server != "auto":
        hint = f"set server to auto in [endpoint], {hint}"
    return SettingsError(
        f"the learner needs Python {python}, but AWS's images for {instance.type} have "
        f"{', '.join(pythons)}",
        hint=hint,
    )


def _no_image(instance: Instance, server: str) -> str:
    if instance.accelerator in ("neuron", "gaudi"):
        return f"{instance.type} has an accelerator that ONNX Runtime and this artifact cannot use"
    if server == "auto":
        return f"AWS has no PyTorch serving image for {instance.type}"
    return f"AWS has no {server} image for {instance.type}"


def _way_out(instance: Instance, server: str) -> str:
    if server != "auto" and any(rule.fits(instance) for rule in RULES):
        return "set server to auto in [endpoint]"
    return f"choose a CPU such as ml.m5.large or ml.c6i.large, or a GPU: {LIVING_GPUS}"

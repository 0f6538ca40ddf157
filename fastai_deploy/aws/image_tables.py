"""The tables of container images that AWS's own SDK core ships, read without importing it.

Importing ``sagemaker.core`` takes two seconds; its JSON files are read in milliseconds.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastai_deploy.errors import TargetUnavailable

# The domain of a region's services, by the region's prefix; all others are amazonaws.com.
# Source: partitions.json of botocore, with which a test compares it.
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
    """One release of a family of images, as the table has it.

    ``registries`` are the accounts that hold it, by region.
    """

    version: str
    repository: str
    registries: Mapping[str, str]
    python: str | None
    tags: Mapping[str, str]

    def uri(self, region: str, accelerator: str) -> str:
        """The image for ``cpu`` or ``gpu``. Raises KeyError for a region that lacks it."""
        registry = self.registries[region]
        return (
            f"{registry}.dkr.ecr.{region}.{domain(region)}/"
            f"{self.repository}:{self.tags[accelerator]}"
        )


class ImageTables:
    """The tables in a folder, such as ``pytorch.json``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def release(self, framework: str, scope: str | None, version: str) -> Release:
        """A release of ``pytorch`` (with a scope) or ``ray-serve`` (without).

        Raises TargetUnavailable where this version of the table has no such release.
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
                f"sagemaker-core knows no {framework} {version} image ({error})",
                hint="pip install --upgrade sagemaker-core, or name an image in [endpoint]",
            ) from None


def installed_tables() -> ImageTables:
    """The tables of the installed sagemaker-core. Raises TargetUnavailable without it."""
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
    """An entry of a table; its tags are put together as the SDK does it."""
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

"""What a shell completes after an option: stages, instance types, versions, learners, settings.

Each function gets the word so far. A shell asks at every TAB, so nothing here raises or asks AWS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

Choice = tuple[str, str]  # a word, and what it is


def stages(typed: str) -> Iterator[str]:
    """The stages that the project file declares, and ``dev``."""
    import tomli  # noqa: PLC0415 - only a shell needs it

    names = {"dev"}
    with suppress(OSError, ValueError):
        names |= set(tomli.loads(Path("fdeploy.toml").read_text("utf-8")).get("stages", {}))
    yield from (name for name in sorted(names) if name.startswith(typed))


def instances(typed: str) -> Iterator[Choice]:
    """SageMaker's instance types for endpoints, with their list price where it is known."""
    from fastai_deploy.aws import list_prices  # noqa: PLC0415
    from fastai_deploy.aws.capacity import known_types  # noqa: PLC0415 - reads a large file

    with suppress(Exception):
        prices = list_prices.price_book(_region(), list_prices.default_folder())
        for name in sorted(known_types()):
            if name.startswith(typed):
                price = prices.hour.get(name)
                yield name, "" if price is None else f"{price} USD/h in {prices.region}"


def _region() -> str:
    """The region of the project file, or the one whose prices are shown without any."""
    import tomli  # noqa: PLC0415 - only a shell needs it

    from fastai_deploy.aws.list_prices import DEFAULT_REGION  # noqa: PLC0415

    with suppress(OSError, ValueError, AttributeError):
        project = tomli.loads(Path("fdeploy.toml").read_text("utf-8")).get("project", {})
        return str(project.get("region") or DEFAULT_REGION)
    return DEFAULT_REGION


def learners(typed: str) -> Iterator[str]:
    """Files with learners, bundles, and folders on the way to them."""
    folder = Path(os.path.dirname(typed) or ".")  # noqa: PTH120 - "a/" is in "a"
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            shown = os.path.join(os.path.dirname(typed), path.name)  # noqa: PTH118, PTH120
            if not shown.startswith(typed) or path.name.startswith("."):
                continue
            if path.is_dir():
                yield f"{shown}/"
            elif path.suffix == ".pkl":
                yield shown


def versions(typed: str) -> Iterator[Choice]:
    """The versions that this machine knows of the stage ``dev``: the packed and the live one."""
    from fastai_deploy.records import Artifact, Endpoint  # noqa: PLC0415
    from fastai_deploy.workspace import Workspace  # noqa: PLC0415

    with suppress(Exception):
        workspace = Workspace(Path.cwd(), os.environ.get("FDEPLOY_STAGE", "dev"))
        for kind, what in ((Endpoint, "live"), (Artifact, "packed")):
            record = workspace.find(kind)
            if isinstance(record, Endpoint | Artifact) and record.version.startswith(typed):
                yield record.version, what


def settings(typed: str) -> Iterator[str]:
    """The names of all settings, such as ``api.rate``."""
    from fastai_deploy.settings.loading import setting_names  # noqa: PLC0415 - pydantic

    yield from (name for name in setting_names() if name.startswith(typed))


def codes(typed: str) -> Iterator[Choice]:
    """The codes of all errors."""
    from fastai_deploy.cli.explain import error_kinds, meaning  # noqa: PLC0415

    for code, kind in error_kinds().items():
        if code.startswith(typed):
            yield code, meaning(kind)

"""Reports on a stage (plan, status, logs, versions, doctor, templates), and rollback.

Only ``rollback`` changes what is deployed. The flow itself is in :mod:`fastai_deploy.stages`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastai_deploy import export_source, freshness, stages
from fastai_deploy.errors import AwsError, FileError, SettingsError, UsageError
from fastai_deploy.load.result import last_bench
from fastai_deploy.progress import StageFinished, StageStarted, Warned
from fastai_deploy.project import Project, open_project
from fastai_deploy.records import Api, Artifact, Bundle, Endpoint
from fastai_deploy.settings import load_settings
from fastai_deploy.stage_reports import (
    Checkup,
    LogLine,
    Policies,
    StagePlan,
    Status,
    Templates,
    Version,
)
from fastai_deploy.workspace import Workspace, deployed_stages

if TYPE_CHECKING:
    from fastai_deploy.aws.costs import CostReport, StageBill, Usage
    from fastai_deploy.aws.list_prices import PriceBook

_TRY_FIRST = "deploy it to a stage of its own first (--stage), or tell your callers"


def plan(project: Project, *, pull: bool = False) -> StagePlan:
    """What ``up`` would change. Exports and packages first, which changes only the workspace.

    ``pull`` is that of ``package``. Warns if callers would notice. Raises the errors of ``export``
    and ``package``, and DeployError.
    """
    project.target.check_access()
    stages.warn_of_reverted(project)
    found = project.operations.plan(_would_deploy(project, pull=pull))
    change = found.model.breaks_callers if found.model else ""
    if change:
        project.report(Warned(f"{change}: callers may depend on the old answers", _TRY_FIRST))
    return found


def _would_deploy(project: Project, *, pull: bool) -> Artifact:
    """The artifact that ``up`` would make; a factory that has run is not run again."""
    made = project.workspace.find(Bundle)
    stated = project.settings.sections.model.learner is not None
    if made is None and not stated and project.workspace.find(Artifact):
        return freshness.artifact(project)  # another machine made it
    if made is None or stated or Path(made.source.path).exists():
        wanted = export_source.export_request(project)
        if made is None or wanted.kind != "factory":
            made = stages.export(project)
    return stages.package(project, freshness.bundle(project), pull=pull)


def page(project: Project) -> tuple[str, str]:
    """The address of the API's page, and the key to try it with; empty for an API without keys.

    Raises RecordMissing, UsageError if the API has no page, InvocationError if another program may
    be at its address, or AwsError.
    """
    api = project.workspace.need(Api)
    if not api.page:
        raise UsageError(
            "this API has no page; on AWS it is off by default, because anyone may open it",
            hint="fdeploy config set api.page true, then fdeploy create-api",
        )
    address = urlsplit(project.target.address(api))  # the port of this machine's API may change
    found = address._replace(path=urlsplit(api.page).path).geturl()
    return found, project.target.key(api) if api.auth == "key" else ""


def console(project: Project) -> str:
    """The URL of the stage in the AWS console. Raises UsageError for this machine."""
    return project.operations.console()


def status(project: Project) -> Status:
    """What is deployed, how it is doing and what it costs. Raises AwsError or NoProject."""
    found = project.operations.status()
    if not found.parts and not found.endpoint:
        stages.need_project(project, found.where)
    return found


def logs(
    project: Project, *, api: bool = False, since: timedelta, follow: bool = False
) -> Iterator[LogLine]:
    """The log lines of the last ``since``; ``follow`` never ends. Raises AwsError."""
    return project.operations.logs(api=api, since=since, follow=follow)


def versions(project: Project) -> tuple[Version, ...]:
    """The deployed versions, newest first. Raises AwsError."""
    return project.operations.versions()


def rollback(project: Project, *, to: str | None = None) -> Endpoint:
    """Deploy the version before the live one, or the one whose digits start with ``to``.

    Raises UsageError if there is none, and the errors of ``deploy``.
    """
    began = project.clock()
    project.report(StageStarted("rollback"))
    project = stages.claimed(project)
    record = replace(project.operations.rollback(to), **stages.kept_flags(project.settings))
    project.workspace.save(record)
    summary = f"version {record.version} is live again"
    project.report(StageFinished("rollback", summary, project.clock() - began))
    return record


def doctor(project: Project) -> Checkup:
    """Check that a deploy would work, packaged or not. Raises SettingsError."""
    return project.operations.doctor(project.workspace.find(Artifact))


def policies(project: Project) -> Policies:
    """The IAM permissions that a deploy needs. Raises UsageError for the local target."""
    return project.operations.policies()


def template(project: Project) -> Templates:
    """The stacks of the packaged artifact. Raises StageError, or UsageError if target is local."""
    return project.operations.template(freshness.artifact(project))


@dataclass(frozen=True)
class CostQuestion:
    """What ``cost`` is asked.

    ``rate``, in texts per second, and the latency replace those of the last load test. ``every``:
    list every instance type with a price. ``refresh``: ask AWS for its list prices. ``offline``:
    ask AWS nothing.
    """

    rate: float | None = None
    latency_ms: float | None = None
    every: bool = False
    refresh: bool = False
    offline: bool = False


def cost(project: Project, asked: CostQuestion) -> CostReport:
    """What the model costs on the instances that it fits, and what the stages cost so far.

    Stages on AWS are asked, unless ``offline``; then AWS is not opened. Raises AwsError if prices
    are to be refreshed and cannot be.
    """
    from fastai_deploy.aws import list_prices  # noqa: PLC0415 - boto's data
    from fastai_deploy.aws.costs import compare  # noqa: PLC0415
    from fastai_deploy.targets.aws.costs import where_it_fits  # noqa: PLC0415

    settings = project.settings
    region = settings.sections.project.region or settings.last_region
    if asked.offline and asked.refresh:
        raise UsageError(
            "--refresh asks AWS, and --offline asks nothing", hint="leave one of them out"
        )
    notes = [] if region else [f"no region is set: prices of {list_prices.DEFAULT_REGION}"]
    region = region or list_prices.DEFAULT_REGION
    on_aws = () if asked.offline else tuple(_stages_on_aws(project))
    bills = tuple(_bill(project, stage) for stage in on_aws)
    prices = _prices(project, region, asked, deployed=bool(on_aws))
    fits, has_bundle = where_it_fits(settings, project.workspace.bundle, region)
    if not has_bundle:
        notes.append("nothing is exported yet: whether a model fits is not known")
    usage = _usage(project, asked)
    return compare(fits, prices, usage, every=asked.every, stages=bills, notes=notes)


def _usage(project: Project, asked: CostQuestion) -> Usage:
    """The rate and latency that were given, else those of the last load test."""
    from fastai_deploy.aws.costs import Usage  # noqa: PLC0415 - boto's data

    given = asked.latency_ms
    if asked.rate is not None:
        return Usage(asked.rate, 1_000 / asked.rate if given is None else given, "as given")
    last = last_bench(project.workspace.bench)
    if last is None:
        return Usage(latency_ms=given)
    latency = last.latency_ms if given is None else given
    source = f"measured on {last.where} ({last.on}) at {last.at}"
    on_instances = last.instance.startswith("ml.")
    return Usage(last.rate, latency, source, last.instance if on_instances else "")


def _prices(project: Project, region: str, asked: CostQuestion, *, deployed: bool) -> PriceBook:
    """The known prices; asked for again if that is wanted, or if AWS is asked anyway."""
    from fastai_deploy.aws import list_prices  # noqa: PLC0415 - boto's data
    from fastai_deploy.aws.session import open_aws  # noqa: PLC0415
    from fastai_deploy.targets.aws.costs import refreshed  # noqa: PLC0415

    folder = list_prices.default_folder()
    known = list_prices.price_book(region, folder)
    today = datetime.now(timezone.utc).date()
    if not asked.refresh and (not deployed or not known.is_old(today)):
        return known
    try:
        found = refreshed(open_aws(region, project.settings.sections.project.profile), folder)
    except (AwsError, FileError) as error:
        if asked.refresh:
            raise
        project.report(Warned(f"prices were not refreshed: {error.message}", error.hint))
        return known
    return found if found.known else known


def _stages_on_aws(project: Project) -> Iterator[str]:
    """The stages of this folder whose last deploy went to AWS, by their records."""
    root = project.settings.root
    for stage in deployed_stages(root):
        record = Workspace(root, stage).find(Endpoint)
        if record is not None and record.target == "aws":
            yield stage


def _bill(project: Project, stage: str) -> StageBill:
    """What a stage costs; unknown, with the reason, if AWS does not tell."""
    from fastai_deploy.aws.costs import StageBill  # noqa: PLC0415 - boto's data

    try:
        other = project
        if stage != project.settings.stage:
            settings = load_settings(
                folder=project.settings.root,
                config=project.settings.file,
                stage=stage,
                environ=os.environ,
            )
            other = open_project(settings, project.report)
        found = other.operations.status().bill
    except (AwsError, SettingsError, FileError) as error:
        return StageBill(stage, None, None, "USD", error.message)
    return StageBill(stage, found.per_hour, found.this_month, found.currency, found.note)

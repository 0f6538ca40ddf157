"""The commands beside the flow: each calls the function of ``care`` of the same name."""

# No "from __future__ import annotations": typer needs the options' annotations as objects.

from typing import TYPE_CHECKING

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command import command
from fastai_deploy.cli.commands import app

if TYPE_CHECKING:
    from fastai_deploy.cli.results import Lines, Versions
    from fastai_deploy.project import Project
    from fastai_deploy.records import Endpoint
    from fastai_deploy.reports import Checkup, Policies, StagePlan, Status, Templates


@command(app)
def plan(
    project: "Project",
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "StagePlan":
    """Show what deploy would change; exit code 2 when it would."""
    from fastai_deploy import care

    return care.plan(project)


@command(app, locked=False)
def status(project: "Project", region: opt.Region = None) -> "Status":
    """Show what there is, how it does and what it costs."""
    from fastai_deploy import care

    return care.status(project)


@command(app, locked=False)
def logs(
    project: "Project",
    api: opt.OfApi = False,  # noqa: FBT002 - a flag
    since: opt.Since = "1h",
    follow: opt.Follow = False,  # noqa: FBT002
    region: opt.Region = None,
) -> "Lines":
    """Show what the endpoint wrote, or the API."""
    from fastai_deploy import care
    from fastai_deploy.cli.results import Lines
    from fastai_deploy.durations import duration

    return Lines(care.logs(project, api=api, since=duration(since), follow=follow))


@command(app, locked=False)
def versions(project: "Project", region: opt.Region = None) -> "Versions":
    """List what was deployed, and which is live."""
    from fastai_deploy import care
    from fastai_deploy.cli.results import Versions

    return Versions(care.versions(project))


@command(app)
def rollback(
    project: "Project",
    to: opt.ToVersion = None,
    region: opt.Region = None,
) -> "Endpoint":
    """Serve the version before again."""
    from fastai_deploy import care

    return care.rollback(project, to=to)


@command(app, locked=False)
def doctor(
    project: "Project",
    policy: opt.Policy = False,  # noqa: FBT002 - a flag
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "Checkup | Policies":
    """Check whether a deploy would work."""
    from fastai_deploy import care

    return care.policies(project) if policy else care.doctor(project)


@command(app, locked=False)
def template(
    project: "Project",
    instance: opt.Instance = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "Templates":
    """Print the CloudFormation stacks as JSON."""
    from fastai_deploy import care

    return care.template(project)

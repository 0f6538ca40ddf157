"""The commands that look after what is deployed. Each calls the function of its name."""

# No "from __future__ import annotations": typer needs the options' annotations as objects.
from typing import TYPE_CHECKING

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command import command
from fastai_deploy.cli.command_help import OPERATE
from fastai_deploy.cli.commands.group import app

if TYPE_CHECKING:
    from fastai_deploy.aws.costs import CostReport
    from fastai_deploy.cli.results import Lines, Versions
    from fastai_deploy.project import Project
    from fastai_deploy.records import Endpoint
    from fastai_deploy.stage_reports import Checkup, Policies, StagePlan, Status, Templates


@command(
    app,
    OPERATE,
    settings={
        **opt.EXPORT,
        "instance": opt.Instance,
        "on_lambda": opt.Lambda,
        "region": opt.Region,
        "ttl": opt.Ttl,
    },
    examples=["fdeploy plan", "fdeploy plan --region eu-central-1"],
)
def plan(
    project: "Project",
    pull: opt.Pull = False,  # noqa: FBT002 - a flag
) -> "StagePlan":
    """Show what up would change (exit code 15 if anything)."""
    from fastai_deploy import operations

    return operations.plan(project, pull=pull)


@command(
    app,
    OPERATE,
    examples=["fdeploy cost", "fdeploy cost --rate 40 --region eu-central-1"],
    locked=False,
)
def cost(
    project: "Project",
    rate: opt.CostRate = None,
    latency: opt.Latency = None,
    every: opt.EveryInstance = False,  # noqa: FBT002 - a flag
    refresh: opt.Refresh = False,  # noqa: FBT002
    offline: opt.Offline = False,  # noqa: FBT002
    instance: opt.Instance = None,
    on_lambda: opt.Lambda = None,
    region: opt.Region = None,
) -> "CostReport":
    """Compare what instances and serverless cost, and show the stages' bills."""
    from fastai_deploy import operations

    asked = operations.CostQuestion(rate, latency, every=every, refresh=refresh, offline=offline)
    return operations.cost(project, asked)


@command(app, OPERATE, examples=["fdeploy status"], locked=False)
def status(project: "Project", region: opt.Region = None) -> "Status":
    """Show what is deployed, its health and its cost."""
    from fastai_deploy import operations

    return operations.status(project)


@command(
    app,
    OPERATE,
    examples=["fdeploy logs --since 15m", "fdeploy logs --api --follow"],
    locked=False,
)
def logs(
    project: "Project",
    api: opt.OfApi = False,  # noqa: FBT002 - a flag
    since: opt.Since = "1h",
    follow: opt.Follow = False,  # noqa: FBT002
    region: opt.Region = None,
) -> "Lines":
    """Show the logs of the endpoint or the API."""
    from fastai_deploy import operations
    from fastai_deploy.cli.results import Lines
    from fastai_deploy.settings.sections import duration

    return Lines(operations.logs(project, api=api, since=duration(since), follow=follow))


@command(app, OPERATE, examples=["fdeploy versions"], locked=False)
def versions(project: "Project", region: opt.Region = None) -> "Versions":
    """List the deployed versions and mark the live one."""
    from fastai_deploy import operations
    from fastai_deploy.cli.results import Versions

    return Versions(operations.versions(project))


@command(
    app,
    OPERATE,
    examples=["fdeploy rollback", "fdeploy rollback --to 3f2a91"],
    then="fdeploy status",
)
def rollback(
    project: "Project",
    to: opt.ToVersion = None,
    region: opt.Region = None,
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Endpoint":
    """Go back to the previous version."""
    from fastai_deploy import operations

    return operations.rollback(project, to=to)


@command(
    app,
    OPERATE,
    examples=["fdeploy doctor", "fdeploy doctor --policy > policy.json"],
    locked=False,
)
def doctor(
    project: "Project",
    policy: opt.Policy = False,  # noqa: FBT002 - a flag
    instance: opt.Instance = None,
    on_lambda: opt.Lambda = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "Checkup | Policies":
    """Check that a deploy would work."""
    from fastai_deploy import operations

    return operations.policies(project) if policy else operations.doctor(project)


@command(app, OPERATE, examples=["fdeploy template > stacks.yaml"], locked=False)
def template(
    project: "Project",
    instance: opt.Instance = None,
    on_lambda: opt.Lambda = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
) -> "Templates":
    """Print the CloudFormation templates, with their parameters."""
    from fastai_deploy import operations

    return operations.template(project)

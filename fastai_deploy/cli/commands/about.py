"""The commands about settings and errors. Each calls the function of its name."""

# No "from __future__ import annotations": typer needs the options' annotations as objects.
from typing import TYPE_CHECKING

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command import command
from fastai_deploy.cli.command_help import ABOUT
from fastai_deploy.cli.commands.group import app

if TYPE_CHECKING:
    from fastai_deploy.cli.explain import Explained
    from fastai_deploy.cli.results import ChangedSetting
    from fastai_deploy.project import Project
    from fastai_deploy.settings import Settings


@command(
    app,
    ABOUT,
    examples=["fdeploy config", "fdeploy config set api.rate 20", "fdeploy config unset api.rate"],
    locked=False,
)
def config(
    project: "Project",
    action: opt.ConfigAction = "show",
    key: opt.SettingKey = "",
    value: opt.SettingValue = None,
) -> "Settings | ChangedSetting":
    """Show every setting and its origin, or change one in fdeploy.toml."""
    from fastai_deploy.cli.results import ChangedSetting

    return project.settings if action == "show" else ChangedSetting.of(project, key, value, action)


@command(
    app,
    ABOUT,
    examples=["fdeploy explain record-stale", "fdeploy explain 14"],
    locked=False,
)
def explain(project: "Project", code: opt.ErrorCode) -> "Explained":
    """Explain an error's code, or an exit code."""
    from fastai_deploy.cli.explain import explain

    return explain(code)

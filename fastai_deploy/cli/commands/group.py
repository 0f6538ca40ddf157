"""The group of all commands, and the options of fdeploy itself."""

import typer

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command_help import Commands

app = typer.Typer(
    name="fdeploy",
    cls=Commands,
    help="Deploy a fastai text classifier as a verified, key-protected HTTPS API; tear it down "
    "again with one command.",
    epilog="The first time: init, then up. fdeploy COMMAND --help shows examples.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def version(version: opt.Version = False) -> None:  # noqa: FBT002 - the option itself answers
    """Options of fdeploy itself."""

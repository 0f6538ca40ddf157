"""The commands, by the part of ``fdeploy --help`` that lists them.

Each is an adapter: it names the options, and calls one function of the package.
"""

from fastai_deploy.cli.commands import about, flow, operate, use  # noqa: F401 - register commands
from fastai_deploy.cli.commands.group import app

__all__ = ["app"]

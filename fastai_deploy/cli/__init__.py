"""The command ``fdeploy``."""

from fastai_deploy.cli.app import main

__all__ = ["main"]

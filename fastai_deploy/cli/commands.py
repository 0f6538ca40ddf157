"""The commands: each calls the stage of the same name and returns what is shown."""

# No "from __future__ import annotations": typer needs the options' annotations as objects.

import sys
from typing import TYPE_CHECKING

import typer

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command import command

if TYPE_CHECKING:
    from fastai_deploy.cli.results import Answered, Inspected
    from fastai_deploy.project import Project
    from fastai_deploy.records import (
        Api,
        Artifact,
        Bundle,
        Endpoint,
        StoredArtifact,
        Teardown,
    )
    from fastai_deploy.settings import Settings

app = typer.Typer(
    name="fdeploy",
    help="From a fastai text learner to a verified, key-protected HTTPS API, and back to nothing.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command(app, locked=False)
def inspect(project: "Project", learner: opt.Learner = None) -> "Inspected":
    """Tell what is in a learner, without running it."""
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Inspected

    return Inspected(stages.inspect(project))


@command(app)
def export(
    project: "Project",
    learner: opt.Learner = None,
    golden: opt.Golden = None,
    tolerance: opt.Tolerance = None,
    quantize: opt.Quantize = None,
) -> "Bundle":
    """Read a learner, never run it, make a checked bundle."""
    from fastai_deploy import stages

    return stages.export(project)


@command(app)
def package(
    project: "Project",
    instance: opt.Instance = None,
    region: opt.Region = None,
) -> "Artifact":
    """Pack the bundle into model.tar.gz."""
    from fastai_deploy import freshness, stages

    return stages.package(project, freshness.bundle(project))


@command(app)
def upload(project: "Project") -> "StoredArtifact":
    """Store model.tar.gz for the target."""
    from fastai_deploy import freshness, stages

    return stages.upload(project, freshness.artifact(project))


@command(app)
def deploy(
    project: "Project",
    instance: opt.Instance = None,
    region: opt.Region = None,
) -> "Endpoint":
    """Serve it, verified by the learner's own answers."""
    from fastai_deploy import freshness, stages

    return stages.deploy(project, freshness.stored(project))


@command(app, "create-api")
def create_api(
    project: "Project",
    port: opt.Port = None,
) -> "Api":
    """Put the key-protected API in front of it."""
    from fastai_deploy import freshness, stages

    return stages.create_api(project, freshness.endpoint(project))


@command(app)
def up(
    project: "Project",
    learner: opt.Learner = None,
    golden: opt.Golden = None,
    tolerance: opt.Tolerance = None,
    quantize: opt.Quantize = None,
    instance: opt.Instance = None,
    region: opt.Region = None,
    port: opt.Port = None,
) -> "Api":
    """The five stages above, in a row."""
    from fastai_deploy import stages

    return stages.up(project)


@command(app, locked=False)
def invoke(
    project: "Project",
    text: opt.Text,
    top_k: opt.TopK = None,
    api: opt.ThroughApi = False,  # noqa: FBT002 - a flag
) -> "Answered":
    """Classify a text."""
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Answered
    from fastai_deploy.cli.texts import request_for

    request = request_for(text, top_k, sys.stdin.buffer)
    return Answered(stages.invoke(project, request, through_api=api))


@command(app)
def teardown(
    project: "Project",
    artifacts: opt.Artifacts = False,  # noqa: FBT002 - a flag
    yes: opt.Yes = False,  # noqa: FBT002
) -> "Teardown":
    """End and remove everything, and prove it."""
    from fastai_deploy import stages

    return stages.teardown(project, artifacts=artifacts, confirmed=yes)


@command(app, locked=False)
def config(project: "Project") -> "Settings":
    """Show the settings and where each came from."""
    return project.settings

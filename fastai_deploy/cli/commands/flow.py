"""The commands from a learner to an API and back. Each calls the function of its name."""

# No "from __future__ import annotations": typer needs the options' annotations as objects.
from typing import TYPE_CHECKING

from fastai_deploy.cli import options as opt
from fastai_deploy.cli.command import command
from fastai_deploy.cli.command_help import FLOW
from fastai_deploy.cli.commands.group import app

if TYPE_CHECKING:
    from fastai_deploy.cli.results import Exported, Inspected
    from fastai_deploy.evaluation.card import Card
    from fastai_deploy.image_file import ImageFile
    from fastai_deploy.project import Project
    from fastai_deploy.project_setup import Initialized
    from fastai_deploy.records import Api, Artifact, Endpoint, StoredArtifact, Teardown


@command(
    app,
    FLOW,
    examples=["fdeploy init", "fdeploy init learner.pkl --region eu-central-1 --yes"],
    locked=False,
    then="fdeploy up",
)
def init(
    project: "Project",
    learner: opt.Learner = None,
    region: opt.Region = None,
    instance: opt.Instance = None,
    ttl: opt.Ttl = None,
    yes: opt.YesToAll = False,  # noqa: FBT002
) -> "Initialized":
    """Write fdeploy.toml for the learner in this folder."""
    from pathlib import Path

    from fastai_deploy import project_setup

    return project_setup.init(project, Path.cwd())


@command(
    app,
    FLOW,
    examples=["fdeploy inspect learner.pkl", "fdeploy inspect --card > README.md"],
    locked=False,
    then=lambda found: (
        "fdeploy export"
        if hasattr(found, "summary") and not found.summary["verdict"]["reason"]
        else ""
    ),
)
def inspect(
    project: "Project",
    learner: opt.Learner = None,
    card: opt.ShowCard = False,  # noqa: FBT002 - a flag
) -> "Inspected | Card":
    """Show what is in a learner, without running it."""
    if card:
        from fastai_deploy import model_quality

        return model_quality.card(project)
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Inspected

    return Inspected(stages.inspect(project))


@command(
    app,
    FLOW,
    settings=opt.EXPORT,
    examples=[
        "fdeploy export learner.pkl",
        "fdeploy export learner.pkl --golden texts.jsonl",
        "fdeploy export learner.pkl --definitions model_def.py",
    ],
    then="fdeploy package",
)
def export(
    project: "Project",
) -> "Exported":
    """Convert a learner into a verified bundle, without running it."""
    from fastai_deploy import stages
    from fastai_deploy.cli.results import Exported

    return Exported.of(stages.export(project))


@command(app, FLOW, examples=["fdeploy package"], after="export", then="fdeploy upload")
def package(
    project: "Project",
    instance: opt.Instance = None,
    on_lambda: opt.Lambda = None,
    region: opt.Region = None,
    pull: opt.Pull = False,  # noqa: FBT002 - a flag
) -> "Artifact":
    """Pack the bundle into model.tar.gz."""
    from fastai_deploy import freshness, stages

    return stages.package(project, freshness.bundle(project), pull=pull)


@command(
    app,
    FLOW,
    examples=[
        "fdeploy image --output image.tar --with-model",
        "fdeploy image --output image.tar --machine aarch64 --sbom sbom.json",
    ],
)
def image(
    project: "Project",
    output: opt.ImageOutput,
    with_model: opt.WithModel = False,  # noqa: FBT002 - a flag
    machine: opt.Machine = None,
    sbom: opt.Sbom = None,
    pull: opt.Pull = False,  # noqa: FBT002 - a flag
    overwrite: opt.Replace = False,  # noqa: FBT002 - a flag
) -> "ImageFile":
    """Write a container image of the model server, without Docker.

    For docker load, Cloud Run, ECS and Kubernetes. With --with-model it needs nothing else.
    """
    from fastai_deploy import image_file

    request = image_file.ImageRequest(
        output, with_model, machine, sbom, pull=pull, overwrite=overwrite
    )
    return image_file.write_image(project, request)


@command(
    app,
    FLOW,
    examples=["fdeploy upload", "fdeploy upload --region eu-central-1"],
    after="package",
    then="fdeploy deploy",
)
def upload(project: "Project", region: opt.Region = None) -> "StoredArtifact":
    """Upload model.tar.gz to where the target reads it."""
    from fastai_deploy import freshness, stages

    return stages.upload(project, freshness.artifact(project))


@command(
    app,
    FLOW,
    examples=["fdeploy deploy", "fdeploy deploy --instance ml.m5.large --ttl 4h"],
    after="upload",
    then="fdeploy create-api",
)
def deploy(
    project: "Project",
    instance: opt.Instance = None,
    on_lambda: opt.Lambda = None,
    region: opt.Region = None,
    ttl: opt.Ttl = None,
    pull: opt.Pull = False,  # noqa: FBT002 - a flag
    yes: opt.Yes = False,  # noqa: FBT002
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Endpoint":
    """Serve the model and verify it against the goldens."""
    from fastai_deploy import stages

    project = stages.claimed(project, creates=True)
    return stages.deploy(project, stages.ready_to_deploy(project, pull=pull))


@command(
    app,
    FLOW,
    "create-api",
    examples=["fdeploy create-api", "fdeploy create-api --port 8000"],
    after="deploy",
    then='fdeploy invoke "some text" --api',
)
def create_api(
    project: "Project",
    port: opt.Port = None,
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Api":
    """Create the key-protected API in front of the endpoint."""
    from fastai_deploy import freshness, stages

    project = stages.claimed(project)
    return stages.create_api(project, freshness.endpoint(project))


@command(
    app,
    FLOW,
    settings={
        **opt.EXPORT,
        "instance": opt.Instance,
        "on_lambda": opt.Lambda,
        "region": opt.Region,
        "ttl": opt.Ttl,
        "port": opt.Port,
    },
    examples=[
        "fdeploy up learner.pkl",
        "fdeploy up learner.pkl --region eu-central-1 --ttl 4h",
        "fdeploy up learner.pkl --region eu-central-1 --lambda",
        "fdeploy up --stage prod",
    ],
    then='fdeploy invoke "some text"',
)
def up(
    project: "Project",
    pull: opt.Pull = False,  # noqa: FBT002 - a flag
    yes: opt.Yes = False,  # noqa: FBT002
    adopt: opt.Adopt = False,  # noqa: FBT002
) -> "Api":
    """Run export, package, upload, deploy and create-api."""
    from fastai_deploy import stages

    return stages.up(project, pull=pull)


@command(
    app,
    FLOW,
    examples=["fdeploy teardown", "fdeploy teardown --stage prod --artifacts"],
)
def teardown(
    project: "Project",
    artifacts: opt.Artifacts = False,  # noqa: FBT002 - a flag
    yes: opt.Yes = False,  # noqa: FBT002
    adopt: opt.Adopt = False,  # noqa: FBT002
    even_if_protected: opt.EvenIfProtected = False,  # noqa: FBT002
    no_wait: opt.NoWait = False,  # noqa: FBT002
    forget: opt.Forget = False,  # noqa: FBT002
    region: opt.Region = None,
) -> "Teardown":
    """Delete everything, then verify that nothing is left."""
    from fastai_deploy import stages

    if forget:
        return stages.forget(project)
    return stages.teardown(
        project, artifacts=artifacts, confirmed=even_if_protected, wait=not no_wait
    )

"""The model in a Lambda function of the double: deploying it, and looking at its versions."""

from __future__ import annotations

import shutil
from typing import Any

from fastai_deploy.records import Api, Endpoint
from tests.aws.world import World
from tests.packaged import Model

NAME = "demo-dev-lambda"


def deploy(world: World, model: Model) -> Endpoint:
    bring(world, model)
    target = world.target()
    return target.deploy(target.upload(model.artifact), model.verify)


def up(world: World, model: Model) -> tuple[Endpoint, Api]:
    bring(world, model)
    target = world.target()
    endpoint = target.deploy(target.upload(model.artifact), model.verify)
    return endpoint, target.create_api(endpoint, model.verify)


def bring(world: World, model: Model) -> None:
    """The bundle and the artifact where the stage has them."""
    shutil.copyfile(model.artifact.path, world.root / "model.tar.gz")
    link = world.root / "bundle"
    link.unlink(missing_ok=True)
    link.symlink_to(model.bundle.folder)


def aliased(world: World) -> Any:
    return world.client("lambda").get_alias(FunctionName=NAME, Name="live")


def versions(world: World) -> list[str]:
    found = world.client("lambda").list_versions_by_function(FunctionName=NAME)["Versions"]
    return [each["Version"] for each in found if each["Version"] != "$LATEST"]

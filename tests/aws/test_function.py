"""The model in a Lambda function, against the double: the real template, zip and handler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.packaging.wheels import FUNCTION
from fastai_deploy.records import Api, Endpoint
from tests.aws.world import World
from tests.packaged import Model, write_model

NAME = "demo-dev-lambda"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("models"), "first", container=FUNCTION)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder, "second", container=FUNCTION, layers=3)


@pytest.fixture
def world(world: World) -> Iterator[World]:
    world.flags["endpoint", "kind"] = "lambda"
    world.flags["api", "burst"] = 20
    world.flags["api", "rate"] = 5.0
    yield world


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
    """The bundle where the stage has it."""
    link = world.root / "bundle"
    link.unlink(missing_ok=True)
    link.symlink_to(model.bundle.folder)


def aliased(world: World) -> Any:
    return world.client("lambda").get_alias(FunctionName=NAME, Name="live")


def versions(world: World) -> list[str]:
    found = world.client("lambda").list_versions_by_function(FunctionName=NAME)["Versions"]
    return [each["Version"] for each in found if each["Version"] != "$LATEST"]


def test_a_model_becomes_a_function_with_an_api_and_nothing_again(
    world: World, model: Model
) -> None:
    endpoint, api = up(world, model)
    assert (endpoint.name, endpoint.version) == (NAME, model.artifact.version)
    answer = world.target().invoke(endpoint, {"texts": ["a great film", "no"]})
    assert [each["model"]["version"] for each in answer] == [endpoint.version] * 2
    assert world.target().call_api(api, {"text": "a great film"}) == answer[0]

    functions = world.client("lambda").list_functions()["Functions"]
    assert [each["FunctionName"] for each in functions] == [NAME], "there is no second function"
    (function,) = functions
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["x86_64"])
    assert function["MemorySize"] == 1_769
    assert aliased(world)["FunctionVersion"] == "1"
    assert world.client("sagemaker").list_endpoints()["Endpoints"] == []
    role = world.client("iam").list_roles()["Roles"][0]["RoleName"]
    (name,) = world.client("iam").list_role_policies(RoleName=role)["PolicyNames"]
    policy = world.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    assert [each["Sid"] for each in policy["Statement"]] == ["Logs"], "the model is in the package"

    proof = world.target().teardown(artifacts=True)
    assert proof.left == ()
    assert {f"function {NAME}", "stack demo-dev-function", "stack demo-dev-api"} <= set(proof.found)
    assert world.everything() == []
    assert not Path(api.key_file).exists()

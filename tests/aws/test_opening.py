"""A context as the command makes it: from the settings and the user's own environment."""

from __future__ import annotations

import pytest

from fastai_deploy.targets.aws.context import open_context
from fastai_deploy.targets.aws.target import AwsTarget
from tests.aws.world import World
from tests.packaged import Model


def test_the_users_environment_is_enough(
    world: World, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.double.environment(world.account).items():
        monkeypatch.setenv(name, value)
    context = open_context(world.settings, world.root / "home", world.events.append)
    assert context.aws.account == world.account
    assert context.aws.region == world.region
    target = AwsTarget(context)
    endpoint = target.deploy(target.upload(model.artifact), model.verify)
    api = target.create_api(endpoint, model.verify)
    answer = target.call_api(api, {"text": "a great film"})
    assert answer["model"]["version"] == model.artifact.version
    assert target.teardown(artifacts=True).left == ()
    assert world.everything() == []

"""A stage that an earlier fdeploy deployed is updated, rolled back and torn down.

``before/`` holds its templates, in which each route of an API is a resource.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy import naming
from fastai_deploy.aws.change_sets import StackRequest
from fastai_deploy.aws.deployment import Deployment
from fastai_deploy.aws.specs import Location
from fastai_deploy.aws.templates.template import Template
from fastai_deploy.aws.templates.update import first_step
from fastai_deploy.errors import ParityError, StackFailed
from fastai_deploy.records import Api, Endpoint
from tests.aws.test_public_api import ask
from tests.aws.world import PROJECT, World
from tests.aws_templates.scenarios import BUCKET, CODE_SHA256, SHA256
from tests.packaged import Model

BEFORE = Path(__file__).parent / "before"
HTTP: dict[tuple[str, str], Any] = {("api", "type"): "http", ("api", "auth"): "iam"}
KINDS = pytest.mark.parametrize("kind", ["rest", "http"])


@dataclass(frozen=True)
class Old:
    """A stage deployed with the old templates, and the parts of it that must survive."""

    world: World
    endpoint: Endpoint
    url: str

    @property
    def deployment(self) -> Deployment:
        world = self.world
        return Deployment(world.aws(), world.owner, world.operator, world.events.append)

    @property
    def wanted(self) -> Template:
        """The template that ``create-api`` deploys now."""
        context = self.world.target().context
        package = context.lambda_package()
        digest = hashlib.sha256(package).hexdigest()
        code = Location(bucket(self.world), naming.code_key(PROJECT, digest))
        return context.definitions.api(code, digest).template

    def statuses(self) -> tuple[int, int]:
        """The status of a request without credentials, and of one to the health route."""
        health = self.url.replace("/classify", "/health")
        return ask(self.world, self.url, "POST", {})[0], ask(self.world, health, "GET", {})[0]

    def keys(self) -> list[tuple[str, str]]:
        """The ids and values of the API keys."""
        found: Any = self.world.client("apigateway").get_api_keys(includeValues=True)["items"]
        return [(key["id"], key["value"]) for key in found]

    def types(self) -> set[str]:
        """The types of the resources in the API's stack."""
        formation = self.world.client("cloudformation")
        pages = formation.get_paginator("list_stack_resources").paginate(StackName="demo-dev-api")
        return {item["ResourceType"] for page in pages for item in page["StackResourceSummaries"]}


Deploy = Callable[[str], Old]


@pytest.fixture
def old(world: World, model: Model) -> Deploy:
    """Deploys the stacks of the old templates for a kind of API."""

    def deploy(kind: str) -> Old:
        world.flags = HTTP if kind == "http" else {}
        target = world.target()
        stored = target.upload(model.artifact)
        package = target.context.lambda_package()
        digest = hashlib.sha256(package).hexdigest()
        world.client("s3").put_object(
            Bucket=bucket(world), Key=naming.code_key(PROJECT, digest), Body=package
        )

        def request(stack: str, name: str) -> StackRequest:
            text = (BEFORE / f"{name}.json").read_text()
            for before, now in (
                (BUCKET, bucket(world)),
                (SHA256, stored.sha256),
                (SHA256[:12], stored.version),
                (CODE_SHA256, digest),
                ("eu-central-1", world.region),
            ):
                text = text.replace(before, now)
            return StackRequest(stack, Template(text), world.owner.tags)

        deployment = Deployment(world.aws(), world.owner, world.operator, world.events.append)
        deployment.apply(request("demo-dev-endpoint", "endpoint"))
        made = deployment.apply(request("demo-dev-api", f"api-{kind}"))
        url = f"https://runtime.sagemaker.{world.region}.amazonaws.com/endpoints/demo-dev"
        endpoint = Endpoint("aws", "demo-dev", url, stored.version, stored.sha256, world.region)
        return Old(world, endpoint, made.stack.outputs["Url"])

    return deploy


def bucket(world: World) -> str:
    return f"fdeploy-{world.account}-{world.region}"


@KINDS
def test_it_is_updated_and_keeps_its_endpoint_its_url_and_its_key(
    old: Deploy, model: Model, kind: str
) -> None:
    stage = old(kind)
    world, before = stage.world, stage.statuses()
    keys = stage.keys()
    assert before == (403, 200)

    endpoint = world.target().deploy(world.target().upload(model.artifact), model.verify)
    api = world.target().create_api(endpoint, model.verify)

    assert api.url == stage.url
    assert stage.statuses() == before
    assert stage.keys() == keys
    assert not {each for each in stage.types() if each.endswith(("::Method", "::Route"))}
    answer = world.target().call_api(api, {"text": "a great film"})
    assert answer["model"]["version"] == model.artifact.version
    said = world.said
    assert "moving the API's routes to an OpenAPI document" in said

    world.target().create_api(endpoint, model.verify)
    assert "demo-dev-api is up to date" in world.said.removeprefix(said)
    assert world.target().teardown(artifacts=True).left == ()
    assert world.everything() == []


@KINDS
def test_no_change_set_replaces_the_endpoint_or_the_api(
    old: Deploy, model: Model, kind: str
) -> None:
    stage = old(kind)
    context = stage.world.target().context
    stored = stage.world.target().upload(model.artifact)
    endpoint = context.request("demo-dev-endpoint", context.definitions.endpoint(stored))
    api = StackRequest("demo-dev-api", stage.wanted, endpoint.tags)
    for request, kept in ((endpoint, "Endpoint"), (api, "Api")):
        plan = stage.deployment.plan(request)
        assert plan.changes is not None
        changed = {change.logical_id: change for change in plan.changes.changes}
        assert (changed[kept].action, changed[kept].replacement) == ("Modify", "False")
        replaced = {name for name, change in changed.items() if change.replacement == "True"}
        assert not replaced & {"ApiStage", "ApiKey", "UsagePlan", "Function", "LogGroup"}


@KINDS
def test_in_one_step_the_old_routes_would_take_the_new_ones_along(old: Deploy, kind: str) -> None:
    """The double's worst-case assumption about AWS, without which the first step proves nothing."""
    stage = old(kind)
    stage.deployment.apply(StackRequest("demo-dev-api", stage.wanted, stage.world.owner.tags))
    assert stage.statuses() != (403, 200)


@KINDS
def test_a_policy_alone_is_no_change(old: Deploy, kind: str) -> None:
    stage = old(kind)
    live = stage.deployment.live("demo-dev-api")
    assert live is not None
    step = first_step(stage.wanted, live.template)
    assert step is not None
    document = step.template.document()
    for resource in document["Resources"].values():
        resource.pop("Metadata", None)
    alone = StackRequest(live.name, Template(json.dumps(document)), live.tags)
    assert stage.deployment.plan(alone).changes is None
    first = StackRequest(live.name, step.template, live.tags)
    assert stage.deployment.apply(first).changed
    assert first_step(stage.wanted, step.template) is None, "the step is done once"
    assert stage.statuses() == (403, 200)
    assert stage.world.target().teardown(artifacts=True).left == ()
    assert stage.world.everything() == []


@KINDS
def test_it_is_put_back_when_the_new_one_does_not_answer(
    old: Deploy, model: Model, kind: str
) -> None:
    stage = old(kind)
    types = stage.types()

    def refuse(_ask: object) -> None:
        raise ParityError("other answers", hint="none")

    with pytest.raises(ParityError, match="other answers"):
        stage.world.target().create_api(stage.endpoint, refuse)
    assert stage.types() == types
    assert stage.statuses() == (403, 200)
    assert stage.world.target().create_api(stage.endpoint, model.verify).url == stage.url


@KINDS
def test_it_serves_on_when_cloudformation_goes_back(old: Deploy, model: Model, kind: str) -> None:
    stage = old(kind)
    wanted = stage.wanted
    broken = Template(wanted.text, {**wanted.parameters, "CodeKey": "there-is-none"})
    serving = stage.world.target().context.rollout("none")
    with pytest.raises(StackFailed):
        serving.apply(
            StackRequest("demo-dev-api", broken, stage.world.owner.tags), lambda _applied: None
        )
    assert stage.statuses() == (403, 200)
    assert stage.world.target().create_api(stage.endpoint, model.verify).url == stage.url
    assert stage.statuses() == (403, 200)


def test_the_key_of_an_old_api_is_replaced(old: Deploy, model: Model) -> None:
    stage = old("rest")
    target = stage.world.target()
    old_api = Api("aws", stage.url, "demo-dev", "", "demo-dev")
    before = target.key(old_api)
    after = target.rotate_key(old_api)
    assert after != before
    assert ask(stage.world, stage.url, "POST", {"x-api-key": after})[0] == 200
    api = target.create_api(stage.endpoint, model.verify)
    assert target.key(api) == after

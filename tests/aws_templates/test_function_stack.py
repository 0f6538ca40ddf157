"""The stack of a function: what decides its versions, its memory and its storage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.aws.capacity import function_memory
from fastai_deploy.aws.specs import FunctionSpec, Location
from fastai_deploy.aws.templates.render import (
    Published,
    Serving,
    function_template,
    published,
    serving_of,
)
from fastai_deploy.aws.wanted import function_spec
from fastai_deploy.errors import SettingsError
from fastai_deploy.packaging.wheels import FUNCTION
from fastai_deploy.records import StoredArtifact
from fastai_deploy.settings import Settings
from fastai_deploy.targets.aws.stacks import serving_container
from tests.aws_templates.scenarios import SHA256, function_of, section, settings_of

MB = 1 << 20


def settings(toml: str = "") -> Settings:
    return settings_of(section("endpoint", f'kind = "lambda"\n{toml}'))


def spec(size: int, toml: str = "", *, reads: bool = False) -> FunctionSpec:
    stored = StoredArtifact("aws", f"s3://bucket/{SHA256}/model.tar.gz", SHA256, 1, SHA256)
    return function_spec(settings(toml), stored, Location("b", "k"), size=size, reads=reads)


def test_a_function_has_one_core_or_what_the_model_needs() -> None:
    assert function_memory(23 * MB) == 1_769
    assert function_memory(900 * MB) == 160 + 1_800
    assert spec(23 * MB).function.memory == 1_769
    assert spec(23 * MB, "[endpoint.function]\nmemory = 3008\n").function.memory == 3_008


def test_a_model_that_is_read_gets_the_storage_for_it() -> None:
    assert spec(23 * MB).storage == 512
    assert spec(475 * MB, reads=True).storage == 512
    assert spec(500 * MB, reads=True).storage == 524
    with pytest.raises(SettingsError, match="storage in") as small:
        spec(600 * MB, "[endpoint.function]\nstorage = 512\n", reads=True)
    assert "at least 624" in small.value.hint
    with pytest.raises(SettingsError, match="SnapStart allows 512"):
        spec(600 * MB, "[endpoint.function]\nsnapstart = true\n", reads=True)


def test_a_model_that_is_too_large_is_refused_with_the_kind_that_fits(tmp_path: Path) -> None:
    manifest = '{"files": {"model.onnx": {"bytes": 1400000000}}, "model": {"file": "model.onnx"}}'
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(SettingsError, match=r"1,335 MB, and a function reads at most 954") as error:
        serving_container(settings(), "eu-central-1", tmp_path)
    assert "fdeploy config set endpoint.kind real-time" in error.value.hint
    learner = {"files": {"learner.pkl": {"bytes": 1}}, "model": {"file": "learner.pkl"}}
    (tmp_path / "manifest.json").write_text(json.dumps({**learner, "runtime": {"python": "3.12"}}))
    with pytest.raises(SettingsError, match="torch and fastai do not fit"):
        serving_container(settings(), "eu-central-1", tmp_path)
    assert serving_container(settings(), "eu-central-1", tmp_path / "none") == FUNCTION


def test_another_function_is_another_version_and_another_tag_is_not() -> None:
    one = function_of(settings())
    same = published(replace(one, warnings=("a note",), canary=0.1))
    assert same == published(one)
    for changed in (
        replace(one, route="/judge"),
        replace(one, function=replace(one.function, memory=2_000)),
        replace(one, function=replace(one.function, code=Location("b", "other"))),
        replace(one, snapstart=True),
    ):
        assert published(changed).logical_id != published(one).logical_id
    reserved = replace(one, function=replace(one.function, concurrency=5))
    assert published(reserved) == published(one), "that is the function's, and no version's"


def resources(template: Any) -> Any:
    return template.document()["Resources"]


def test_the_alias_serves_what_it_is_told_and_the_stack_says_so() -> None:
    one = function_of(settings())
    new, old = published(one), Published("VersionOld", published(one).resource, "0a1b2c3d4e5f")
    for serving in (Serving(old), Serving(new, (old,))):
        template = function_template(one, serving)
        found = resources(template)
        assert {new.logical_id, "VersionOld"} <= set(found)
        assert found["LiveAlias"]["Properties"]["FunctionVersion"] == {
            "Fn::GetAtt": [serving.live.logical_id, "Version"]
        }
        assert template.parameters["LiveVersion"] == serving.live.version
        read = serving_of(template)
        assert read is not None
        assert read.live.logical_id == serving.live.logical_id
    assert serving_of(None) is None


def test_a_canary_gets_a_tenth() -> None:
    one = replace(function_of(settings()), canary=0.1)
    old = Published("VersionOld", published(one).resource, "0a1b2c3d4e5f")
    alias = resources(function_template(one, Serving(old, canary=published(one))))["LiveAlias"]
    (weight,) = alias["Properties"]["RoutingConfig"]["AdditionalVersionWeights"]
    assert weight["FunctionWeight"] == 0.1
    assert weight["FunctionVersion"] == {"Fn::GetAtt": [published(one).logical_id, "Version"]}


@pytest.mark.parametrize(
    ("reads", "sids"), [(False, ["Logs"]), (True, ["Logs", "Artifact"])], ids=["packed", "read"]
)
def test_the_role_may_write_its_log_and_read_one_object(*, reads: bool, sids: list[str]) -> None:
    one = function_of(settings(), reads=reads)
    template = function_template(one, Serving(published(one))).evaluated()
    (policy,) = template["Resources"]["FunctionRole"]["Properties"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    assert [each["Sid"] for each in statements] == sids
    if reads:
        assert one.artifact is not None
        assert statements[1]["Resource"]["Fn::Sub"].endswith(f"/{one.artifact.key}")

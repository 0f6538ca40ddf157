"""The model in a function where something is in the way: its limits, other deploys, its region."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.aws.ownership import Operator
from fastai_deploy.aws.public_api import PublicApi
from fastai_deploy.errors import (
    AwsQuota,
    InvocationError,
    NoAnswer,
    ParityError,
    StackBusy,
    TargetUnavailable,
)
from fastai_deploy.packaging.function_zip import MAX_UNPACKED, build_function_package
from fastai_deploy.packaging.wheels import FUNCTION, Wheel
from fastai_deploy.targets.aws.function import FunctionStage
from fastai_deploy.targets.aws.operations import AwsOperations
from tests.aws.functions import NAME, aliased, bring, deploy, up, versions
from tests.aws.table_page import IN_FUNCTION
from tests.aws.test_stack_states import let_go_on, slow_deploy
from tests.aws.world import World
from tests.packaged import Model, pack, write_model
from tests.runtime.bundles import write_bundle

LARGEST = 6_000_000  # bytes of a body that the settings allow
MANY = {"texts": ["a good film " * 200] * 1_000}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_model(tmp_path_factory.mktemp("models"), "first", container=FUNCTION)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder, "second", container=FUNCTION, layers=3)


@pytest.fixture(scope="module")
def third_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder, "third", container=FUNCTION, layers=1)


@pytest.fixture
def world(world: World) -> World:
    world.flags.update(IN_FUNCTION)
    return world


@contextmanager
def refused(status: int, code: str) -> Iterator[None]:
    with pytest.raises(InvocationError) as error:
        yield
    assert (error.value.status, error.value.answer_code) == (status, code), error.value.message


def test_a_request_that_takes_too_long_is_504_and_the_next_is_answered(
    world: World, model: Model
) -> None:
    world.flags["api", "timeout"] = 0.05
    world.flags["api", "max_body"] = LARGEST
    _, api = up(world, model)
    with refused(504, "timeout"):
        world.target().call_api(api, MANY)
    model.verify(lambda request: world.target().call_api(api, request))


@pytest.mark.parametrize("type_", ["rest", "function-url"])
def test_a_body_of_6_mb(world: World, model: Model, type_: str) -> None:
    world.flags["api", "max_body"] = LARGEST
    world.flags["api", "type"] = type_
    if type_ == "function-url":
        world.flags["api", "auth"] = "none"
    endpoint, api = up(world, model)
    fits, large, larger = (
        {"text": "a film " * (size // 7)} for size in (LARGEST - 100, 6_100_000, 7_000_000)
    )
    assert world.target().call_api(api, fits)["truncated"]
    with refused(413, "too_large"):  # by the function
        world.target().call_api(api, large)
    reply = PublicApi(world.double.url).exchange(
        api.url, larger, {"x-api-key": Path(api.key_file).read_text()} if api.key_file else {}
    )
    assert reply.status == 413, reply
    if type_ == "rest":  # in the contract's words, although the function was not asked
        assert json.loads(reply.body)["error"]["code"] == "too_large"
    assert world.target().invoke(endpoint, large)["truncated"]
    with refused(413, "too_large"):  # by Lambda
        world.target().invoke(endpoint, larger)
    model.verify(lambda request: world.target().call_api(api, request))


def test_a_crash_is_an_error_of_the_contract(world: World, model: Model) -> None:
    _, api = up(world, model)
    functions = world.client("lambda")
    functions.update_function_configuration(
        FunctionName=NAME, Handler="fdeploy_runtime.nothing.handler"
    )
    broken = functions.publish_version(FunctionName=NAME)["Version"]
    functions.update_alias(FunctionName=NAME, Name="live", FunctionVersion=broken)
    with refused(502, "internal"):
        world.target().call_api(api, {"text": "a"})
    functions.update_alias(FunctionName=NAME, Name="live", FunctionVersion="1")
    model.verify(lambda request: world.target().call_api(api, request))


def test_more_requests_at_once_than_the_account_may_run(world: World, model: Model) -> None:
    endpoint, api = up(world, model)
    world.double.behave(world.account, concurrency=0)
    with refused(500, "internal"):
        world.target().call_api(api, {"text": "a"})
    with refused(429, "throttled"):
        world.target().invoke(endpoint, {"text": "a"})
    world.double.behave(world.account, concurrency=1_000)
    model.verify(lambda request: world.target().invoke(endpoint, request))


def test_a_quota_of_ten_is_enough_for_a_stage_and_is_told(world: World, model: Model) -> None:
    """A new account's. Its API's own limit is tried with twice as many requests at once."""
    world.double.behave(world.account, concurrency=10)
    world.flags["api", "burst"] = 20
    world.flags["api", "rate"] = 5.0
    _, api = up(world, model)
    assert "this account runs at most 10 functions at once here" in world.said
    model.verify(lambda request: world.target().call_api(api, request))
    checks = {each.name: each for each in AwsOperations(world.target()).doctor(None).checks}
    assert checks["concurrency"].outcome == "warned"
    assert "L-B99A9384" in checks["concurrency"].hint
    world.flags["endpoint.function", "concurrency"] = 1
    with pytest.raises(AwsQuota, match="AWS keeps 100 unreserved"):
        deploy(world, model)
    assert versions(world) == ["1"]


def test_a_deploy_waits_while_the_account_is_busy_and_then_gives_up(
    world: World, model: Model
) -> None:
    deploy(world, model)
    world.double.behave(world.account, concurrency=0)
    world.flags["endpoint.function", "memory"] = 2_000
    with pytest.raises(NoAnswer, match="more requests at once"):
        deploy(world, model)
    assert aliased(world)["FunctionVersion"] == "1", "nobody asks a version without proof"
    world.double.behave(world.account, concurrency=1_000)
    deploy(world, model)
    assert aliased(world)["FunctionVersion"] == "2"


def test_a_region_without_the_python_is_refused_before_anything_is_made(
    world: World, model: Model
) -> None:
    world.double.behave(world.account, missing_runtimes=["python3.13"])
    with pytest.raises(TargetUnavailable, match=r"no Python 3\.13 in eu-central-1") as error:
        deploy(world, model)
    assert "--region" in error.value.hint
    checks = {each.name: each for each in AwsOperations(world.target()).doctor(None).checks}
    assert checks["runtime"].outcome == "failed"
    assert world.client("lambda").list_functions()["Functions"] == []
    assert not [each for each in world.everything() if each.startswith("stack")]


# A model that stays in the bucket


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of 6 MB, beside a library so large that half of it would fit into the package."""
    folder = tmp_path_factory.mktemp("large")
    bundle = write_bundle(folder / "large", layers=6, hidden=512)
    alone = pack(bundle, folder / "alone.tar.gz", FUNCTION)
    packed = build_function_package(
        Path(alone.artifact.path), folder / "alone.zip", {}, python=None
    )
    wheel = folder / "filler-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        half = (bundle.folder / "model.onnx.data").stat().st_size // 2
        archive.writestr("filler.bin", bytes(MAX_UNPACKED - packed.unpacked + half))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    filler = Wheel("filler", "1", wheel, digest)
    return pack(bundle, folder / "model.tar.gz", FUNCTION, [filler])


def test_a_model_in_the_bucket_that_goes_away_and_comes_back(
    world: World, large_model: Model
) -> None:
    endpoint, api = up(world, large_model)
    assert "the model is read from the bucket at each cold start" in world.said
    role = world.client("iam").list_roles()["Roles"][0]["RoleName"]
    (name,) = world.client("iam").list_role_policies(RoleName=role)["PolicyNames"]
    policy = world.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    assert [each["Sid"] for each in policy["Statement"]] == ["Logs", "Artifact"]

    s3 = world.client("s3")
    (bucket,) = (each["Name"] for each in s3.list_buckets()["Buckets"])
    (key,) = (
        each["Key"]
        for each in s3.list_objects_v2(Bucket=bucket)["Contents"]
        if each["Key"].endswith("model.tar.gz")
    )
    whole = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    changed = bytearray(whole)
    changed[changed.index(b"model.onnx.data\0") + 1_000_000] ^= 1
    for wrong in (None, bytes(changed)):
        if wrong is None:
            s3.delete_object(Bucket=bucket, Key=key)
        else:
            s3.put_object(Bucket=bucket, Key=key, Body=wrong)
        start_cold(world)
        with refused(503, "not_ready"):
            world.target().call_api(api, {"text": "a"})
        with refused(503, "not_ready"):
            world.target().invoke(endpoint, {"text": "a"})
    s3.put_object(Bucket=bucket, Key=key, Body=whole)
    large_model.verify(lambda request: world.target().call_api(api, request))
    said = [
        line.message
        for line in AwsOperations(world.target()).logs(
            api=True, since=timedelta(hours=1), follow=False
        )
    ]
    assert any("NoSuchKey" in line for line in said)
    assert any("not the one that was deployed" in line for line in said)


def start_cold(world: World) -> None:
    """Have the alias serve a new version of the same function, whose environments are new."""
    functions = world.client("lambda")
    functions.update_function_configuration(
        FunctionName=NAME, Description=f"start {len(versions(world))}"
    )
    number = functions.publish_version(FunctionName=NAME)["Version"]
    functions.update_alias(FunctionName=NAME, Name="live", FunctionVersion=number)


# Two deploys of a stage at once


def beside(world: World, folder: Path) -> World:
    """Another user of the same stage, with a folder of her own."""
    root = folder / "eve"
    root.mkdir()
    return replace(
        world, root=root, operator=Operator("eve", "desktop"), events=[], flags=dict(world.flags)
    )


def test_a_deploy_during_another_ones_proof_wins_and_the_other_is_refused(
    *, world: World, model: Model, other_model: Model, third_model: Model, tmp_path: Path
) -> None:
    deploy(world, model)
    eve = beside(world, tmp_path)
    bring(world, other_model)

    def verify(invoke: Any) -> None:
        other_model.verify(invoke)
        deploy(eve, third_model)

    target = world.target()
    with pytest.raises(StackBusy, match="eve on desktop changed the stack demo-dev-function"):
        target.deploy(target.upload(other_model.artifact), verify)
    assert AwsOperations(world.target()).live_version() == third_model.artifact.version
    third_model.verify(FunctionStage(world.target().context).invoke)
    deploy(world, other_model)
    assert AwsOperations(world.target()).live_version() == other_model.artifact.version


def test_a_failed_proof_takes_nothing_back_that_another_deploy_made(
    *, world: World, model: Model, other_model: Model, third_model: Model, tmp_path: Path
) -> None:
    deploy(world, model)
    eve = beside(world, tmp_path)
    bring(world, other_model)

    def differs(invoke: Any) -> None:
        del invoke
        deploy(eve, third_model)
        raise ParityError("the answers differ", hint="none")

    target = world.target()
    with pytest.raises(StackBusy, match="the stack stays as it is"):
        target.deploy(target.upload(other_model.artifact), differs)
    assert AwsOperations(world.target()).live_version() == third_model.artifact.version
    third_model.verify(FunctionStage(world.target().context).invoke)


def test_another_kind_that_someone_else_deploys_is_not_deployed_over(
    world: World, model: Model, tmp_path: Path
) -> None:
    for_sagemaker = write_model(tmp_path, "instance")
    del world.flags["endpoint", "kind"]
    bring(world, for_sagemaker)
    with slow_deploy(world, for_sagemaker):
        eve = beside(world, tmp_path)
        eve.flags["endpoint", "kind"] = "lambda"
        with pytest.raises(StackBusy, match="ada on laptop is changing the stack demo-dev-endp"):
            deploy(eve, model)
        assert world.client("lambda").list_functions()["Functions"] == []


def test_another_kind_that_the_same_user_deploys_is_waited_for(
    world: World, model: Model, tmp_path: Path
) -> None:
    for_sagemaker = write_model(tmp_path, "instance")
    del world.flags["endpoint", "kind"]
    bring(world, for_sagemaker)
    with slow_deploy(world, for_sagemaker) as done:
        world.flags["endpoint", "kind"] = "lambda"
        bring(world, model)

        def report(event: Any) -> None:
            world.events.append(event)
            if "waiting for the running operation" in getattr(event, "message", ""):
                let_go_on(world)

        target = world.target(report)
        target.deploy(target.upload(model.artifact), model.verify)
    assert done
    assert "demo-dev-endpoint is CREATE_IN_PROGRESS: waiting" in world.said
    assert "deleting demo-dev-endpoint, which nothing asks any more" in world.said
    assert world.client("sagemaker").list_endpoints()["Endpoints"] == []

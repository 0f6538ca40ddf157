"""The repository of a project's images: made once, shared by its stages, gone with the last."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastai_deploy import naming
from fastai_deploy.aws.ownership import Owner
from fastai_deploy.aws.repository import ImageRepository
from fastai_deploy.errors import AwsDenied, AwsMissing, NotOurs, TargetUnavailable
from fastai_deploy.image.names import Destination
from fastai_deploy.naming import PROJECT_TAG, STAGE_TAG
from tests.aws.images import Client, TinyImage, login
from tests.aws.world import World
from tests.aws_double.faults import Fault

NAME = "fdeploy/demo"
IMAGE = TinyImage(layer=b"one")
OTHER = TinyImage("0.1.0-x86_64-000000000002", layer=b"another")


def repository(world: World, stage: str = "dev", id_: str = "", **options: Any) -> ImageRepository:
    owner = Owner("demo", stage, id_)
    return ImageRepository(world.aws(), owner, world.events.append, **options)


def used(world: World, stage: str, image: TinyImage = IMAGE) -> ImageRepository:
    """The repository, after the stage has pushed an image and uses it."""
    made = repository(world, stage)
    made.mark(made.push(image))
    return made


def tags(world: World) -> list[list[str]]:
    found = world.client("ecr").describe_images(repositoryName=NAME)["imageDetails"]
    return sorted(image["imageTags"] for image in found)


def test_it_is_made_once_with_everything(world: World) -> None:
    key = f"arn:aws:kms:{world.region}:{world.account}:key/1"
    own = repository(world, id_="1234", tags={"team": "nlp"}, kms_key=key)
    stored = own.push(TinyImage(layer=b"one"))
    ecr = world.client("ecr")
    (made,) = ecr.describe_repositories(repositoryNames=[NAME])["repositories"]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert made["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": key}
    listed = ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"]
    found = {tag["Key"]: tag["Value"] for tag in listed}
    assert found == {"team": "nlp", PROJECT_TAG: "demo", "fdeploy:id": "1234"}
    assert STAGE_TAG not in found
    policy = json.loads(ecr.get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"])
    assert policy["rules"][0]["selection"]["tagStatus"] == "untagged"
    assert stored.tags == (IMAGE.tag,)
    assert own.uri(stored.digest) == (
        f"{world.account}.dkr.ecr.{world.region}.amazonaws.com/{NAME}@{stored.digest}"
    )
    assert "creating the repository fdeploy/demo" in world.said


def test_an_image_is_pushed_once(world: World) -> None:
    image = TinyImage(layer=b"one")
    first = repository(world).push(image)
    assert repository(world, "prod").push(image) == first
    assert image.pushed == 1


def test_a_repository_that_fdeploy_did_not_make_is_left_alone(world: World) -> None:
    ecr = world.client("ecr")
    ecr.create_repository(repositoryName=NAME)
    own = repository(world)
    with pytest.raises(NotOurs, match="was not made by fdeploy"):
        own.push(IMAGE)
    assert own.of_stage() is None
    own.clear()
    assert world.everything() == [f"repository {NAME}"]


def test_a_repository_of_another_project_of_the_name_is_left_alone(world: World) -> None:
    repository(world, id_="1111").push(IMAGE)
    with pytest.raises(NotOurs, match="id is 1111"):
        repository(world, id_="2222").push(IMAGE)
    with pytest.raises(NotOurs):
        repository(world).find(IMAGE.tag)
    repository(world, id_="2222").clear()
    assert tags(world) == [[IMAGE.tag]]
    adopting = ImageRepository(world.aws(), Owner("demo", "dev", "2222", adopts=True), print)
    assert adopting.find(IMAGE.tag)


def test_a_stage_is_noted_on_the_image(world: World) -> None:
    own = used(world, "dev")
    used(world, "dev")
    used(world, "dev-2")
    assert tags(world) == [
        [IMAGE.tag, f"stage.dev-2.{IMAGE.tag}", f"stage.dev.{IMAGE.tag}"],
    ]
    found = own.find(IMAGE.tag)
    assert found
    assert found.stages == {"dev", "dev-2"}
    assert found.tag == IMAGE.tag
    assert own.find(found.digest) == found


def test_the_last_stage_takes_the_repository_with_it(world: World) -> None:
    used(world, "prod")
    own = used(world, "dev", OTHER)
    used(world, "dev")
    found = own.of_stage()
    assert found
    assert found.tags == (f"stage.dev.{IMAGE.tag}", f"stage.dev.{OTHER.tag}")
    assert [image.tag for image in found.unused] == [OTHER.tag]
    assert [image.tag for image in found.kept] == [IMAGE.tag]
    own.clear()
    assert tags(world) == [[IMAGE.tag, f"stage.prod.{IMAGE.tag}"]]
    repository(world, "prod").clear()
    assert world.everything() == []
    assert own.of_stage() is None


def test_what_was_never_deployed_goes_too(world: World) -> None:
    own = repository(world)
    own.push(IMAGE)
    ecr = world.client("ecr")
    Client(login(ecr, NAME)).push("untagged", b"untagged")
    ecr.batch_delete_image(repositoryName=NAME, imageIds=[{"imageTag": "untagged"}])
    own.clear()
    assert world.everything() == []


def test_an_image_that_somebody_else_pushed_is_kept(world: World) -> None:
    own = used(world, "dev")
    Client(login(world.client("ecr"), NAME)).push("latest", b"by hand")
    newest = own.newest()
    assert newest
    assert newest.tag == IMAGE.tag
    found = own.of_stage()
    assert found
    assert [image.tag for image in found.unused] == [IMAGE.tag]
    assert [image.tag for image in found.kept] == ["latest"]
    own.clear()
    assert tags(world) == [["latest"]]


def test_a_push_that_was_overtaken_is_no_error(world: World) -> None:
    class Overtaken(TinyImage):
        def push(self, to: Destination) -> str:
            TinyImage(self.tag, layer=b"one").push(to)
            return super().push(to)

    stored = repository(world).push(Overtaken(layer=b"one"))
    assert stored.tags == (IMAGE.tag,)


def test_a_push_that_fails_says_why(world: World) -> None:
    class Broken(TinyImage):
        def push(self, to: Destination) -> str:
            assert to.password not in repr(to)
            raise TargetUnavailable("no route to the registry", hint="none")

    with pytest.raises(TargetUnavailable, match="no route"):
        repository(world).push(Broken())
    assert repository(world).find(IMAGE.tag) is None


def test_an_image_that_is_deleted_meanwhile(world: World) -> None:
    own = repository(world)
    stored = own.push(IMAGE)
    ids = [{"imageDigest": stored.digest}]
    world.client("ecr").batch_delete_image(repositoryName=NAME, imageIds=ids)
    with pytest.raises(AwsMissing, match="was deleted meanwhile"):
        own.mark(stored)


@pytest.mark.parametrize(
    "operation",
    [
        *("DescribeRepositories", "CreateRepository", "PutLifecyclePolicy"),
        *("GetAuthorizationToken", "BatchGetImage", "PutImage"),
    ],
)
def test_what_is_denied_is_named_and_done_the_next_time(world: World, operation: str) -> None:
    denied = Fault("deny", service="ecr", operation=operation)
    world.double.do_wrong(world.account, denied)
    with pytest.raises(AwsDenied, match=f"ecr:{operation}"):
        used(world, "dev")
    world.double.do_wrong(world.account)
    used(world, "dev")
    assert tags(world) == [[IMAGE.tag, f"stage.dev.{IMAGE.tag}"]]
    assert world.client("ecr").get_lifecycle_policy(repositoryName=NAME)


@pytest.mark.parametrize("operation", ["CreateRepository", "PutImage", "BatchDeleteImage"])
def test_an_answer_that_is_lost_does_no_harm(world: World, operation: str) -> None:
    lost = Fault("lost", service="ecr", operation=operation, attempts=1)
    world.double.do_wrong(world.account, lost)
    used(world, "dev").clear()
    assert world.everything() == []


def test_names_fit() -> None:
    longest = naming.stage_tag("s" * 16, "x")
    assert len(longest) - 1 <= 23
    assert naming.stage_of_tag(longest) == "s" * 16
    assert naming.stage_of_tag(naming.stage_tag("a-b", "0.1.0-x")) == "a-b"
    assert naming.stage_of_tag("0.1.0-x86_64-1") == ""
    tag = naming.image_tag("0.1.0+local", "aarch64", "0123456789abcdef")
    assert tag == "0.1.0-local-aarch64-0123456789ab"
    assert naming.is_image_tag(tag)
    assert naming.is_image_tag(naming.stage_tag("dev", tag))
    assert not naming.is_image_tag("stage.dev.latest")


def test_who_adopts_the_stage_takes_the_repository_over(world: World) -> None:
    repository(world, id_="1111").push(IMAGE)
    owner = Owner("demo", "dev", "2222", adopts=True)
    adopting = ImageRepository(world.aws(), owner, world.events.append)
    adopting.mark(adopting.push(IMAGE))
    found = repository(world, id_="2222").find(IMAGE.tag)
    assert found
    assert found.stages == {"dev"}
    with pytest.raises(NotOurs, match="id is 2222"):
        repository(world, id_="1111").find(IMAGE.tag)

"""The double's ECR does what the API reference says, and its registry is the same repositories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from tests.aws.images import KIND, Client, login, manifest
from tests.aws.world import World
from tests.registry import digest_of

NAME = "fdeploy/demo"


def pushing(world: World) -> Client:
    return Client(login(world.client("ecr"), NAME))


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_repository_must_be_there_before_a_push(world: World) -> None:
    ecr = world.client("ecr")
    with pytest.raises(ClientError) as error:
        ecr.describe_repositories(repositoryNames=[NAME])
    assert code(error) == "RepositoryNotFoundException"
    client = pushing(world)
    assert client.ask("POST", "blobs/uploads/").status == 404
    ecr.create_repository(repositoryName=NAME)
    with pytest.raises(ClientError) as error:
        ecr.create_repository(repositoryName=NAME)
    assert code(error) == "RepositoryAlreadyExistsException"
    assert client.push("1").status == 201
    assert world.everything() == [f"repository {NAME}"]
    stranger = World(world.double, world.root)
    assert pushing(stranger).ask("GET", "manifests/1").status == 404
    assert stranger.everything() == []


def test_a_login_is_needed(world: World) -> None:
    world.client("ecr").create_repository(repositoryName=NAME)
    client = pushing(world)
    client.to = replace(client.to, username="")
    refused = client.ask("POST", "blobs/uploads/")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_tags_of_an_immutable_repository_stay(world: World) -> None:
    ecr = world.client("ecr")
    ecr.create_repository(repositoryName=NAME, imageTagMutability="IMMUTABLE")
    client = pushing(world)
    assert client.push("1").status == 201
    again = client.push("1")
    assert (again.status, again.json()["errors"][0]["code"]) == (400, "TAG_INVALID")
    assert client.push("2", b"another").status == 201
    stored = {"repositoryName": NAME, "imageManifest": manifest().decode()}
    ecr.put_image(**stored, imageTag="more", imageManifestMediaType=KIND)
    with pytest.raises(ClientError) as error:
        ecr.put_image(**stored, imageTag="more")
    assert code(error) == "ImageAlreadyExistsException"
    with pytest.raises(ClientError) as error:
        ecr.put_image(**stored, imageTag="2")
    assert code(error) == "ImageTagAlreadyExistsException"
    with pytest.raises(ClientError) as error:
        ecr.put_image(repositoryName=NAME, imageManifest=manifest(b"gone").decode(), imageTag="3")
    assert code(error) == "LayersNotFoundException"


def test_an_image_is_gone_with_its_last_tag(world: World) -> None:
    ecr = world.client("ecr")
    ecr.create_repository(repositoryName=NAME)
    client = pushing(world)
    client.push("1")
    client.push("2")
    (found,) = ecr.describe_images(repositoryName=NAME)["imageDetails"]
    assert (found["imageTags"], found["imageDigest"]) == (["1", "2"], digest_of(manifest()))
    asked = {"repositoryName": NAME, "imageIds": [{"imageTag": "1"}, {"imageTag": "none"}]}
    answer = ecr.batch_delete_image(**asked)
    assert [each["failureCode"] for each in answer["failures"]] == ["ImageNotFound"]
    with pytest.raises(ClientError) as error:
        ecr.delete_repository(repositoryName=NAME)
    assert code(error) == "RepositoryNotEmptyException"
    ecr.batch_delete_image(repositoryName=NAME, imageIds=[{"imageTag": "2"}])
    assert ecr.list_images(repositoryName=NAME)["imageIds"] == []
    with pytest.raises(ClientError) as error:
        ecr.describe_images(repositoryName=NAME, imageIds=[{"imageTag": "2"}])
    assert code(error) == "ImageNotFoundException"
    ecr.delete_repository(repositoryName=NAME)
    assert world.everything() == []


def test_what_a_repository_was_made_with_is_told(world: World) -> None:
    ecr = world.client("ecr")
    key = f"arn:aws:kms:{world.region}:{world.account}:key/1"
    made = ecr.create_repository(
        repositoryName=NAME,
        imageScanningConfiguration={"scanOnPush": True},
        encryptionConfiguration={"encryptionType": "KMS", "kmsKey": key},
        tags=[{"Key": "a", "Value": "b"}],
    )["repository"]
    assert made["repositoryUri"].startswith(f"{world.account}.dkr.ecr.{world.region}.")
    (found,) = ecr.describe_repositories(repositoryNames=[NAME])["repositories"]
    assert found == made
    assert found["encryptionConfiguration"]["kmsKey"] == key
    arn = found["repositoryArn"]
    assert ecr.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "a", "Value": "b"}]
    with pytest.raises(ClientError) as error:
        ecr.get_lifecycle_policy(repositoryName=NAME)
    assert code(error) == "LifecyclePolicyNotFoundException"

"""The double's ECR does what the API reference says, and its registry is the same repositories."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

from tests.aws.world import World
from tests.registry import DOCKER, digest_of

NAME = "fdeploy/demo"
KIND = f"{DOCKER}.manifest.v2+json"
CONFIG, LAYER = b"{}", b"layer"


def manifest(layer: bytes = LAYER) -> bytes:
    def part(data: bytes) -> dict[str, Any]:
        return {"mediaType": "x/y", "digest": digest_of(data), "size": len(data)}

    document = {"schemaVersion": 2, "mediaType": KIND, "config": part(CONFIG)}
    return json.dumps({**document, "layers": [part(layer)]}).encode()


class Pushing:
    """A registry client with the login that ECR gives."""

    def __init__(self, world: World) -> None:
        given = world.client("ecr").get_authorization_token()["authorizationData"][0]
        login = base64.b64decode(given["authorizationToken"]).decode()
        self.headers = urllib3.make_headers(basic_auth=login)
        self.url = given["proxyEndpoint"]
        self.http = urllib3.PoolManager(retries=False)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        url = path if path.startswith("http") else f"{self.url}/v2/{NAME}/{path}"
        sent = {**self.headers, **{n.replace("_", "-"): v for n, v in headers.items()}}
        return self.http.request(method, url, body=body, headers=sent)

    def push(self, tag: str, layer: bytes = LAYER) -> Any:
        for data in (CONFIG, layer):
            where = self.ask("POST", "blobs/uploads/").headers["Location"]
            done = self.ask("PUT", f"{where}&digest={digest_of(data)}", data)
            assert done.status == 201
        return self.ask("PUT", f"manifests/{tag}", manifest(layer), Content_Type=KIND)


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_repository_must_be_there_before_a_push(world: World) -> None:
    ecr = world.client("ecr")
    with pytest.raises(ClientError) as error:
        ecr.describe_repositories(repositoryNames=[NAME])
    assert code(error) == "RepositoryNotFoundException"
    pushing = Pushing(world)
    assert pushing.ask("POST", "blobs/uploads/").status == 404
    ecr.create_repository(repositoryName=NAME)
    with pytest.raises(ClientError) as error:
        ecr.create_repository(repositoryName=NAME)
    assert code(error) == "RepositoryAlreadyExistsException"
    assert pushing.push("1").status == 201
    assert world.everything() == [f"repository {NAME}"]
    stranger = World(world.double, world.root)
    assert Pushing(stranger).ask("GET", "manifests/1").status == 404
    assert stranger.everything() == []


def test_a_login_is_needed(world: World) -> None:
    world.client("ecr").create_repository(repositoryName=NAME)
    pushing = Pushing(world)
    pushing.headers = {}
    refused = pushing.ask("POST", "blobs/uploads/")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")


def test_tags_of_an_immutable_repository_stay(world: World) -> None:
    ecr = world.client("ecr")
    ecr.create_repository(repositoryName=NAME, imageTagMutability="IMMUTABLE")
    pushing = Pushing(world)
    assert pushing.push("1").status == 201
    again = pushing.push("1")
    assert (again.status, again.json()["errors"][0]["code"]) == (400, "TAG_INVALID")
    assert pushing.push("2", b"another").status == 201
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
    pushing = Pushing(world)
    pushing.push("1")
    pushing.push("2")
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

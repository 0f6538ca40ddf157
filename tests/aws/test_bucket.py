from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.aws.bucket import Bucket, ensure_bucket, find_bucket
from fastai_deploy.errors import AwsDenied, AwsMissing, NotOurs
from tests.aws.world import World
from tests.aws_double.faults import Fault


def made(world: World) -> Bucket:
    return ensure_bucket(world.aws(), None, world.events.append)


def test_our_bucket_is_closed_encrypted_versioned_and_cleans_up(world: World) -> None:
    bucket = made(world)
    assert bucket.name == f"fdeploy-{world.account}-{world.region}"
    s3 = world.client("s3")
    block = s3.get_public_access_block(Bucket=bucket.name)["PublicAccessBlockConfiguration"]
    assert all(block.values())
    assert len(block) == 4
    (deny,) = json.loads(s3.get_bucket_policy(Bucket=bucket.name)["Policy"])["Statement"]
    assert deny["Effect"] == "Deny"
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    rules = s3.get_bucket_encryption(Bucket=bucket.name)["ServerSideEncryptionConfiguration"]
    algorithm = rules["Rules"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]
    assert algorithm == "AES256"
    assert s3.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_it_is_made_once(world: World) -> None:
    first = made(world)
    world.double.do_wrong(world.account)
    assert made(world) == first
    calls = [call["operation"] for call in world.double.calls(world.account)]
    assert [call for call in calls if call.startswith("PUT")] == []


def test_what_was_interrupted_is_finished(world: World) -> None:
    world.double.do_wrong(
        world.account, Fault("deny", service="s3", operation="PUT bucket?versioning")
    )
    with pytest.raises(AwsDenied, match="s3:PutBucketVersioning"):
        made(world)
    world.double.do_wrong(world.account)
    bucket = made(world)
    assert world.client("s3").get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"


def test_in_the_first_region_of_aws_too(world: World) -> None:
    world.region = "us-east-1"
    assert made(world).name.endswith("-us-east-1")
    assert find_bucket(world.aws(), None) is not None


def test_another_accounts_bucket_is_refused(world: World, tmp_path: Path) -> None:
    """Someone else owns the bucket with our name: nothing may be uploaded to it."""
    stranger = World(world.double, tmp_path)
    name = f"fdeploy-{world.account}-{world.region}"
    stranger.client("s3").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": world.region}
    )
    with pytest.raises(NotOurs, match="does not belong to account"):
        made(world)


def test_the_users_own_bucket_is_left_as_it_is(world: World) -> None:
    s3 = world.client("s3")
    name = f"mine-{world.account}"
    with pytest.raises(AwsMissing, match=f"{name} .bucket in .project.. does not exist"):
        ensure_bucket(world.aws(), name, world.events.append)
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": world.region})
    bucket = ensure_bucket(world.aws(), name, world.events.append)
    assert not bucket.ours
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)


def test_a_bucket_in_another_region_is_refused(world: World) -> None:
    name = f"far-{world.account}"
    far: Any = world.double.session(world.account, "us-west-2").client
    far("s3").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    with pytest.raises(NotOurs, match="is in us-west-2, but the endpoint is deployed"):
        find_bucket(world.aws(), name)

"""The image of fdeploy's own server: decided at package, pushed at upload, served, torn down."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import pytest

from fastai_deploy.errors import (
    AwsDenied,
    AwsMissing,
    NotOurs,
    RecordStale,
    SettingsError,
    TargetUnavailable,
)
from fastai_deploy.image.base import fetch_base
from fastai_deploy.image.blobs import BlobStore
from fastai_deploy.image.build import (
    BASE_DIGEST,
    BASE_NAME,
    ServingImage,
    Wanted,
    container_of,
)
from fastai_deploy.image.names import MANIFEST, Reference
from fastai_deploy.image.registry import Repository
from fastai_deploy.packaging.wheels import Container
from fastai_deploy.progress import Warned
from fastai_deploy.records import Endpoint, StoredArtifact, Teardown
from fastai_deploy.stage_reports import Check
from fastai_deploy.targets.aws.operations import AwsOperations
from tests.aws.images import TinyImage
from tests.aws.permission_table import Deployer, asked, lacking
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.aws_double.process import Double
from tests.image.bases import SmallWheels, put_base
from tests.packaged import Model, pack
from tests.registry import running_registry
from tests.runtime.bundles import write_bundle

NAME = "fdeploy/demo"


@dataclass
class Images:
    """The images that fdeploy would make here: one for each processor, with OpenVINO or without."""

    release: int = 1
    unavailable: str = ""
    made: dict[str, TinyImage] = field(default_factory=dict)

    def __call__(self, wanted: Wanted) -> TinyImage:
        if self.unavailable:
            raise TargetUnavailable(self.unavailable, hint="name another base_image")
        tag = f"0.1.{self.release}-{wanted.machine}-00000000000{int(wanted.openvino)}"
        return self.made.setdefault(tag, TinyImage(tag, wanted.machine))


@pytest.fixture
def images(world: World) -> Images:
    found = Images()
    world.find_image = found
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model that was packed for the image of fdeploy's own server."""
    folder = tmp_path_factory.mktemp("bare")
    container = replace(container_of("x86_64"), image_tag=Images()(Wanted("x86_64")).tag)
    return pack(write_bundle(folder / "bundle"), folder / "model.tar.gz", container)


@pytest.fixture(scope="module")
def other_bare(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Another one, packed for the image of another version of fdeploy."""
    folder = tmp_path_factory.mktemp("other-bare")
    tag = Images(release=2)(Wanted("x86_64")).tag
    container = replace(container_of("x86_64"), image_tag=tag)
    bundle = write_bundle(folder / "bundle", layers=3)
    return pack(bundle, folder / "model.tar.gz", container)


def decided(world: World) -> Container:
    return world.target().container(decides=True)


def deployed(world: World, model: Model) -> tuple[StoredArtifact, Endpoint]:
    target = world.target()
    shutil.copytree(model.bundle.folder, world.root / "bundle", dirs_exist_ok=True)
    stored = target.upload(model.artifact)
    return stored, target.deploy(stored, model.verify)


def tags(world: World) -> list[list[str]]:
    found = world.client("ecr").describe_images(repositoryName=NAME)["imageDetails"]
    return sorted(image["imageTags"] for image in found)


def warnings(world: World) -> list[Warned]:
    return [event for event in world.events if isinstance(event, Warned)]


# The decision


def test_a_model_on_a_processor_gets_the_own_image(world: World, images: Images) -> None:
    container = decided(world)
    (image,) = images.made.values()
    assert container.complete
    assert (container.image_tag, container.machine) == (image.tag, "x86_64")
    assert (image.built, image.pushed) == (1, 0)
    assert world.everything() == []
    assert warnings(world) == []


def test_graviton_and_serverless_get_it_too(world: World, images: Images) -> None:
    world.flags = {("endpoint", "instance"): "ml.c7g.large"}
    assert decided(world).machine == "aarch64"
    world.flags = {("endpoint", "kind"): "serverless"}
    assert decided(world).machine == "x86_64"
    assert sorted(image.machine for image in images.made.values()) == ["aarch64", "x86_64"]


def test_an_image_that_is_in_ecr_is_not_built(world: World, images: Images, bare: Model) -> None:
    world.target().upload(bare.artifact)
    (image,) = images.made.values()
    image.built = 0
    assert decided(world).image_tag == image.tag
    assert image.built == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (("endpoint", "instance"), "ml.g5.xlarge"),
        (("endpoint", "server"), "ray-serve"),
        (("endpoint", "image"), "123456789012.dkr.ecr.eu-central-1.amazonaws.com/mine:1-py312"),
    ],
)
def test_other_settings_get_what_they_got(
    world: World, images: Images, setting: tuple[str, str], value: str
) -> None:
    world.flags = {setting: value}
    world.double.do_wrong(world.account)
    container = decided(world)
    assert not container.complete
    assert images.made == {}
    assert world.double.calls(world.account) == []


def test_an_image_of_the_users_own_may_be_of_the_own_server(world: World, images: Images) -> None:
    uri = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/copied:1"
    world.flags = {("endpoint", "image"): uri, ("endpoint", "server"): "fdeploy"}
    container = decided(world)
    assert (container.complete, container.image_tag) == (True, "")
    assert images.made == {}


@pytest.mark.parametrize("operation", ["DescribeRepositories", "GetAuthorizationToken"])
def test_who_may_not_use_ecr_gets_the_image_of_aws(
    world: World, images: Images, operation: str
) -> None:
    world.double.do_wrong(world.account, Fault("deny", service="ecr", operation=operation))
    assert not decided(world).complete
    (warned,) = warnings(world)
    assert f"ecr:{operation}" in warned.message
    assert "image of AWS serves the model" in warned.message
    assert "fdeploy doctor --policy" in warned.hint
    assert all(image.built == 0 for image in images.made.values())
    if operation == "DescribeRepositories":
        assert images.made == {}  # not even its base was looked for
    world.flags = {("endpoint", "server"): "fdeploy"}
    with pytest.raises(AwsDenied, match=f"ecr:{operation}"):
        decided(world)


def test_a_base_that_cannot_be_had(world: World, images: Images) -> None:
    images.unavailable = "the registry registry.example is not reached"
    assert not decided(world).complete
    (warned,) = warnings(world)
    assert "registry.example is not reached" in warned.message
    assert 'server = "ray-serve"' in warned.hint
    world.flags = {("endpoint", "server"): "fdeploy"}
    with pytest.raises(TargetUnavailable, match=r"registry\.example"):
        decided(world)


@pytest.mark.parametrize(("key", "value"), [("kind", "serverless"), ("instance", "ml.c7g.large")])
def test_the_way_out_names_the_image_that_aws_has(
    world: World, images: Images, key: str, value: str
) -> None:
    images.unavailable = "not reached"
    world.flags = {("endpoint", key): value}
    assert not decided(world).complete
    assert 'server = "torchserve"' in warnings(world)[0].hint


def test_a_repository_of_somebody_else(world: World, images: Images) -> None:
    world.client("ecr").create_repository(repositoryName=NAME)
    assert not decided(world).complete
    assert "was not made by fdeploy" in warnings(world)[0].message
    world.flags = {("endpoint", "server"): "fdeploy"}
    with pytest.raises(NotOurs):
        decided(world)
    assert all(image.pushed == 0 for image in images.made.values())


@pytest.mark.parametrize("instance", ["ml.g5.xlarge", "ml.p2.xlarge"])
def test_the_own_image_has_no_gpu(world: World, images: Images, instance: str) -> None:
    world.flags = {("endpoint", "server"): "fdeploy", ("endpoint", "instance"): instance}
    with pytest.raises(SettingsError, match=f"no libraries for the gpu of {instance}"):
        decided(world)
    assert images.made == {}


def test_what_was_decided_is_kept_without_asking(
    world: World, images: Images, bare: Model, model: Model
) -> None:
    images.unavailable = "not reached"
    world.double.do_wrong(world.account)
    target = world.target()
    assert target.container(bare.artifact).image_tag == bare.artifact.image_tag
    assert not target.container(model.artifact).complete
    assert world.double.calls(world.account) == []
    # Settings that leave no choice win.
    world.flags = {("endpoint", "server"): "torchserve"}
    assert not world.target().container(bare.artifact).complete
    world.flags = {("endpoint", "server"): "fdeploy"}
    assert world.target().container(model.artifact).complete


def test_an_outage_does_not_change_what_was_decided(
    world: World, images: Images, bare: Model
) -> None:
    world.double.do_wrong(world.account, Fault("unwell", service="ecr"))
    assert world.target().container(bare.artifact, decides=True).complete
    assert not decided(world).complete
    assert images.made == {}


# Upload and deploy


def test_the_image_is_pushed_and_serves(world: World, images: Images, bare: Model) -> None:
    stored, endpoint = deployed(world, bare)
    (image,) = images.made.values()
    assert image.pushed == 1
    assert tags(world) == [[image.tag, f"stage.dev.{image.tag}"]]
    assert stored.image.startswith(f"{world.account}.dkr.ecr.{world.region}.amazonaws.com/{NAME}@")
    assert endpoint.version == bare.artifact.version
    sagemaker = world.client("sagemaker")
    (made,) = sagemaker.list_models()["Models"]
    model = sagemaker.describe_model(ModelName=made["ModelName"])
    assert model["PrimaryContainer"]["Image"] == stored.image
    environment = model["PrimaryContainer"]["Environment"]
    assert not [
        name
        for name in environment
        if name.startswith(("RAY", "SAGEMAKER", "JAVA")) and name != "RAY_USAGE_STATS_ENABLED"
    ]
    iam = world.client("iam")
    role = model["ExecutionRoleArn"].rpartition("/")[2]
    policy = iam.get_role_policy(RoleName=role, PolicyName="fdeploy")["PolicyDocument"]
    (pull,) = [each for each in policy["Statement"] if each["Sid"] == "Image"]
    where = f"arn:aws:ecr:{world.region}:{world.account}:repository/{NAME}"
    assert pull["Resource"] == where
    # Nothing changes, and nothing is pushed again.
    world.double.do_wrong(world.account)
    deployed(world, bare)
    assert image.pushed == 1
    calls = {call["operation"] for call in world.double.calls(world.account)}
    assert not calls & {"PutImage", "CreateRepository", "ExecuteChangeSet"}


def test_a_serverless_endpoint_serves_from_it(world: World, images: Images, bare: Model) -> None:
    world.flags = {("endpoint", "kind"): "serverless"}
    stored, endpoint = deployed(world, bare)
    assert stored.image_tag in images.made
    answer = world.target().invoke(endpoint, {"text": "good"})
    assert answer["model"]["version"] == bare.artifact.version


def test_an_image_that_is_gone_is_pushed_again(world: World, images: Images, bare: Model) -> None:
    stored, _ = deployed(world, bare)
    world.client("ecr").delete_repository(repositoryName=NAME, force=True)
    world.target().deploy(stored, bare.verify)
    assert "it is made again" in world.said
    assert tags(world) == [[stored.image_tag, f"stage.dev.{stored.image_tag}"]]
    images.release = 2
    world.client("ecr").delete_repository(repositoryName=NAME, force=True)
    with pytest.raises(AwsMissing, match=r"in which version .* was proven is gone") as error:
        world.target().deploy(stored, bare.verify)
    assert "fdeploy up" in error.value.hint
    with pytest.raises(RecordStale, match="what it was made from has changed"):
        world.target().upload(bare.artifact)


@pytest.mark.usefixtures("images")
def test_another_processor_gets_its_image(world: World, bare: Model) -> None:
    stored, _ = deployed(world, bare)
    stored = replace(stored, instance="ml.m5.large")
    world.flags = {("endpoint", "instance"): "ml.c7g.large"}
    world.target().deploy(stored, bare.verify)
    assert [image[0].split("-")[1] for image in tags(world)] == ["aarch64", "x86_64"]


# Teardown


def teardown(world: World) -> Teardown:
    return world.target().teardown(artifacts=True)


@pytest.mark.usefixtures("images")
def test_a_teardown_leaves_no_image(world: World, bare: Model) -> None:
    stored, _ = deployed(world, bare)
    proof = teardown(world)
    assert f"image {NAME}:{stored.image_tag}" in proof.deleted
    assert f"image repository {NAME}" in proof.deleted
    assert (proof.left, proof.kept) == ((), ())
    assert world.everything() == []
    assert teardown(world).found == ()


def test_an_image_that_another_stage_uses_stays(
    world: World, images: Images, bare: Model, tmp_path: Path
) -> None:
    stored, _ = deployed(world, bare)
    (tmp_path / "prod").mkdir()
    prod = World(world.double, tmp_path / "prod", world.account, stage="prod", find_image=images)
    deployed(prod, bare)
    proof = teardown(world)
    assert f"image tag {NAME}:stage.dev.{stored.image_tag}" in proof.deleted
    assert proof.kept == (f"image {NAME}:{stored.image_tag}",)
    assert proof.left == ()
    assert not proof.keeps_artifacts
    assert tags(world) == [[stored.image_tag, f"stage.prod.{stored.image_tag}"]]
    assert f"image repository {NAME}" in teardown(prod).deleted
    assert world.everything() == []


@pytest.mark.usefixtures("images")
def test_who_may_not_delete_images_is_told(world: World, bare: Model) -> None:
    stored, _ = deployed(world, bare)
    denied = Fault("deny", service="ecr", operation="BatchDeleteImage")
    world.double.do_wrong(world.account, denied)
    world.clock = iter(range(0, 10_000, 30)).__next__
    proof = teardown(world)
    assert f"image {NAME}:{stored.image_tag}" in proof.left
    assert any("ecr:BatchDeleteImage" in warned.message for warned in warnings(world))
    world.double.do_wrong(world.account)
    assert teardown(world).left == ()
    assert world.everything() == []


def test_who_may_not_look_for_images_is_told(world: World, model: Model) -> None:
    world.double.do_wrong(world.account, Fault("deny", service="ecr"))
    deployed(world, model)
    assert teardown(world).left == ()
    (warned,) = [each for each in warnings(world) if "looked for in ECR" in each.message]
    assert "ecr:DescribeRepositories" in warned.message


# Reports, and going back


def checks(world: World, model: Model | None) -> dict[str, Check]:
    found = AwsOperations(world.target()).doctor(model.artifact if model else None).checks
    return {check.name: check for check in found}


@pytest.mark.usefixtures("images")
def test_a_plan_says_that_the_image_will_be_pushed(world: World, bare: Model) -> None:
    shutil.copytree(bare.bundle.folder, world.root / "bundle")
    operations = AwsOperations(world.target())
    plan = operations.plan(bare.artifact)
    assert any(change.type == "SageMaker::Model" for change in plan.changes)
    assert f"{NAME}:{bare.artifact.image_tag}: fdeploy's own server" in world.said
    assert "(fdeploy upload pushes it)" in world.said
    assert {each.what: each.per_month for each in plan.cost.extras}["image"] == Decimal("0.01")
    assert world.client("ecr").describe_repositories()["repositories"] == []
    stored, _ = deployed(world, bare)
    world.events.clear()
    AwsOperations(world.target()).plan(bare.artifact)
    assert stored.image.partition("@")[2] in world.said
    assert "pushes it" not in world.said


@pytest.mark.usefixtures("images")
def test_status_and_versions_name_the_image(world: World, bare: Model) -> None:
    stored, _ = deployed(world, bare)
    operations = AwsOperations(world.target())
    assert operations.status().image == stored.image
    (version,) = operations.versions()
    assert version.image == stored.image


def test_a_rollback_uses_the_image_that_the_version_was_proven_in(
    world: World, images: Images, bare: Model, other_bare: Model
) -> None:
    first, _ = deployed(world, bare)
    images.release = 2
    second, _ = deployed(world, other_bare)
    assert first.image != second.image
    endpoint = AwsOperations(world.target()).rollback(None)
    assert endpoint.version == bare.artifact.version
    assert AwsOperations(world.target()).status().image == first.image
    ids = [{"imageDigest": second.image.partition("@")[2]}]
    world.client("ecr").batch_delete_image(repositoryName=NAME, imageIds=ids)
    images.release = 3
    with pytest.raises(AwsMissing, match=f"version {other_bare.artifact.version} was proven"):
        AwsOperations(world.target()).rollback(None)


def test_a_rollback_to_an_image_of_aws(
    world: World, images: Images, bare: Model, model: Model
) -> None:
    world.flags = {("endpoint", "server"): "ray-serve"}
    deployed(world, model)
    world.flags = {}
    deployed(world, bare)
    assert images.made
    AwsOperations(world.target()).rollback(None)
    assert "/ray@sha256:" in AwsOperations(world.target()).status().image


def test_a_template_needs_no_credentials_and_no_image(world: World, bare: Model) -> None:
    shutil.copytree(bare.bundle.folder, world.root / "bundle")
    text = AwsOperations(world.target()).template(bare.artifact).stacks["demo-dev-endpoint"]
    assert f"{NAME}:{bare.artifact.image_tag}" in text


@pytest.mark.usefixtures("images")
def test_doctor_before_and_after_the_push(world: World, bare: Model) -> None:
    shutil.copytree(bare.bundle.folder, world.root / "bundle")
    found = checks(world, bare)
    assert found["image"].message.startswith("the next upload pushes ")
    assert "base image" not in found
    assert found["artifact"].outcome == "passed"
    world.target().upload(bare.artifact)
    assert checks(world, bare)["image"].message.startswith(f"{world.account}.dkr.ecr.")
    world.flags = {("endpoint", "server"): "fdeploy"}
    assert checks(world, None)["image"].outcome == "passed"


def test_doctor_says_when_the_base_was_patched(world: World, bare: Model) -> None:
    shutil.copytree(bare.bundle.folder, world.root / "bundle")
    with running_registry() as registry:
        digest = registry.put_image("python", "3.13-slim")
        name = f"{registry.address}/python:3.13-slim"
        image = TinyImage(bare.artifact.image_tag, labels={BASE_NAME: name, BASE_DIGEST: digest})
        world.find_image = lambda _wanted: image
        world.target().upload(bare.artifact)
        check = checks(world, bare)["base image"]
        assert (check.outcome, digest in check.message) == ("passed", True), check
        newer = registry.put_image("python", "3.13-slim", layers=[b"patched"])
        check = checks(world, bare)["base image"]
        assert (check.outcome, newer in check.message) == ("warned", True)
        assert check.hint == "run fdeploy up --pull"
    check = checks(world, bare)["base image"]
    assert (check.outcome, "is unknown" in check.message) == ("warned", True)


# The base


@dataclass
class Based:
    """Images on the base that is wanted, or else on the one that its tag names now."""

    now: str = "sha256:" + "a" * 64
    name: str = "public.ecr.aws/docker/library/python:3.13-slim"
    wanted: list[Wanted] = field(default_factory=list)

    def __call__(self, wanted: Wanted) -> TinyImage:
        self.wanted.append(wanted)
        digest = wanted.base or self.now
        labels = {BASE_NAME: self.name, BASE_DIGEST: digest}
        tag = f"0.1.0-{wanted.machine}-{digest[7:19]}"
        return TinyImage(tag, wanted.machine, f"{self.name}@{digest}", labels=labels)


@pytest.fixture
def based(world: World) -> Based:
    found = Based()
    world.find_image = found
    return found


def pushed(world: World, bare: Model, container: Container) -> StoredArtifact:
    """The artifact, uploaded with the image that was decided."""
    artifact = replace(
        bare.artifact, image_tag=container.image_tag, image_base=container.image_base
    )
    return world.target().upload(artifact)


def test_the_base_in_use_is_kept(world: World, based: Based, bare: Model) -> None:
    first = decided(world)
    assert (based.wanted[-1].base, first.image_base) == ("", based.now)
    stored = pushed(world, bare, first)
    assert stored.image_base == first.image_base
    before, based.now = based.now, "sha256:" + "b" * 64
    assert decided(world) == first
    assert based.wanted[-1].base == before
    # What is asked for is taken; until it is deployed, the others keep to what is live.
    shutil.copytree(bare.bundle.folder, world.root / "bundle")
    world.target().deploy(stored, bare.verify)
    patched = world.target().container(decides=True, pull=True)
    assert (based.wanted[-1].pull, patched.image_base) == (True, based.now)
    newer = pushed(world, bare, patched)
    assert decided(world) == first
    world.target().deploy(newer, bare.verify)
    assert decided(world) == patched


def test_another_base_in_the_settings_is_taken(world: World, based: Based, bare: Model) -> None:
    pushed(world, bare, decided(world))
    based.name = "registry.example/python:3.13"
    world.flags = {("package", "base_image"): based.name}
    decided(world)
    assert based.wanted[-1].base == ""


def test_a_base_that_cannot_be_read_is_asked_for(world: World, based: Based, bare: Model) -> None:
    first = decided(world)
    pushed(world, bare, first)
    denied = Fault("deny", service="ecr", operation="GetAuthorizationToken")
    world.double.do_wrong(world.account, denied)
    assert decided(world) == first
    assert based.wanted[-1].base == ""
    assert "which base the image in use has is unknown" in world.said


def test_an_image_is_made_again_on_its_own_base(world: World, based: Based, bare: Model) -> None:
    first = decided(world)
    stored = pushed(world, bare, first)
    shutil.copytree(bare.bundle.folder, world.root / "bundle")
    based.now = "sha256:" + "b" * 64
    world.client("ecr").delete_repository(repositoryName=NAME, force=True)
    world.target().deploy(stored, bare.verify)
    assert tags(world) == [[first.image_tag, f"stage.dev.{first.image_tag}"]]


def test_a_newer_base_that_cannot_be_had_changes_no_server(world: World, images: Images) -> None:
    images.unavailable = "the registry does not answer"
    assert not decided(world).complete
    with pytest.raises(TargetUnavailable, match="does not answer"):
        world.target().container(decides=True, pull=True)


def test_doctor_says_who_may_not_have_the_own_image(world: World, images: Images) -> None:
    iam = world.client("iam")
    printed = AwsOperations(world.target()).policies().documents
    arn = iam.create_user(UserName="ada")["User"]["Arn"]
    for name, document in printed.items():
        iam.put_user_policy(UserName="ada", PolicyName=name, PolicyDocument=json.dumps(document))
    world.double.behave(world.account, caller=arn)
    found = checks(world, None)
    assert {name: found[name].outcome for name in ("permissions", "own image")} == {
        "permissions": "passed",
        "own image": "passed",
    }
    iam.delete_user_policy(UserName="ada", PolicyName="images")
    found = checks(world, None)
    assert found["permissions"].outcome == "passed"
    assert found["own image"].outcome == "warned"
    assert "ecr:PutImage" in found["own image"].message
    world.flags = {("endpoint", "server"): "fdeploy"}
    assert "ecr:PutImage" in checks(world, None)["permissions"].message
    world.flags = {("endpoint", "server"): "ray-serve"}
    assert "own image" not in checks(world, None)
    assert images.made == {}


def test_a_role_of_the_users_own_may_pull_either_image(world: World) -> None:
    role = f"arn:aws:iam::{world.account}:role/mine"
    world.flags = {("project", "execution_role"): role}
    document = AwsOperations(world.target()).policies().documents["execution-role"]
    (pull,) = [each for each in document["Statement"] if each["Sid"] == "Image"]
    assert pull["Resource"] == [
        f"arn:aws:ecr:{world.region}:763104351884:repository/ray",
        f"arn:aws:ecr:{world.region}:{world.account}:repository/{NAME}",
    ]


# Permissions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model for the image of the permission table."""
    folder = tmp_path_factory.mktemp("tiny")
    container = replace(container_of("x86_64"), image_tag=TinyImage().tag)
    return pack(write_bundle(folder / "bundle"), folder / "model.tar.gz", container)


def test_the_printed_policies_are_enough_for_the_image(
    double: Double, tiny: Model, tmp_path: Path
) -> None:
    found = {action for action in asked(double, tiny, tmp_path) if action.startswith("ecr:")}
    assert found == {
        f"ecr:{action}"
        for action in (
            *("BatchDeleteImage", "BatchGetImage", "CompleteLayerUpload", "CreateRepository"),
            *("DeleteRepository", "DescribeImages", "DescribeRepositories"),
            *("GetAuthorizationToken", "InitiateLayerUpload", "ListTagsForResource", "PutImage"),
            "PutLifecyclePolicy",
        )
    }


@pytest.mark.parametrize(
    "action", ["ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:BatchDeleteImage"]
)
def test_one_permission_for_images_is_missing(
    double: Double, tiny: Model, tmp_path: Path, action: str
) -> None:
    row = lacking(double, tiny, tmp_path, action)
    assert row.good, row
    for outcome in (row.up, row.teardown):
        assert not outcome.failed or row.names(outcome), row
    assert row.up.failed == (action != "ecr:BatchDeleteImage")


def test_who_may_not_push_gets_the_image_of_aws(world: World, images: Images, model: Model) -> None:
    deployer = Deployer(world, model)
    assert decided(world).complete
    deployer.allow(without="ecr:UploadLayerPart")
    images.made.clear()
    assert not decided(world).complete
    assert "ecr:UploadLayerPart" in warnings(world)[-1].message
    assert all(image.built == 0 for image in images.made.values())


# The image itself


def test_an_image_that_fdeploy_builds_is_pushed_and_serves(
    world: World, bare: Model, tmp_path: Path
) -> None:
    """Layers on a base of another registry, pushed over ECR's, and the code in it serves."""
    with running_registry(access="token", redirects=True) as registry:
        put_base(registry)
        named = Reference.parse(f"{registry.address}/library/python:3.13-slim")
        store = BlobStore(tmp_path / "image")
        base = fetch_base(named, "x86_64", store, Repository(named.place), print)
    wheels = SmallWheels(tmp_path / "wheels")

    def find(_wanted: Wanted) -> ServingImage:
        return ServingImage(base.reference, "x86_64", lambda: base, store, print, wheels=wheels)

    world.find_image = find
    tag = decided(world).image_tag
    packed = replace(bare, artifact=replace(bare.artifact, image_tag=tag))
    stored, _ = deployed(world, packed)
    assert tags(world) == [[tag, f"stage.dev.{tag}"]]
    assert stored.image.endswith(find(Wanted("x86_64")).build().manifest(MANIFEST).digest)
    check = checks(world, packed)["base image"]
    assert (check.outcome, "is unknown" in check.message) == ("warned", True)
    world.client("ecr").delete_repository(repositoryName=NAME, force=True)
    world.target().deploy(stored, packed.verify)  # the same bytes, and so the same digest
    assert AwsOperations(world.target()).status().image == stored.image
    assert teardown(world).left == ()
    assert world.everything() == []

"""The decision for the own image is kept in the records: it is made by package and by no other."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fastai_deploy import freshness, stages
from fastai_deploy.errors import RecordStale, TargetUnavailable
from fastai_deploy.files import sha256
from fastai_deploy.image.build import Wanted
from fastai_deploy.packaging.artifact import read_contents
from fastai_deploy.progress import StageFinished
from fastai_deploy.project import Project
from fastai_deploy.records import Artifact, Bundle, Source
from fastai_deploy.targets.aws.operations import AwsOperations
from fastai_deploy.workspace import Workspace
from tests.aws.images import TinyImage
from tests.aws.world import World
from tests.aws_double.faults import Fault
from tests.packaged import Model


@dataclass
class Released:
    """The image of one release of fdeploy after the other."""

    release: int = 1
    image: TinyImage = field(default_factory=TinyImage)

    def __call__(self, wanted: Wanted) -> TinyImage:
        assert not wanted.openvino
        self.image = TinyImage(f"0.1.{self.release}-{wanted.machine}-0123456789ab")
        return self.image


@pytest.fixture
def released(world: World) -> Released:
    found = Released()
    world.find_image = found
    return found


@pytest.fixture
def bundle(world: World, model: Model) -> Bundle:
    """The bundle of the stage, as export leaves it."""
    workspace = Workspace(world.root, world.stage)
    shutil.copytree(model.bundle.folder, workspace.bundle)
    manifest = workspace.bundle / "manifest.json"
    made = Bundle(
        path=str(workspace.bundle),
        version=sha256(manifest),
        name="demo",
        task="classification",
        labels=("a", "b"),
        proven=1,
        max_difference=0.0,
        source=Source(str(world.root / "gone.pkl"), "0" * 64, 1, 0),
        golden=None,
        made_from="test",
    )
    workspace.save(made)
    return made


def project(world: World) -> Project:
    """The project, as each command opens it."""
    target = world.target()
    workspace = Workspace(world.root, world.stage)
    return Project(
        world.settings, workspace, lambda: (target, AwsOperations(target)), world.events.append
    )


def packaged(world: World, bundle: Bundle) -> Artifact:
    return stages.package(project(world), bundle)


def test_the_artifact_has_the_model_alone(world: World, released: Released, bundle: Bundle) -> None:
    artifact = packaged(world, bundle)
    assert (artifact.server, artifact.image_tag) == ("fdeploy", released.image.tag)
    assert artifact.backend_url == ""
    contents = read_contents(Path(artifact.path))
    assert (contents.bare, contents.wheels) == (True, ())
    again = packaged(world, bundle)
    assert again == artifact
    assert [e.summary for e in world.events if isinstance(e, StageFinished)][-1].endswith(
        "unchanged"
    )


def test_later_commands_do_not_ask(world: World, released: Released, bundle: Bundle) -> None:
    stored = stages.upload(project(world), packaged(world, bundle))
    assert (stored.server, stored.image_tag) == ("fdeploy", released.image.tag)
    world.double.do_wrong(world.account, Fault("deny", service="ecr"))
    assert freshness.stored(project(world)) == stored
    assert not freshness.needs_repackaging(project(world))
    assert world.double.calls(world.account) == []


def test_a_newer_image_is_to_be_uploaded(world: World, released: Released, bundle: Bundle) -> None:
    first = packaged(world, bundle)
    stages.upload(project(world), first)
    released.release = 2
    second = packaged(world, bundle)
    assert (second.sha256, second.image_tag) == (first.sha256, released.image.tag)
    with pytest.raises(RecordStale, match="container image has changed") as error:
        freshness.stored(project(world))
    assert error.value.hint == "run fdeploy upload"
    stored = stages.upload(project(world), second)
    assert freshness.stored(project(world)) == stored


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(("key", "value"), [("server", "ray-serve"), ("instance", "ml.g5.xlarge")])
def test_settings_that_choose_another_image_make_it_stale(
    world: World, bundle: Bundle, key: str, value: str
) -> None:
    stages.upload(project(world), packaged(world, bundle))
    world.flags = {("endpoint", key): value}
    with pytest.raises(RecordStale, match="the container image has changed"):
        freshness.artifact(project(world))
    assert freshness.needs_repackaging(project(world))


def test_an_artifact_of_before_stays_current(world: World, bundle: Bundle) -> None:
    """One that was packed for AWS's image is not stale because the own image could be had."""

    def unavailable(_wanted: Wanted) -> TinyImage:
        raise TargetUnavailable("not reached", hint="none")

    workspace = Workspace(world.root, world.stage)
    container = project(world).target.container()
    made_from = freshness.package_digest(project(world), bundle, container)
    fits = freshness.compatibility(container)
    workspace.artifact.write_bytes(b"packed")
    before = Artifact(str(workspace.artifact), "0" * 64, 6, made_from, fits)
    workspace.save(before)
    world.find_image = unavailable
    assert freshness.artifact(project(world)) == before

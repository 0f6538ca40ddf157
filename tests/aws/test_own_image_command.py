"""The real command against the double, with an image that it builds of real wheels and pushes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.packaging.wheels import default_cache
from tests.aws.stage import fresh_account
from tests.aws_double.account import everything
from tests.aws_double.process import REGION, Double
from tests.conftest import Fdeploy, Outcome
from tests.flow.learners import CONVERTIBLE, bring
from tests.image.bases import put_base
from tests.packaged import SMALL_BURST
from tests.registry import Registry, running_registry

PATCHED = {"created": "2026-12-01T00:00:00Z"}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        put_base(running)
        yield running


class Machine:
    """A machine with a clone of the project, and a cache in which there are wheels alone."""

    def __init__(self, folder: Path, double: Double, account: str, registry: Registry) -> None:
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        cache = folder / "cache" / "fastai-deploy"
        cache.mkdir(parents=True)
        (cache / "wheels").symlink_to(default_cache())
        learner, golden = bring(CONVERTIBLE[2], self.project)
        (self.project / "fdeploy.toml").write_text(
            f'[project]\nname = "demo"\nid = "d3m0d3m0d3m0"\nregion = "{REGION}"\n'
            f'[model]\nlearner = "{learner}"\ngolden = "{golden}"\nquantize = "none"\n'
            f"{SMALL_BURST}[stages.prod]\n"
        )
        self.environ = {
            **double.environment(account),
            "FDEPLOY_PACKAGE_BASE_IMAGE": f"{registry.address}/library/python:3.13-slim",
            "XDG_CACHE_HOME": str(cache.parent),
        }
        self.run = Fdeploy(self.project, self.environ)

    def checks(self) -> dict[str, Any]:
        return {each["name"]: each for each in self.run("doctor", "--json").json["checks"]}


def served(session: Any) -> str:
    """The image that serves the stage."""
    stacks = session.client("cloudformation").describe_stacks(StackName="demo-dev-endpoint")
    (image,) = [
        each["ParameterValue"]
        for each in stacks["Stacks"][0]["Parameters"]
        if each["ParameterKey"] == "Image"
    ]
    return str(image)


def changes(planned: Outcome) -> int:
    assert planned.status in (0, 15), planned.stderr
    return len(planned.json["changes"])


def test_an_image_keeps_its_base_on_every_machine(
    double: Double, registry: Registry, tmp_path: Path
) -> None:
    account = fresh_account()
    session = double.session(account)
    laptop = Machine(tmp_path / "laptop", double, account, registry)
    laptop.run.ok("up")
    first = served(session)
    assert "/fdeploy/demo@sha256:" in first

    # The base is patched. A fresh clone asks its registry for nothing, and changes nothing.
    put_base(registry, config=PATCHED)
    clone = Machine(tmp_path / "clone", double, account, registry)
    registry.trouble()
    assert changes(clone.run("plan", "--json")) == 0
    assert "demo-dev-endpoint is up to date" in clone.run.ok("up").stderr
    assert registry.asked == []
    assert served(session) == first

    # One command takes the patch; the other machine follows.
    assert laptop.checks()["base image"]["hint"] == "run fdeploy up --pull"
    assert changes(clone.run("plan", "--pull", "--json")) > 0
    assert served(session) == first
    clone.run.ok("up", "--pull")
    second = served(session)
    assert second != first
    assert laptop.checks()["base image"]["outcome"] == "passed"
    assert changes(laptop.run("plan", "--json")) == 0

    # Another stage has the same image: nothing is pushed. The last one removes it.
    before = session.client("ecr").describe_images(repositoryName="fdeploy/demo")["imageDetails"]
    clone.run.ok("up", "--stage", "prod")
    after = session.client("ecr").describe_images(repositoryName="fdeploy/demo")["imageDetails"]
    assert {each["imageDigest"] for each in after} == {each["imageDigest"] for each in before}
    proof = clone.run.ok("teardown", "--artifacts", "--json").json
    assert [each for each in proof["kept"] if each.startswith("image fdeploy/demo:")]
    proof = clone.run.ok("teardown", "--stage", "prod", "--artifacts", "--json").json
    assert (proof["left"], proof["kept"]) == ([], [])
    assert everything(session) == []
    double.end(account)


def test_ctrl_c_in_the_middle_of_a_push(double: Double, registry: Registry, tmp_path: Path) -> None:
    account = fresh_account()
    machine = Machine(tmp_path, double, account, registry)
    machine.run.ok("export")
    machine.run.ok("package")
    with subprocess.Popen(
        [sys.executable, "-m", "fastai_deploy", "upload"],
        cwd=machine.project,
        env={**os.environ, **machine.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "pushing the image: layer 2 of" in line:
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read()
        assert process.wait() == 130, said
    assert "Traceback" not in said
    assert not (machine.project / ".fdeploy/dev/upload.json").exists()
    ecr = double.session(account).client("ecr")
    assert ecr.describe_images(repositoryName="fdeploy/demo")["imageDetails"] == []
    refused = machine.run("deploy", "--json")
    assert refused.error["hint"] == "run fdeploy upload"
    machine.run.ok("upload")
    (image,) = ecr.describe_images(repositoryName="fdeploy/demo")["imageDetails"]
    assert len(image["imageTags"]) == 2
    assert machine.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert not [each for each in (tmp_path / "cache").rglob(".*") if each.is_file()]
    double.end(account)

"""The choice of the container image, compared with AWS's own SDK."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore
import pytest

from fastai_deploy.aws.capacity import Instance, instance, known_types
from fastai_deploy.aws.images import (
    RULES,
    Image,
    ImageTables,
    choose_image,
    domain,
    installed_tables,
)
from fastai_deploy.errors import SettingsError, TargetUnavailable

TABLES = installed_tables()
KNOWN = known_types()


def image(name: str, region: str = "eu-central-1", **options: Any) -> Image:
    return choose_image(TABLES, instance(name, KNOWN), region=region, **options)


AWS, RAY = "763104351884.dkr.ecr", "ray:serve-ml-sagemaker"
GPU_AMI, NEW_GPU_AMI = (
    "al2-ami-sagemaker-inference-gpu-3-1",
    "al2023-ami-sagemaker-inference-gpu-4-1",
)


@dataclass(frozen=True)
class Expected:
    """The expected image of an instance type in a region."""

    name: str
    region: str
    uri: str
    python: str
    platform: str
    ami: str | None = None


@pytest.mark.parametrize(
    "expected",
    [
        Expected(
            "ml.m5.large",
            "eu-central-1",
            f"{AWS}.eu-central-1.amazonaws.com/{RAY}-cpu-v1",
            "3.13",
            "2_34_x86_64",
        ),
        Expected(
            "ml.g5.xlarge",
            "us-gov-west-1",
            f"442386744353.dkr.ecr.us-gov-west-1.amazonaws.com/{RAY}-cuda-v1",
            "3.13",
            "2_34_x86_64",
            GPU_AMI,
        ),
        Expected(
            "ml.g7e.2xlarge",
            "us-east-1",
            f"{AWS}.us-east-1.amazonaws.com/{RAY}-cuda-v1",
            "3.13",
            "2_34_x86_64",
            NEW_GPU_AMI,
        ),
        Expected(
            "ml.c7g.large",
            "eu-central-1",
            f"{AWS}.eu-central-1.amazonaws.com/pytorch-inference-arm64"
            ":2.6.0-cpu-py312-ubuntu22.04-sagemaker",
            "3.12",
            "2_35_aarch64",
        ),
        Expected(
            "ml.p2.xlarge",
            "us-east-1",
            f"{AWS}.us-east-1.amazonaws.com/pytorch-inference:1.12.1-gpu-py38",
            "3.8",
            "2_31_x86_64",
        ),
        Expected(
            "ml.p3.2xlarge",
            "us-east-1",
            f"{AWS}.us-east-1.amazonaws.com/pytorch-inference:2.6.0-gpu-py312",
            "3.12",
            "2_35_x86_64",
        ),
        Expected(
            "ml.m5.large",
            "cn-north-1",
            f"727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/{RAY}-cpu-v1",
            "3.13",
            "2_34_x86_64",
        ),
    ],
    ids=lambda expected: f"{expected.name} {expected.region}",
)
def test_each_kind_of_instance_gets_its_image(expected: Expected) -> None:
    found = image(expected.name, expected.region)
    assert (found.uri, found.python) == (expected.uri, expected.python)
    assert found.platform == f"manylinux_{expected.platform}"
    assert found.inference_ami == expected.ami
    assert found.accelerator == ("gpu" if expected.name.split(".")[1][0] in "pg" else "cpu")
    assert found.reason


@pytest.mark.parametrize("name", ["ml.p2.xlarge", "ml.p3.2xlarge"])
def test_an_old_gpu_is_warned_about_with_what_lives(name: str) -> None:
    (warning,) = image(name, "us-east-1").warnings
    assert all(family in warning for family in ("g4dn", "g5", "g6"))


def test_an_image_that_gets_patches_has_no_warning_and_others_have() -> None:
    assert image("ml.m5.large").warnings == ()
    assert image("ml.g5.xlarge").warnings == ()
    (warning,) = image("ml.m5.large", server="torchserve").warnings
    assert "2026-06-30" in warning
    assert "2026-06-30" in image("ml.c7g.large").warnings[0]


def test_torchserve_is_there_for_who_asks() -> None:
    found = image("ml.g5.xlarge", server="torchserve")
    assert found.repository == "pytorch-inference"
    assert found.inference_ami is None


def test_a_region_without_the_patched_image_gets_the_other_and_is_told(tmp_path: Path) -> None:
    for name in ("pytorch", "ray-serve"):
        table = json.loads((_folder() / f"{name}.json").read_bytes())
        if name == "ray-serve":
            for entry in table["versions"].values():
                entry["registries"] = {"us-east-1": "1" * 12}
        (tmp_path / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
    found = choose_image(ImageTables(tmp_path), Instance("ml.m5.large"), region="eu-central-1")
    assert found.family == "torchserve"
    assert "the ray-serve image is not in eu-central-1" in found.reason


@pytest.mark.parametrize(
    ("name", "region", "options", "message", "hint"),
    [
        ("ml.p2.xlarge", "me-west-1", {}, "no torchserve image for ml.p2.xlarge", "eu-central-1"),
        ("ml.p2.xlarge", "us-east-1", {"server": "ray-serve"}, "no ray-serve image", "auto"),
        ("ml.c7g.large", "us-east-1", {"server": "ray-serve"}, "no ray-serve image", "auto"),
        ("ml.p6-b200.48xlarge", "us-east-1", {"server": "torchserve"}, "no torchserve", "auto"),
        ("ml.inf2.xlarge", "us-east-1", {}, "cannot use", "ml.g5.xlarge"),
        ("ml.trn1.2xlarge", "us-east-1", {}, "cannot use", "ml.m5.large"),
        ("ml.dl1.24xlarge", "us-east-1", {}, "cannot use", "ml.m5.large"),
        ("ml.p6e-gb200.36xlarge", "us-east-1", {}, "no PyTorch serving image", "ml.g6.xlarge"),
        ("ml.m5.large", "mars-north-1", {}, "in mars-north-1", "us-east-1"),
    ],
)
def test_what_has_no_image_is_refused_with_the_way_out(
    name: str, region: str, options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        image(name, region, **options)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ml.m5.larg", "ml.m5.large"),
        ("ml.g5.xxlarge", "ml.g5.xlarge"),
        ("ml.p2.2xlarge", "ml.p2.xlarge"),
        ("ml.zzz.nano", "ml.m5.large"),
    ],
)
def test_an_unknown_instance_type_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingsError, match=f"no instance type {name}") as caught:
        instance(name, KNOWN)
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "family", "python", "repository"),
    [
        (
            "1.dkr.ecr.x/pytorch-inference:2.5.1-cpu-py311",
            "torchserve",
            "3.11",
            "pytorch-inference",
        ),
        ("1.dkr.ecr.x/ray:serve-ml-sagemaker-cpu-v1.3", "ray-serve", None, "ray"),
        ("1.dkr.ecr.x/team/own@sha256:00", "torchserve", None, "team/own"),
    ],
)
def test_the_users_own_image_is_taken_as_it_is(
    uri: str, family: str, python: str | None, repository: str
) -> None:
    found = image("ml.m5.large", override=uri)
    assert (found.uri, found.family, found.python) == (uri, family, python)
    assert (found.registry, found.repository) == ("1", repository)


def test_every_instance_type_gets_an_image_or_a_reason() -> None:
    refused = {Instance(name).family for name in KNOWN if not has_image(name)}
    assert refused == {"inf1", "inf2", "trn1", "trn1n", "trn2", "dl1", "p6e-gb200"}


def has_image(name: str) -> bool:
    try:
        return bool(image(name, "us-east-1").uri)
    except SettingsError as error:
        return not error.hint


def test_the_sdk_would_take_the_same_images() -> None:
    """In a separate process, because the SDK's core imports many libraries."""
    asked = [
        ("ml.p2.xlarge", "1.12.1", "py38", "us-east-1"),
        ("ml.p3.2xlarge", "2.6.0", "py312", "us-west-2"),
        ("ml.c7g.large", "2.6.0", "py312", "eu-west-1"),
        ("ml.c7g.large", "2.6.0", "py312", "cn-north-1"),
        ("ml.m5.large", "2.5.1", "py311", "eu-central-1"),
        ("ml.g5.xlarge", "2.2.0", "py310", "eu-central-1"),
        ("ml.p3.2xlarge", "1.13.1", "py39", "eu-central-1"),
        ("ml.c7g.large", "2.4.0", "py311", "eu-central-1"),
        ("ml.c7g.large", "1.12.1", "py38", "eu-central-1"),
    ]
    code = (
        "import json, sys; from sagemaker.core import image_uris\n"
        "print(json.dumps([image_uris.retrieve(framework='pytorch', region=region, "
        "version=version, py_version=python, instance_type=instance, image_scope='inference') "
        "for instance, version, python, region in json.loads(sys.argv[1])]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == [
        image(name, region, python=f"3.{python[3:]}").uri for name, _, python, region in asked
    ]


def test_reading_the_tables_imports_nothing_heavy() -> None:
    code = (
        "import json, sys; from fastai_deploy.aws.images import installed_tables\n"
        "from fastai_deploy.aws.images import choose_image\n"
        "from fastai_deploy.aws.capacity import Instance\n"
        "choose_image(installed_tables(), Instance('ml.m5.large'), region='eu-central-1')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sagemaker", "torch", "boto3", "pandas"} & set(json.loads(done.stdout))


def test_the_domains_are_those_of_botocore() -> None:
    path = Path(botocore.__file__).parent / "data/partitions.json"
    for partition in json.loads(path.read_bytes())["partitions"]:
        for region in partition["regions"]:
            if not region.endswith("-global"):
                assert domain(region) == partition["outputs"]["dnsSuffix"], region


def test_tables_that_lack_a_release_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "ray-serve.json").write_text('{"versions": {}}', encoding="utf-8")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(TargetUnavailable, match="lists no ray-serve") as caught:
            choose_image(ImageTables(folder), Instance("ml.m5.large"), region="us-east-1")
        assert "sagemaker-core" in caught.value.hint


def test_every_rule_names_a_release_that_there_is() -> None:
    for rule in RULES:
        release = TABLES.release(*rule.table)
        assert release.registries
        assert release.python in (None, f"py{rule.python.replace('.', '')}")


def _folder() -> Path:
    spec = importlib.util.find_spec("sagemaker")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "core", "image_uri_config")

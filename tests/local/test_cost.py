"""``fdeploy cost`` without an AWS account: from the list prices that ship."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fastai_deploy.records import Endpoint
from fastai_deploy.workspace import Workspace
from tests.conftest import Fdeploy
from tests.packaged import bring, write_model


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    bring(write_model(folder, "first"), folder)
    (folder / "fdeploy.toml").write_text("[endpoint.serverless]\nmemory = 3072\n")
    return folder


@pytest.fixture
def cost(packaged: Path, tmp_path: Path) -> Fdeploy:
    """The command where no AWS can be reached."""
    environ = {
        "XDG_CACHE_HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    return Fdeploy(packaged, environ)


def test_the_prices_that_ship(cost: Fdeploy) -> None:
    found = cost.ok("cost", "--rate", "40", "--region", "eu-west-1", "--json").json
    assert (found["region"], found["published"]) == ("eu-west-1", "2026-09-22")
    assert found["source"].startswith("https://pricing.us-east-1.amazonaws.com/")
    assert found["stages"] == []
    prices = [float(each["per_hour"]) for each in found["instances"] if not each["chosen"]]
    assert prices == sorted(prices)
    assert found["cheapest"].startswith("ml.")
    assert found["break_even"] > 0
    assert float(found["serverless"]["idle_per_month"]) == 0
    assert found["usage"]["latency_ms"] == 25


def test_the_table_for_people(cost: Fdeploy) -> None:
    shown = cost.ok("cost", "--instance", "ml.m5.large", "--region", "eu-west-1").stdout
    assert "* ml.m5.large" in shown
    assert "the price per million needs a rate" in shown
    assert "cheapest" in shown


def test_without_a_region_it_is_said_whose_prices_these_are(cost: Fdeploy) -> None:
    found = cost.ok("cost", "--json").json
    assert found["region"] == "us-east-1"
    assert "no region is set: prices of us-east-1" in found["notes"]


def test_a_region_without_a_source_is_unknown(cost: Fdeploy) -> None:
    found = cost.ok("cost", "--region", "ap-south-1", "--rate", "40", "--json").json
    assert found["cheapest"] is None
    assert found["published"] == ""
    assert all(each["per_hour"] is None for each in found["instances"])


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--rate", "0"), 2),
        (("--rate", "fast"), 2),
        (("--latency", "-1"), 2),
        (("--refresh", "--offline"), 2),
        (("--refresh", "--region", "eu-west-1"), 14),  # there are no credentials
    ],
)
def test_wrong_options(cost: Fdeploy, options: tuple[str, ...], status: int) -> None:
    assert cost("cost", *options, "--json").status == status


def test_before_anything_is_exported(tmp_path: Path) -> None:
    found = Fdeploy(tmp_path, {"XDG_CACHE_HOME": str(tmp_path)}).ok("cost", "--json").json
    assert found["cheapest"]
    assert any("nothing is exported yet" in note for note in found["notes"])


def test_a_stage_on_aws_whose_bill_is_out_of_reach(cost: Fdeploy) -> None:
    deployed = Endpoint("aws", "demo-prod", "https://x", "0" * 12, "0" * 64, "eu-west-1")
    workspace = Workspace(cost.folder, "prod")
    workspace.save(deployed)
    try:
        ran = cost.ok("cost", "--region", "eu-west-1", "--json")
        assert cost.ok("cost", "--offline", "--json").json["stages"] == []
    finally:
        shutil.rmtree(workspace.folder)
    (bill,) = ran.json["stages"]
    assert (bill["stage"], bill["per_hour"], bill["this_month"]) == ("prod", None, None)
    assert bill["note"]
    assert ran.json["published"] == "2026-09-22"
    assert "prices were not refreshed" in ran.stderr


def test_a_damaged_load_test_is_as_none(cost: Fdeploy) -> None:
    (cost.folder / ".fdeploy/dev/bench.json").write_text('{"advice": {}}')
    found = cost.ok("cost", "--json").json
    assert found["usage"]["rate"] is None

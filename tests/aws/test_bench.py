"""``fdeploy bench`` and ``fdeploy cost`` against a stage on the double of AWS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.aws.stage import Open, Stage
from tests.conftest import Fdeploy
from tests.packaged import Model
from tests.terminal import in_terminal

FEW = ("--seconds", "15", "--clients", "1,2", "--requests", "8")


@pytest.fixture(scope="module")
def live(opened: Open, model: Model) -> Iterator[Stage]:
    """A stage with an API whose rate no test reaches; its account has a price list."""
    stage = opened(model, "")
    for setting, most in (("api.rate", "10000"), ("api.burst", "5000")):
        stage.run.ok("config", "set", setting, most)
    stage.double.behave(
        stage.account,
        price={"ml.m5.large": "0.1380000000"},
        serverless_price={"3": "0.0000600000"},
        function_price={"Lambda-GB-Second": "0.0000200000 0.0000150000", "Request": "0.0000002500"},
    )
    stage.run.ok("upload", "--region", "eu-central-1")
    stage.run.ok("deploy", "--instance", "ml.m5.large")
    stage.run.ok("create-api")
    yield stage
    stage.run.ok("teardown")


def test_nothing_is_sent_without_agreement(live: Stage) -> None:
    refused = live.run("bench", *FEW, "--json")
    assert refused.status == 2
    assert "nobody can be asked" in refused.error["message"]
    assert "--yes" in refused.error["hint"]
    assert not (live.folder / ".fdeploy/dev/bench.json").exists()
    variables = {"FDEPLOY_ENDPOINT_KIND": "serverless", "FDEPLOY_API_QUOTA": "900"}
    other = Fdeploy(live.folder, {**live.environ, **variables})
    said = other("bench", "--on", "api", *FEW).stderr
    # 15 s with one request at a time and 15 s with two, of 3 GB
    assert "at most 45 s of 3,072 MB, 0.0027 USD" in said
    assert "quota of 900 a day" in said


def test_a_terminal_asks_and_paints_the_levels(live: Stage) -> None:
    refused = in_terminal(live.run, "bench", *FEW, typed="n\n")
    assert refused.status == 2
    assert "Send load to demo-dev?" in refused.shown
    assert "no load was sent" in refused.shown
    agreed = in_terminal(live.run, "bench", *FEW, typed="y\n")
    assert agreed.status == 0, agreed.shown
    assert "2 clients ━" in agreed.shown
    assert "knee" in agreed.stdout


@pytest.mark.parametrize("on", ["endpoint", "api"])
def test_the_endpoint_and_the_api_are_measured(live: Stage, on: str) -> None:
    ran = live.run.ok("bench", "--on", on, *FEW, "--yes", "--json")
    found = ran.json
    assert [level["requests"] for level in found["levels"]] == [8, 8]
    assert [level["errors"] for level in found["levels"]] == [{}, {}]
    assert (found["instance"], found["instances"]) == ("ml.m5.large", 1)
    assert Decimal(found["cost_per_million"]) > 0
    target = found["advice"]["scaling_target"]
    assert f"fdeploy config set endpoint.scaling.target {target}" in found["advice"]["commands"]
    assert "0.138 USD per hour" in ran.stderr
    assert "at most 30 s" in ran.stderr


def test_cost_takes_the_measured_rate_and_asks_for_prices(live: Stage, tmp_path: Path) -> None:
    live.run.ok("bench", *FEW, "--yes")
    environ = {**live.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = Fdeploy(live.folder, environ)
    found = command.ok("cost", "--json").json
    # The prices that ship are older than a week, and AWS is asked for the stage anyway.
    assert found["source"].startswith("AWS Price List API")
    (bill,) = found["stages"]
    assert bill["stage"] == "dev"
    assert Decimal(bill["per_hour"]) == Decimal("0.138")
    assert Decimal(bill["this_month"]) == Decimal("0.00")
    assert found["usage"]["instance"] == "ml.m5.large"
    (only,) = found["instances"]
    assert only["chosen"]
    assert Decimal(only["per_million"]) > 0
    assert found["serverless"] is not None
    kept = json.loads((tmp_path / "fastai-deploy/prices/eu-central-1.json").read_bytes())
    assert kept["function"]["gb_second"] == "0.0000200000", "of the first tier"
    assert Decimal(kept["function"]["million_requests"]) == Decimal("0.25")
    assert any(note.endswith("GetProducts of AWSLambda") for note in found["notes"])
    shown = command.ok("cost").stdout
    assert "dev         0.138 USD per hour, 0.00 so far this month" in shown
    assert os.listdir(tmp_path / "fastai-deploy/prices") == ["eu-central-1.json"]


def test_offline_asks_nothing(live: Stage, tmp_path: Path) -> None:
    environ = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "XDG_CACHE_HOME": str(tmp_path)}
    found = Fdeploy(live.folder, environ).ok("cost", "--offline", "--json").json
    assert found["stages"] == []
    assert found["region"] == "eu-central-1"
    assert found["published"] == "2026-09-22"

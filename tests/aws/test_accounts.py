"""A stage stays in the account and the region of its last deploy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.aws.stage import Open, Stage, fresh_account
from tests.aws_double.process import REGION
from tests.conftest import Fdeploy
from tests.packaged import Model


def records(stage: Stage) -> set[str]:
    """The records of what is on AWS."""
    found = {path.stem for path in (stage.folder / ".fdeploy/dev").glob("*.json")}
    return found & {"upload", "deploy", "create-api"}


def bring_up(run: Fdeploy) -> None:
    run.ok("upload", "--region", REGION)
    for command in ("deploy", "create-api"):
        run.ok(command)


def with_account(stage: Stage, account: str) -> Fdeploy:
    """The same folder, with the credentials of another account."""
    return Fdeploy(stage.folder, Stage(stage.double, stage.folder, account).environ)


@pytest.fixture(scope="module")
def live(opened: Open, model: Model) -> Stage:
    """A stage that serves; nobody may change it."""
    stage = opened(model, "")
    bring_up(stage.run)
    return stage


COMMANDS = (
    *(("status",), ("plan",), ("upload",), ("deploy",), ("create-api",), ("rollback",)),
    *(("logs",), ("versions",), ("key",), ("key", "rotate"), ("invoke", "a great film")),
    *(("invoke", "a great film", "--api"), ("teardown",), ("teardown", "--region", "us-east-1")),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_another_accounts_credentials_are_refused(live: Stage, command: tuple[str, ...]) -> None:
    before, other = records(live), fresh_account()
    live.double.do_wrong(other)
    refused = with_account(live, other)(*command, "--json")
    if command == ("invoke", "a great film", "--api"):  # with the key alone, like any caller
        assert refused.status == 0
        return
    assert refused.status == 14, refused.stdout
    assert refused.error["code"] == "aws-wrong-account"
    assert live.account in refused.error["message"]
    assert other in refused.error["message"]
    assert "forget the deploy" in refused.error["hint"]
    assert refused.error["hint"].endswith(" --forget")
    assert {call["service"] for call in live.double.calls(other)} == {"sts"}
    assert records(live) == before


def test_the_doctor_says_so_too(live: Stage) -> None:
    checked = with_account(live, fresh_account())("doctor", "--json")
    assert checked.status == 13
    found = {check["name"]: check for check in checked.json["checks"]}
    assert found["credentials"]["outcome"] == "failed"
    assert live.account in found["credentials"]["message"]


def test_the_right_profile_is_named(live: Stage, tmp_path: Path) -> None:
    """If the user's configuration has one for the account."""
    config = tmp_path / "config"
    role = f"arn:aws:iam::{live.account}:role/deployer"
    config.write_text(f"[profile work]\nrole_arn = {role}\nsource_profile = default\n")
    run = with_account(live, fresh_account())
    run.environ["AWS_CONFIG_FILE"] = str(config)
    assert "AWS_PROFILE=work" in run("status", "--json").error["hint"]


def without_account(stage: Stage) -> None:
    """Write the records as an earlier version did."""
    for name in ("upload", "deploy", "create-api"):
        path = stage.folder / f".fdeploy/dev/{name}.json"
        values = json.loads(path.read_bytes())
        del values["account"]
        if name == "create-api":
            del values["region"]
        path.write_text(json.dumps(values))


def test_an_older_record_tells_its_account_by_its_bucket(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    bring_up(stage.run)
    without_account(stage)
    other = fresh_account()
    refused = with_account(stage, other)("teardown", "--json").error
    assert refused["code"] == "aws-wrong-account"
    assert stage.account in refused["message"]
    stage.run.ok("status")
    stage.run.ok("deploy")
    assert stage.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert records(stage) == set()
    assert stage.everything() == []


def test_an_older_record_of_ones_own_bucket_goes_on_working(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    stage.client("s3").create_bucket(
        Bucket=f"mine-{stage.account}", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    run = Fdeploy(
        stage.folder, {**stage.environ, "FDEPLOY_PROJECT_BUCKET": f"mine-{stage.account}"}
    )
    bring_up(run)
    without_account(stage)
    run.ok("status")
    assert run.ok("teardown", "--artifacts", "--json").json["left"] == []


def test_a_teardown_elsewhere_forgets_nothing(opened: Open, model: Model) -> None:
    """In another region, and on this machine."""
    stage = opened(model, "")
    bring_up(stage.run)
    key = stage.folder / ".fdeploy/dev/aws/key"
    before = records(stage)
    for elsewhere in (("--region", "us-east-1"), ("--target", "local")):
        outcome = stage.run("teardown", *elsewhere)
        assert outcome.status == 0, outcome.stderr
        assert f"the last deploy of this stage, to region {REGION}" in outcome.stderr
        assert f"run fdeploy teardown --target aws --region {REGION}" in outcome.stderr
        assert records(stage) == before
        assert key.exists()
    proof = stage.run.ok("teardown", "--artifacts", "--json").json
    assert (proof["account"], proof["region"]) == (stage.account, REGION)
    assert proof["left"] == []
    assert records(stage) == set()
    assert not key.exists()
    assert stage.everything() == []


def test_a_deploy_out_of_reach_is_forgotten(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    for command in ("upload", "deploy"):
        stage.run.ok(command, "--region", REGION)
    other = with_account(stage, fresh_account())
    outcome = other.ok("teardown", "--forget")
    assert f"account {stage.account}, region {REGION}) keeps running and costing" in outcome.stderr
    assert outcome.stdout == "forgot the records of this stage; nothing was deleted\n"
    assert records(stage) == set()
    other.ok("upload", "--region", REGION)
    again = other("teardown", "--forget", "--json").json
    assert again["forgotten"]
    assert other("teardown", "--forget", "--json").error["code"] == "usage"
    assert stage.run.ok("teardown", "--region", REGION, "--artifacts", "--json").json["left"] == []
    assert stage.everything() == []

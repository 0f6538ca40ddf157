"""The real commands against the double, as a user and as a script see them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from fastai_deploy.aws.templates.template import load
from tests.aws.stage import Open, Stage
from tests.aws_double.faults import Fault
from tests.aws_double.process import REGION, Double
from tests.conftest import ROOT, Fdeploy, result_of
from tests.packaged import Model, bring

AWS = ("--target", "aws")


@pytest.fixture(scope="module")
def live(opened: Open, model: Model) -> Stage:
    """A running stage; tests must not change it."""
    stage = opened(model, "")
    stage.double.behave(stage.account, price={"ml.m5.large": "0.138"}, quota={"ml.m5.large": 2})
    stage.run.ok("upload", "--region", REGION)
    stage.run.ok("deploy", "--ttl", "4h")
    stage.run.ok("create-api")
    return stage


def test_a_plan_says_what_would_change_and_what_it_costs(
    opened: Open, model: Model, live: Stage
) -> None:
    new = opened(model, "")
    new.double.behave(new.account, price={"ml.m5.large": "0.138"})
    planned = new.run("plan", "--region", REGION, "--json")
    assert planned.status == 15, planned.stderr
    plan = planned.json
    assert plan["changed"]
    assert {change["action"] for change in plan["changes"]} == {"add"}
    assert plan["cost"]["least_per_hour"] == "0.1380000000" or float(
        plan["cost"]["least_per_hour"]
    ) == pytest.approx(0.138)
    assert float(plan["cost"]["least_per_month"]) == pytest.approx(100.74)
    assert new.everything() == []

    unchanged = live.run("plan", "--ttl", "4h")
    assert unchanged.status == 0, unchanged.stderr
    assert "no changes: there is nothing to deploy" in unchanged.stdout
    assert "price       0.138 USD per hour, 100.74 per month" in unchanged.stdout


def test_the_end_of_a_stage_is_planned(opened: Open, model: Model, live: Stage) -> None:
    """The expiry stack in the plan: added, kept with another date, or removed with the setting."""
    new = opened(model, "").run("plan", "--region", REGION, "--ttl", "2d", "--json").json
    added = [each["name"] for each in new["changes"] if each["stack"] == "demo-dev-ttl"]
    assert added == ["DroppedAlarm", "EndApi", "EndEndpoint", "TtlGroup", "TtlRole"]
    assert new["ends"] > "2026"
    assert new["ends_now"] == ""

    moved = live.run("plan", "--ttl", "2d", "--json").json
    assert moved["changes"] == []
    assert moved["ends"] > moved["ends_now"] > "2026"

    remembered = live.run("plan", "--json")
    assert remembered.json["changes"] == [], "the deploy's --ttl 4h holds until another is given"
    assert remembered.json["ends"] > moved["ends_now"]

    forgotten = live.run("plan", "--ttl", "never")
    assert forgotten.status == 15
    lines = forgotten.stdout.splitlines()
    assert "demo-dev-ttl" in lines
    assert any(line.split()[:2] == ["remove", "Scheduler::Schedule"] for line in lines)
    assert f"ends        never, if deployed now; currently {moved['ends_now']}" in lines
    assert "when the stage deletes itself" in live.run.ok("status").stdout


def test_the_page_is_off_and_the_console_is_there(live: Stage) -> None:
    refused = live.run("open", "--json").error
    assert refused["code"] == "usage"
    assert refused["hint"].startswith("fdeploy config set api.page true")
    found = live.run.ok("open", "--console", "--json").json
    assert not found["opened"]
    assert found["url"].startswith(f"https://{REGION}.console.aws.amazon.com/cloudformation/")
    assert "filteringText=demo-dev-&" in found["url"]


def test_the_client_fetches_the_key_of_a_stage(live: Stage) -> None:
    api = json.loads((live.folder / ".fdeploy/dev/create-api.json").read_bytes())
    code = (
        "from fastai_deploy import Client; api = Client.of_stage()\n"
        "print(api.url, api._headers['x-api-key'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=live.folder,
        env={**os.environ, "PYTHONPATH": ROOT, **live.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    key = live.run.ok("key").stdout.strip()
    assert done.stdout.split() == [api["url"], key]


def test_what_the_settings_change_back_is_said_first(live: Stage) -> None:
    variables = {**live.environ, "FDEPLOY_PROJECT_TTL": "7d"}
    planned = Fdeploy(live.folder, variables)("plan")
    assert "project.ttl becomes 7d (FDEPLOY_PROJECT_TTL); the last deploy used --ttl 4h" in (
        planned.stderr
    )
    assert "add that flag to this command to keep it" in planned.stderr
    settings = live.run.ok("config").stdout
    assert any(line.split()[:2] == ["project.ttl", '"4h"'] for line in settings.splitlines())
    assert "--ttl of the last deploy" in settings


def test_an_update_is_planned_as_a_table(live: Stage, opened: Open, other_model: Model) -> None:
    other = opened(other_model, live.account)
    planned = other.run("plan", *AWS)
    assert planned.status == 15, planned.stderr
    lines = [line.split() for line in planned.stdout.splitlines()]
    assert ["change", "SageMaker::Endpoint", "Endpoint"] in [line[:3] for line in lines]
    assert ["interrupts", "nothing"] in lines


def test_the_status_of_a_stage(live: Stage) -> None:
    shown = live.run.ok("status").stdout
    assert "demo-dev, InService, 1 instance" in shown
    assert "when the stage deletes itself" in shown
    found = live.run.ok("status", "--json").json
    assert [part["state"] for part in found["parts"]] == ["CREATE_COMPLETE"] * 3
    assert found["url"].startswith("https://")
    assert float(found["bill"]["per_hour"]) == pytest.approx(0.138)


def test_logs_of_both(live: Stage) -> None:
    lines = live.run.ok("logs", "--json").stdout.splitlines()
    assert any(json.loads(result_of(line)["message"])["event"] == "ready" for line in lines)
    assert "/classify" in live.run.ok("logs", "--api", "--since", "2h").stdout
    assert live.run("logs", "--since", "soon", "--json").error["code"] == "usage"


def test_logs_are_followed_until_ctrl_c(live: Stage) -> None:
    with live.running("logs", "--follow") as following:
        assert following.stdout is not None
        while "ready" not in following.stdout.readline():
            pass
        following.send_signal(signal.SIGINT)
        _, errors = following.communicate(timeout=30)
    assert (following.returncode, errors) == (0, "")


def test_who_reads_no_further_is_no_defect(live: Stage) -> None:
    command = f"{sys.executable} -m fastai_deploy template | head -c 10"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=live.folder,
        env={**os.environ, **live.environ},
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"# aws clou"
    assert done.stderr == b""


def test_versions_and_the_stacks_and_the_permissions(live: Stage) -> None:
    (version,) = live.run.ok("versions", "--json").json["versions"]
    assert version["live"]
    assert version["bytes"] > 0
    stacks = live.run.ok("template", "--ttl", "never", "--json").json
    assert set(stacks) == {"demo-dev-endpoint", "demo-dev-api"}
    endpoint = load(stacks["demo-dev-endpoint"])
    assert endpoint["Resources"]["Endpoint"]["Type"].endswith("Endpoint")
    assert endpoint["Parameters"]["Version"]["Default"] == version["version"]
    ending = load(live.run.ok("template", "--ttl", "4h", "--json").json["demo-dev-ttl"])
    kinds = {each["Type"] for each in ending["Resources"].values()}
    assert "AWS::Scheduler::Schedule" in kinds
    policies = live.run.ok("doctor", "--policy", "--json").json
    assert set(policies) == {"stacks", "endpoint", "api", "data", "bucket", "images"}
    assert json.loads(live.run.ok("doctor", "--policy").stdout) == policies


def test_a_doctor_who_finds_nothing(live: Stage) -> None:
    checked = live.run.ok("doctor", "--json").json
    assert checked["ok"]
    outcomes = {check["name"]: check["outcome"] for check in checked["checks"]}
    # The model was not packed for an image, because the double's servers have the libraries.
    assert {name for name, outcome in outcomes.items() if outcome != "passed"} == {"artifact"}
    assert {"credentials", "bucket", "image", "quota", "limits", "artifact"} <= set(outcomes)


def test_what_was_deleted_by_hand_is_named(opened: Open, model: Model) -> None:
    """CloudFormation does not notice: its stacks are up to date, and so is the plan."""
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    stage.run.ok("deploy")
    stage.run.ok("create-api")
    gateway = stage.client("apigateway")
    (key,) = gateway.get_api_keys()["items"]
    gateway.delete_api_key(apiKey=key["id"])
    lost = stage.run("key", "--json").error
    assert lost["message"] == "somebody has deleted the API key of the stack demo-dev-api"
    assert lost["hint"] == "run fdeploy key rotate to make a new one"
    stage.run.ok("key", "rotate")
    stage.run.ok("invoke", "a great film", "--api")

    (api,) = gateway.get_rest_apis()["items"]
    gateway.delete_stage(restApiId=api["id"], stageName="dev")
    assert "fdeploy doctor" in stage.run("invoke", "text", "--api", "--json").error["hint"]
    stage.client("lambda").delete_function(FunctionName="demo-dev-api")
    stage.client("sagemaker").delete_endpoint(EndpointName="demo-dev")
    for planned in (stage.run("plan", "--json"), stage.run("doctor")):
        said = planned.stdout + planned.stderr
        for part in ("function demo-dev-api", f"{api['id']}/stages/dev", "endpoint demo-dev"):
            assert part in said
    refused = stage.run("create-api", "--json").error
    assert "somebody has deleted" in refused["message"]
    assert refused["hint"] == "run fdeploy teardown, then fdeploy up"
    assert stage.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert stage.everything() == []


def test_up_makes_nothing_that_no_api_can_ask(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    (stage.folder / "learner.pkl").write_bytes(b"never read")
    queue = {**stage.environ, "FDEPLOY_ENDPOINT_KIND": "async"}
    refused = Fdeploy(stage.folder, queue)("up", "learner.pkl", "--region", REGION, "--json")
    assert refused.error["code"] == "settings"
    assert "fdeploy deploy" in refused.error["hint"]
    assert stage.everything() == []


def test_a_key_that_another_machine_has_replaced(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    stage.run.ok("deploy")
    stage.run.ok("create-api")
    other = opened(model, stage.account)
    shutil.copytree(stage.folder, other.folder, dirs_exist_ok=True)
    other.run.ok("key", "rotate")
    refused = stage.run("invoke", "a great film", "--api", "--json").error
    assert "run fdeploy key," in refused["hint"]
    stage.run.ok("key")
    stage.run.ok("invoke", "a great film", "--api")


def test_an_api_is_not_proven_on_a_version_that_another_machine_deployed(
    opened: Open, model: Model, other_model: Model
) -> None:
    stage = opened(model, "")
    other = opened(other_model, stage.account)
    for each in (stage, other):
        each.run.ok("upload", "--region", REGION)
        each.run.ok("deploy")
    refused = stage.run("create-api", "--json").error
    assert refused["code"] == "parity"
    assert f"version {other_model.artifact.version} answers" in refused["hint"]
    assert "fdeploy deploy" in refused["hint"]
    assert "tolerance" not in refused["hint"]


def test_an_unchanged_deploy_says_so(live: Stage) -> None:
    again = live.run.ok("deploy", "--ttl", "4h", "--json")
    assert "demo-dev-endpoint is up to date" in again.stderr
    assert '"planned", "stack": "demo-dev-endpoint"' not in again.stderr


def test_back_and_forth_and_away(opened: Open, model: Model, other_model: Model) -> None:
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    # The later commands use the same region, whatever the environment says now.
    elsewhere = {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    run = Fdeploy(stage.folder, {**stage.environ, **elsewhere})
    first = run.ok("deploy", "--json").json
    second = opened(other_model, stage.account)
    second.run.ok("upload", "--region", REGION)
    assert second.run.ok("deploy", "--json").json["version"] != first["version"]
    back = run.ok("rollback", "--json").json
    assert back["version"] == first["version"]
    assert [v["live"] for v in run.ok("versions", "--json").json["versions"]] == [True, False]
    assert run("rollback", "--to", "ffff", "--json").error["code"] == "usage"

    begun = run.ok("teardown", "--no-wait", "--json").json
    assert begun["begun"] == ["stack demo-dev-endpoint"]
    assert (begun["deleted"], begun["left"]) == ([], [])
    proof = run.ok("teardown", "--json").json
    assert proof["left"] == []
    assert any(thing.startswith("artifact ") for thing in proof["kept"])
    assert run("teardown", "--artifacts", "--no-wait", "--json").error["code"] == "usage"
    assert run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert stage.everything() == []


def test_ctrl_c_says_what_goes_on_and_the_same_command_goes_on(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    stage.double.behave(stage.account, hold=True)
    with stage.running("deploy") as deploying:
        assert deploying.stderr is not None
        while "SageMaker::Endpoint Endpoint" not in deploying.stderr.readline():
            pass
        # A concurrent deploy by someone else says who is deploying.
        eve = Fdeploy(stage.folder.parent / "eve", {**stage.environ, "LOGNAME": "eve"})
        eve.folder.mkdir()
        bring(model, eve.folder)
        eve.ok("upload", "--region", REGION)
        busy = eve("deploy", "--json")
        deploying.send_signal(signal.SIGINT)
        _, errors = deploying.communicate(timeout=30)
    assert deploying.returncode == 130
    assert "AWS continues the operation in the background" in errors
    assert "run the same command again" in errors
    assert busy.error["code"] == "stack-busy"
    assert "is changing the stack demo-dev-endpoint" in busy.error["message"]
    with stage.running("deploy") as again:
        assert again.stderr is not None
        while "waiting for the running operation" not in again.stderr.readline():
            pass
        stage.double.behave(stage.account, hold=False)
        answer, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert "endpoint demo-dev, version" in answer


def error_of(stage: Stage, *arguments: str, **environ: str) -> dict[str, Any]:
    outcome = Fdeploy(stage.folder, {**stage.environ, **environ})(*arguments, "--json")
    assert outcome.status not in {0, 1}, outcome.stderr
    assert outcome.error["exit_code"] == outcome.status
    return outcome.error


@pytest.fixture(scope="module")
def stored(opened: Open, model: Model) -> Stage:
    """A stage whose artifact is stored, but not deployed."""
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    return stage


def test_a_policy_and_templates_need_no_credentials(stored: Stage) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    command = Fdeploy(stored.folder, {**stored.environ, **nobody})
    policies = command.ok("doctor", "--policy").stdout
    bucket = f"fdeploy-${{aws:PrincipalAccount}}-{REGION}"
    assert f'"arn:aws:s3:::{bucket}"' in policies
    signed_in = stored.run.ok("doctor", "--policy").stdout
    assert policies.replace("${aws:PrincipalAccount}", stored.account) == signed_in

    printed = command.ok("template").stdout
    endpoint, api = (load(each) for each in printed.split("\n---\n"))
    assert endpoint["Parameters"]["Bucket"]["Default"] == f"fdeploy-ACCOUNT-{REGION}"
    assert "Function" in api["Resources"]


def test_credentials_are_asked_for_before_the_export(stored: Stage) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    command = Fdeploy(stored.folder, {**stored.environ, **nobody})
    for name in ("up", "plan"):
        ran = command(name, "no-such.pkl")
        assert ran.status == 14
        assert "export" not in ran.stderr


@pytest.mark.parametrize("command", ["deploy", "status", "doctor", "teardown"])
def test_nobody_is_signed_in(stored: Stage, command: str) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    if command == "doctor":
        checked = Fdeploy(stored.folder, {**stored.environ, **nobody})("doctor", "--json")
        assert checked.status == 13
        (credentials, _artifact) = checked.json["checks"]
        assert credentials["outcome"] == "failed"
        assert "aws sso login" in credentials["hint"]
        return
    error = error_of(stored, command, **nobody)
    assert error["code"] == "aws-credentials"
    assert "aws sso login" in error["hint"]


def test_an_expired_token(stored: Stage) -> None:
    stored.double.do_wrong(stored.account, Fault("expire"))
    error = error_of(stored, "deploy")
    stored.double.do_wrong(stored.account)
    assert error["code"] == "aws-credentials"
    assert "have expired" in error["message"]


def test_a_region_that_does_not_exist(stored: Stage) -> None:
    error = error_of(stored, "upload", "--region", "eu-centrall-1")
    assert error["code"] == "aws-unreachable"
    assert "eu-central-1" in error["hint"]


def test_another_region_than_before_is_pointed_out(stored: Stage) -> None:
    outcome = stored.run("status", "--region", "us-east-1")
    assert "this command uses us-east-1, but the last deploy went to eu-central-1" in outcome.stderr


def test_a_missing_permission_is_named(stored: Stage) -> None:
    stored.double.do_wrong(stored.account, Fault("deny", operation="CreateChangeSet"))
    error = error_of(stored, "deploy")
    stored.double.do_wrong(stored.account)
    assert error["code"] == "aws-denied"
    assert "cloudformation:CreateChangeSet" in error["hint"]
    assert "fdeploy doctor --policy" in error["hint"]


def test_a_quota_of_0(stored: Stage) -> None:
    stored.double.behave(stored.account, quota={"ml.m5.large": 0})
    error = error_of(stored, "deploy")
    assert error["code"] == "aws-quota"
    assert "'ml.m5.large for endpoint usage'" in error["hint"]
    checked = stored.run("doctor", "--json")
    assert checked.status == 13
    stored.double.behave(stored.account, quota={})
    assert [c["name"] for c in checked.json["checks"] if c["outcome"] == "failed"] == ["quota"]


def test_an_instance_type_that_does_not_exist(stored: Stage) -> None:
    error = error_of(stored, "deploy", "--instance", "ml.m5.largest")
    assert error["code"] == "settings"
    assert "ml.m5.largest" in error["message"]


def test_a_bucket_of_another_account(stored: Stage, double: Double) -> None:
    make: Any = double.session("998877665544").client
    make("s3").create_bucket(
        Bucket="theirs-alone", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    error = error_of(stored, "upload", FDEPLOY_PROJECT_BUCKET="theirs-alone")
    assert error["code"] == "not-ours"
    assert "bucket in [project]" in error["hint"]


def test_a_name_that_is_too_long(stored: Stage) -> None:
    error = error_of(stored, "deploy", FDEPLOY_PROJECT_NAME="n" * 31)
    assert error["code"] == "settings"


def test_a_name_that_is_taken(opened: Open, model: Model) -> None:
    """By an endpoint that none of our stacks created, and by someone else's stack."""
    stage = opened(model, "")
    stage.run.ok("upload", "--region", REGION)
    stage.client("cloudformation").create_stack(
        StackName="demo-dev-endpoint",
        TemplateBody='{"Resources": {"G": {"Type": "AWS::Logs::LogGroup"}}}',
    )
    for command in (("plan",), ("deploy",), ("status",), ("teardown",)):
        error = error_of(stage, *command)
        assert error["code"] == "not-ours"
        assert "its tags do not mark it" in error["message"]
    assert "stack demo-dev-endpoint CREATE_COMPLETE" in stage.everything()


def test_an_artifact_that_was_deleted_from_s3(opened: Open, model: Model) -> None:
    stage = opened(model, "")
    uri = stage.run.ok("upload", "--region", REGION, "--json").json["uri"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    stage.client("s3").delete_object(Bucket=bucket, Key=key)
    error = error_of(stage, "deploy")
    assert (error["code"], error["hint"]) == ("file-missing", "run fdeploy upload")


def test_a_protected_stage_needs_a_word(stored: Stage) -> None:
    error = error_of(stored, "teardown", FDEPLOY_PROJECT_PROTECT="true")
    assert (error["code"], error["hint"]) == (
        "usage",
        "to delete it anyway, run fdeploy teardown --even-if-protected",
    )

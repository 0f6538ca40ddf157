from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastai_deploy.errors import NoProject, SettingsError, UnknownStage
from fastai_deploy.records import Endpoint
from fastai_deploy.settings import Settings, load_settings
from fastai_deploy.settings.docs import SCHEMA_FILE, json_schema
from fastai_deploy.settings.loading import remember
from fastai_deploy.workspace import Workspace
from tests.conftest import Fdeploy


def load(
    folder: Path,
    toml: str | None = None,
    *,
    environ: dict[str, str] | None = None,
    flags: dict[tuple[str, str], tuple[str, Any]] | None = None,
    stage: str | None = None,
    config: Path | None = None,
) -> Settings:
    if toml is not None:
        (folder / "fdeploy.toml").write_text(toml, encoding="utf-8")
    return load_settings(
        folder=folder, config=config, stage=stage, environ=environ or {}, flags=flags
    )


def origins(settings: Settings) -> dict[str, tuple[Any, str]]:
    return {
        ".".join(key): (value, origin.where)
        for key, value, origin in settings.values()
        if origin.kind != "default"
    }


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    folder = tmp_path / "My Project_1"
    folder.mkdir()
    settings = load(folder)
    assert settings.project_name == "my-project-1"
    assert (settings.target, settings.stage) == ("local", "dev")
    assert origins(settings) == {}


def test_later_sources_win_and_each_value_knows_its_own(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "[api]\nrate = 10\nburst = 20\nroute = '/a'\nmax_body = 2000\n"
        "[stages.prod.api]\nburst = 30\n",
        environ={"FDEPLOY_API_ROUTE": "/b", "FDEPLOY_API_MAX_BODY": "3000"},
        flags={("api", "max_body"): ("--max-body", 4000)},
        stage="prod",
    )
    assert origins(settings) == {
        "api.rate": (10, "fdeploy.toml:2"),
        "api.burst": (30, "fdeploy.toml:7"),
        "api.route": ("/b", "FDEPLOY_API_ROUTE"),
        "api.max_body": (4000, "--max-body"),
    }


def test_a_flag_that_was_not_given_changes_nothing(tmp_path: Path) -> None:
    settings = load(tmp_path, "[api]\nrate = 10\n", flags={("api", "rate"): ("--rate", None)})
    assert settings.sections.api.rate == 10


def test_lists_come_from_the_file_and_from_variables(tmp_path: Path) -> None:
    assert load(tmp_path, "[api]\ncors_origins = ['https://a']").sections.api.cors_origins == (
        "https://a",
    )
    settings = load(tmp_path, environ={"FDEPLOY_API_CORS_ORIGINS": "https://a,https://b"})
    assert settings.sections.api.cors_origins == ("https://a", "https://b")


@pytest.mark.parametrize(
    ("toml", "flags", "target", "reason"),
    [
        ("", {}, "local", "no region, instance or target is set"),
        ("[endpoint]\ninstance='ml.m5.large'", {}, "aws", "fdeploy.toml:2"),
        ("[project]\nregion='eu-central-1'", {}, "aws", "project.region"),
        ("", {("endpoint", "instance"): ("--instance", "ml.p2.xlarge")}, "aws", "--instance"),
        ("[project]\ntarget='local'", {}, "local", "fdeploy.toml:2"),
        (
            "[endpoint]\ninstance='ml.m5.large'",
            {("project", "target"): ("--target", "local")},
            "local",
            "--target",
        ),
    ],
)
def test_the_settings_decide_the_target_and_say_why(
    tmp_path: Path,
    toml: str,
    flags: dict[tuple[str, str], tuple[str, Any]],
    target: str,
    reason: str,
) -> None:
    settings = load(tmp_path, toml, flags=flags)
    assert settings.target == target
    assert reason in settings.target_reason


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        ("[endpoint]\ninstanc='x'", "fdeploy.toml:2: unknown setting endpoint.instanc", "instance"),
        ("\n[endpont]\n", "fdeploy.toml:2: unknown setting endpont", "endpoint"),
        ("[api]\nrate='10'", "fdeploy.toml:2: api.rate: expected a valid number", "Requests per"),
        ("[api]\n\nburst=true", "fdeploy.toml:3: api.burst: expected a valid integer", "at once"),
        ("[api]\ncors_origins='a'", "api.cors_origins: expected a valid list", "origins"),
        ("[stages.prod.api]\nport=99999", "fdeploy.toml:2: stages.prod.api.port", "Port"),
        ("[stages.prod.apii]\n", "fdeploy.toml:1: unknown setting stages.prod.apii", "api"),
        ("[stages.prod.api]\nrat=1", "fdeploy.toml:2: unknown setting stages.prod.api.rat", "rate"),
        ("api = {burts = 3}", "fdeploy.toml:1: unknown setting api.burts", "burst"),
        ("api.burts = 3", "fdeploy.toml:1: unknown setting api.burts", "burst"),
        ("stages = 3", "fdeploy.toml:1: stages", ""),
        ("[project]\nname='Bad Name'", "fdeploy.toml:2: project.name", "lower-case"),
        ("[api]\nrate=", "fdeploy.toml is not valid TOML", "line"),
        ("[project]\ntarget='local'\nregion='eu-central-1'", "needs AWS", "remove one"),
        ("[stages.UP.api]\n", "'UP' is not a valid stage name", "lower-case"),
    ],
)
def test_an_invalid_file_is_reported_with_line_key_and_hint(
    tmp_path: Path, toml: str, message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, toml)
    assert message in caught.value.message
    assert hint in caught.value.hint


LAMBDA = {("endpoint", "kind"): ("--lambda", "lambda")}


def test_the_flag_of_a_function_means_aws_and_the_setting_does_not(tmp_path: Path) -> None:
    typed = load(tmp_path, flags=LAMBDA)
    assert (typed.target, typed.sections.endpoint.kind) == ("aws", "lambda")
    assert "--lambda" in typed.target_reason
    assert load(tmp_path, '[endpoint]\nkind = "lambda"').target == "local"


def test_the_next_command_repeats_the_flag_of_a_function_until_an_instance_is_named(
    tmp_path: Path,
) -> None:
    last = {("endpoint", "kind"): "lambda"}
    again = remember(load(tmp_path, "[project]\nregion='eu-central-1'"), last)
    assert again.sections.endpoint.kind == "lambda"
    assert again.origins["endpoint", "kind"].where == "--lambda of the last deploy"
    named = {("endpoint", "instance"): ("--instance", "ml.m5.large")}
    back = remember(load(tmp_path, flags=named), last)
    assert back.sections.endpoint.kind == "real-time"


def test_a_function_has_no_instance_to_repeat(tmp_path: Path) -> None:
    last = {("endpoint", "instance"): "ml.m5.large"}
    typed = remember(load(tmp_path, flags=LAMBDA), last)
    assert (typed.sections.endpoint.instance, typed.reverted) == (None, ())
    written = remember(load(tmp_path, '[endpoint]\nkind = "lambda"'), last)
    assert written.reverted == ("a function has no instance; the last deploy used ml.m5.large",)


def test_what_was_deployed_to_aws_by_a_flag_is_found_again(fdeploy: Fdeploy) -> None:
    endpoint = Endpoint("aws", "demo-dev", "https://example.org", "ab", "ab")
    Workspace(fdeploy.folder, "dev").save(endpoint)
    command = Fdeploy(fdeploy.folder, {"AWS_DEFAULT_REGION": "eu-central-1"})
    found = command.ok("config", "--json").json
    assert found["target"] == "aws"
    assert found["target_reason"] == "the target of this stage's last deploy"
    assert command.ok("config", "--target", "local", "--json").json["target"] == "local"


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown setting FDEPLOY_API_RAT") as caught:
        load(tmp_path, environ={"FDEPLOY_API_RAT": "20"})
    assert "FDEPLOY_API_RATE" in caught.value.hint
    with pytest.raises(SettingsError, match=r"FDEPLOY_API_RATE: .*'many'"):
        load(tmp_path, environ={"FDEPLOY_API_RATE": "many"})


def test_a_wrong_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--instance: endpoint.instance"):
        load(tmp_path, flags={("endpoint", "instance"): ("--instance", "p2.xlarge")})


def test_an_unknown_stage_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownStage, match="there is no stage 'prd'; known: dev, prod") as caught:
        load(tmp_path, "[stages.prod.api]\nrate=1", stage="prd")
    assert "did you mean prod?" in caught.value.hint


def test_the_stage_may_come_from_the_environment(tmp_path: Path) -> None:
    settings = load(tmp_path, "[stages.prod]\n", environ={"FDEPLOY_STAGE": "prod"})
    assert settings.stage == "prod"


def test_a_named_project_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(NoProject, match=r"other.toml does not exist"):
        load(tmp_path, config=tmp_path / "other.toml")


def test_a_link_to_no_file_is_not_taken_for_no_settings(tmp_path: Path) -> None:
    (tmp_path / "fdeploy.toml").symlink_to("shared/fdeploy.toml")
    with pytest.raises(SettingsError, match=r"link to shared/fdeploy.toml, which does not exist"):
        load(tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "fdeploy.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(tmp_path)


def test_the_shipped_schema_is_current() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json_schema()


OLD = """\
[endpoint]
kind = "serverless"
serverless_memory = 4096
alarm_errors = 0.1

[stages.prod.endpoint]
serverless_memory = 6144
provisioned_concurrency = 2

[stages.prod.api]
alarm_client_errors = 0.25
"""


def test_settings_of_version_0_1_are_read_and_their_new_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "fdeploy.toml").write_text(OLD, encoding="utf-8")
    old = load_settings(folder=tmp_path, stage="prod", environ={"FDEPLOY_ENDPOINT_ALARM_IDLE": "0"})
    assert old.sections.endpoint.serverless.memory == 6144
    assert old.sections.endpoint.serverless.provisioned_concurrency == 2
    assert old.sections.endpoint.alarm_errors == 0.1
    assert old.sections.alarms.client_errors == 0.25
    assert old.sections.alarms.idle == 0
    assert old.origins["endpoint.serverless", "memory"].where == "fdeploy.toml:7"
    assert sorted(old.notes) == [
        "api.alarm_client_errors (fdeploy.toml:11) has moved: write client_errors in [alarms]",
        "endpoint.alarm_errors (fdeploy.toml:4) has moved: write errors in [alarms]",
        "endpoint.alarm_idle (FDEPLOY_ENDPOINT_ALARM_IDLE) has moved: write idle in [alarms]",
        (
            "endpoint.provisioned_concurrency (fdeploy.toml:8) has moved: "
            "write provisioned_concurrency in [endpoint.serverless]"
        ),
        (
            "endpoint.serverless_memory (fdeploy.toml:3) has moved: "
            "write memory in [endpoint.serverless]"
        ),
        (
            "endpoint.serverless_memory (fdeploy.toml:7) has moved: "
            "write memory in [endpoint.serverless]"
        ),
    ]


def test_settings_in_their_new_place_give_the_same_without_a_note(tmp_path: Path) -> None:
    (tmp_path / "fdeploy.toml").write_text(
        "[endpoint.serverless]\nmemory = 4096\n[stages.prod.endpoint.serverless]\nmemory = 6144\n"
        "[alarms]\nerrors = 0.2\n",
        encoding="utf-8",
    )
    environ = {"FDEPLOY_ENDPOINT_SERVERLESS_CONCURRENCY": "20"}
    found = load_settings(folder=tmp_path, stage="prod", environ=environ)
    assert found.sections.endpoint.serverless.memory == 6144
    assert found.sections.endpoint.serverless.concurrency == 20
    assert found.sections.alarms.errors == 0.2
    assert found.notes == ()
    keys = {".".join(key): origin.where for key, _, origin in found.values()}
    assert keys["endpoint.serverless.memory"] == "fdeploy.toml:4"
    assert "endpoint.alarm_errors" not in keys
    assert "endpoint.serverless" not in keys


def test_a_setting_in_both_places_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fdeploy.toml").write_text(
        "[endpoint]\nmax_instances = 2\n[endpoint.scaling]\nmax_instances = 3\n", encoding="utf-8"
    )
    with pytest.raises(
        SettingsError, match=r"fdeploy.toml:2: unknown setting endpoint.max_instances"
    ) as caught:
        load_settings(folder=tmp_path, environ={})
    assert caught.value.hint


def test_the_command_says_where_a_setting_belongs_now(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "fdeploy.toml").write_text(
        "[endpoint]\nmax_instances = 2\n", encoding="utf-8"
    )
    said = fdeploy.ok("config")
    assert "write max_instances in [endpoint.scaling]" in said.stderr
    assert "endpoint.scaling.max_instances" in said.stdout

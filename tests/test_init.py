"""``fdeploy init`` and ``fdeploy config set``: a project file without an editor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tomli

from tests.conftest import LEARNERS, Fdeploy
from tests.terminal import in_terminal

MODEL = LEARNERS / "v2/v2_hfwrapper_f2812_t523.pkl"


@pytest.fixture
def run(fdeploy: Fdeploy) -> Fdeploy:
    """A folder with one learner."""
    shutil.copy(MODEL, fdeploy.folder / "my model.pkl")
    return fdeploy


def document(folder: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = tomli.loads((folder / "fdeploy.toml").read_text("utf-8"))
    return found


def test_without_a_terminal_the_only_learner_is_taken(run: Fdeploy) -> None:
    found = run.ok("init", "--json").json
    assert (found["learner"], found["target"]) == ("my model.pkl", "local")
    assert document(run.folder)["model"] == {"learner": "my model.pkl"}
    assert (run.folder / ".fdeploy/fdeploy.schema.json").is_file()
    assert (run.folder / ".fdeploy/.gitignore").read_text() == "*\n"
    text = (run.folder / "fdeploy.toml").read_text("utf-8")
    assert text.startswith("#:schema .fdeploy/fdeploy.schema.json\n")
    assert run.ok("config", "--json").json["project"] == "project"


def test_every_line_that_is_commented_out_is_a_valid_setting(run: Fdeploy) -> None:
    run.ok("init")
    path = run.folder / "fdeploy.toml"
    lines = path.read_text("utf-8").splitlines()
    plain = [line.removeprefix("# ") if " = " in line or "# [" in line else line for line in lines]
    path.write_text("\n".join(plain) + "\n", "utf-8")
    settings = run.ok("config", "--stage", "prod", "--json").json["settings"]
    assert settings["endpoint.instance_count"]["value"] == 2


def test_a_region_selects_aws_and_gives_the_project_an_id(run: Fdeploy) -> None:
    run.ok("init", "--region", "eu-central-1", "--ttl", "4h", "--yes")
    project = document(run.folder)["project"]
    assert (project["region"], project["ttl"]) == ("eu-central-1", "4h")
    assert len(project["id"]) == 12


def test_what_cannot_be_used_is_told(run: Fdeploy) -> None:
    (run.folder / "broken.pkl").write_bytes(b"nothing")
    (run.folder / "my model.pkl").rename(run.folder / "a.pkl")
    found = {each["path"]: each for each in run.ok("init", "--json").json["found"]}
    assert found["broken.pkl"]["problem"]
    assert found["a.pkl"]["about"].startswith("RobertaForSequenceClassification, 3 labels")


def test_a_folder_with_another_programs_configuration_is_no_learner(run: Fdeploy) -> None:
    (run.folder / "site").mkdir()
    (run.folder / "site" / "config.json").write_text('{"port": 80}')
    found = run.ok("init", "--json").json
    assert found["learner"] == "my model.pkl"
    assert [each["path"] for each in found["found"] if not each["readable"]] == ["site/"]


def test_two_learners_are_asked_about_and_without_a_terminal_left_open(run: Fdeploy) -> None:
    shutil.copy(MODEL, run.folder / "b.pkl")
    assert run.ok("init", "--json").json["learner"] == ""
    (run.folder / "fdeploy.toml").unlink()
    asked = in_terminal(run, "init", typed="my model.pkl\n\n")
    assert asked.status == 0
    assert asked.shown.count("Learner (b.pkl, my model.pkl) [b.pkl]") == 1
    assert document(run.folder)["model"] == {"learner": "my model.pkl"}


def test_an_answer_that_is_no_region_is_asked_again(run: Fdeploy) -> None:
    asked = in_terminal(run, "init", typed="Frankfurt\neu-central-1\n2h\n")
    assert asked.status == 0
    assert "project.region: string should match" in asked.shown
    project = document(run.folder)["project"]
    assert (project["region"], project["ttl"]) == ("eu-central-1", "2h")


def test_a_file_that_is_there_stays(run: Fdeploy) -> None:
    (run.folder / "fdeploy.toml").write_text("# mine\n")
    refused = run("init", "--json")
    assert refused.status == 2
    assert "config set" in refused.error["hint"]
    assert (run.folder / "fdeploy.toml").read_text() == "# mine\n"


def test_a_setting_is_changed_and_the_comments_stay(run: Fdeploy) -> None:
    path = run.folder / "fdeploy.toml"
    path.write_text("# mine\r\n[api]\r\nrate = 5 # few\r\n# last\r\n", newline="")
    run.ok("config", "set", "api.rate", "20")
    run.ok("config", "set", "api.cors_origins", "https://a.example,https://b.example")
    run.ok("config", "set", "stages.prod.endpoint.instance", "ml.m5.large")
    assert path.read_bytes().decode() == (
        "# mine\r\n[api]\r\nrate = 20.0 # few\r\n"
        'cors_origins = ["https://a.example", "https://b.example"]\r\n# last\r\n\r\n'
        '[stages.prod.endpoint]\r\ninstance = "ml.m5.large"\r\n'
    )
    run.ok("config", "unset", "api.cors_origins")
    assert "cors_origins" not in path.read_text()
    assert run.ok("config", "--stage", "prod", "--json").json["target"] == "aws"


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("api.rat", "3", "did you mean api.rate?"),
        ("rate", "3", "api.rate"),
        ("api.rate", "many", "Requests per second"),
        ("api.route", "/health", "choose another route"),
        ("stages.prod.endpoint.canary", "true", "instance_count"),
    ],
)
def test_a_value_that_is_wrong_changes_nothing(
    run: Fdeploy, setting: str, value: str, told: str
) -> None:
    path = run.folder / "fdeploy.toml"
    path.write_text("[api]\nburst = 3\n")
    refused = run("config", "set", setting, value, "--json")
    assert refused.status == 3
    assert told in refused.error["hint"]
    assert path.read_text() == "[api]\nburst = 3\n"


def test_all_errors_of_a_file_are_told_at_once(run: Fdeploy) -> None:
    (run.folder / "fdeploy.toml").write_text(
        "[api]\nrate = 'x'\nbrst = 1\n[endpoint]\ninstance = 'm5'\n[mode]\n"
    )
    command = Fdeploy(run.folder, {"FDEPLOY_API_PORT": "many"})
    message = command("config", "--json").error["message"]
    assert message.startswith("5 settings are wrong:\n")
    for line in ("fdeploy.toml:2: api.rate", "fdeploy.toml:3: unknown setting api.brst"):
        assert line in message
    assert "(did you mean burst?)" in message
    assert "FDEPLOY_API_PORT" in message


def test_conflicts_are_told_at_once(run: Fdeploy) -> None:
    (run.folder / "fdeploy.toml").write_text(
        "[api]\nroute = '/health'\n[endpoint]\ncanary = true\n[project]\nttl='4h'\nprotect=true\n"
    )
    message = run("config", "--json").error["message"]
    assert message.startswith("3 settings are wrong:\n")


@pytest.mark.parametrize("text", ["", "\ufeff[api]\nrate = 3\n", "[api]\r\nrate = 3\r\n"])
def test_a_file_as_editors_write_it(run: Fdeploy, text: str) -> None:
    (run.folder / "fdeploy.toml").write_bytes(text.encode())
    rate = run.ok("config", "--json").json["settings"]["api.rate"]
    assert rate["value"] == (3 if text else 50)


def test_the_only_learner_of_a_folder_needs_no_name(run: Fdeploy) -> None:
    assert "using my model.pkl" in run.ok("inspect").stderr
    shutil.copy(MODEL, run.folder / "another.pkl")
    refused = run("inspect", "--json")
    assert refused.status == 2
    assert "another.pkl" in refused.error["hint"]


def test_a_file_of_a_newer_version_is_told_apart_from_a_typing_error(run: Fdeploy) -> None:
    (run.folder / "fdeploy.toml").write_text("[endpoint]\nquantum = true\n")
    assert "a newer one may know more" in run("config", "--json").error["hint"]

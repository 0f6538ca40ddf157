"""A stage has an owner: projects of the same name never touch each other's stacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli

from tests.aws.stage import Stage, fresh_account
from tests.aws_double.process import REGION, Double
from tests.conftest import Fdeploy
from tests.packaged import Model, bring
from tests.terminal import Session, in_terminal


@dataclass(frozen=True)
class Folder:
    """A project folder called ``sentiment`` in which ``package`` has run, and an account."""

    double: Double
    path: Path
    account: str

    @property
    def stage(self) -> Stage:
        return Stage(self.double, self.path, self.account)

    @property
    def run(self) -> Fdeploy:
        return Fdeploy(self.path, self.double.environment(self.account))

    def typed(self, answer: str, *arguments: str) -> Session:
        return in_terminal(self.run, *arguments, typed=f"{answer}\n")

    @property
    def settings(self) -> Mapping[str, str]:
        """The table [project] of fdeploy.toml."""
        path = self.path / "fdeploy.toml"
        found: Mapping[str, str] = tomli.loads(path.read_text()).get("project", {})
        return found if path.exists() else {}

    def tags(self, stack: str) -> Mapping[str, str]:
        formation = self.stage.client("cloudformation")
        found = formation.describe_stacks(StackName=f"sentiment-dev-{stack}")["Stacks"][0]
        return {tag["Key"]: tag["Value"] for tag in found["Tags"]}


class Folders:
    """Makes folders of one name in one account."""

    def __init__(self, double: Double, root: Path, model: Model) -> None:
        self._double, self._root, self._model = double, root, model
        self.account = fresh_account()

    def make(self, whose: str, toml: str = "") -> Folder:
        path = self._root / whose / "sentiment"
        path.mkdir(parents=True)
        bring(self._model, path)
        if toml:
            (path / "fdeploy.toml").write_text(toml)
        return Folder(self._double, path, self.account)


@pytest.fixture
def folders(double: Double, tmp_path: Path, model: Model) -> Folders:
    return Folders(double, tmp_path, model)


def with_id(digit: str) -> str:
    return f'[project]\nname = "sentiment"\nid = "{digit * 12}"\n'


def test_the_first_deploy_in_a_terminal_asks_and_makes_an_id(folders: Folders) -> None:
    ada = folders.make("ada", "# ours\n[api]\nrate = 3\n")
    ada.double.behave(ada.account, price={"ml.m5.large": "0.138"})
    ada.run.ok("upload", "--region", REGION)
    before = (ada.path / "fdeploy.toml").read_text()

    no = ada.typed("n", "deploy", "--ttl", "4h")
    assert no.status == 2
    for said in (
        f"account {ada.account} (arn:aws:",
        f"region {REGION}",
        "project sentiment, stage dev, id ",
        "costs 0.138 USD per hour, 100.74 per month, until it deletes itself after 4h",
        f"Make the stage dev in account {ada.account}, {REGION}? [y/N]",
        "the stage dev was not made",
    ):
        assert said in no.shown
    assert (ada.path / "fdeploy.toml").read_text() == before
    assert not any(each.startswith("stack") for each in ada.stage.everything())

    yes = ada.typed("y", "deploy")
    assert yes.status == 0, yes.shown
    id_ = ada.settings["id"]
    assert ada.settings == {"name": "sentiment", "id": id_}
    assert (ada.path / "fdeploy.toml").read_text().startswith(before)
    assert f'wrote name = "sentiment", id = "{id_}" to {ada.path}/fdeploy.toml' in yes.shown
    assert ada.tags("endpoint")["fdeploy:id"] == id_
    again = ada.typed("", "deploy")
    assert again.status == 0
    assert "[y/N]" not in again.shown
    ada.run.ok("create-api")
    assert ada.tags("api")["fdeploy:id"] == id_
    sagemaker = ada.stage.client("sagemaker")
    arn = sagemaker.describe_endpoint(EndpointName="sentiment-dev")["EndpointArn"]
    assert {"Key": "fdeploy:id", "Value": id_} in sagemaker.list_tags(ResourceArn=arn)["Tags"]

    # A teardown asks as well, with what it deletes.
    kept = ada.typed("", "teardown", "--artifacts")
    assert kept.status == 2
    for said in (
        "deletes endpoint sentiment-dev",
        "deletes stack sentiment-dev-api, sentiment-dev-endpoint",
        f"of stage dev in account {ada.account}, {REGION}? [y/N]",
        "nothing was deleted",
    ):
        assert said in kept.shown
    assert ada.run.ok("status", "--json").json["endpoint_status"] == "InService"
    begun = ada.typed("n", "teardown", "--no-wait")
    assert begun.status == 2
    assert "Delete 2 resources of stage dev" in begun.shown
    gone = ada.typed("y", "teardown", "--artifacts")
    assert gone.status == 0, gone.shown
    assert ada.stage.everything() == []
    none = ada.typed("", "teardown", "--region", REGION)
    assert none.status == 0
    assert f"nothing to delete in account {ada.account}, region {REGION}" in none.stdout


def test_what_the_settings_change_back_is_asked(folders: Folders) -> None:
    """A deploy that would quietly end a stage's time to live, or move it to another instance."""
    ada = folders.make("ada")
    ada.run.ok("upload", "--region", REGION)
    assert ada.typed("", "deploy", "--yes", "--ttl", "4h").status == 0
    project = ada.path / "fdeploy.toml"
    project.write_text(project.read_text() + 'ttl = "7d"\n')
    ends = ada.run.ok("status", "--json").json["ends"]

    no = ada.typed("n", "deploy")
    assert no.status == 2
    assert "project.ttl becomes 7d (fdeploy.toml:4); the last deploy used --ttl 4h" in no.shown
    assert "Change this back? [y/N]" in no.shown
    assert ada.run.ok("status", "--json").json["ends"] == ends

    kept = ada.typed("", "deploy", "--ttl", "4h")
    assert kept.status == 0
    assert "[y/N]" not in kept.shown
    yes = ada.typed("y", "deploy")
    assert yes.status == 0, yes.shown
    assert ada.run.ok("status", "--json").json["ends"] > ends
    ada.run.ok("teardown", "--artifacts")


def test_yes_skips_the_question_and_nothing_else(folders: Folders) -> None:
    ada = folders.make("ada")
    ada.run.ok("upload", "--region", REGION)
    made = ada.typed("", "deploy", "--yes")
    assert made.status == 0, made.shown
    assert "[y/N]" not in made.shown
    assert ada.tags("endpoint")["fdeploy:id"] == ada.settings["id"]
    protected = Fdeploy(ada.path, {**ada.run.environ, "FDEPLOY_PROJECT_PROTECT": "true"})
    refused = in_terminal(protected, "teardown", "--yes")
    assert refused.status == 2
    assert "run fdeploy teardown --even-if-protected" in refused.shown
    gone = in_terminal(protected, "teardown", "--yes", "--even-if-protected", "--artifacts")
    assert gone.status == 0, gone.shown
    assert "[y/N]" not in gone.shown
    assert ada.stage.everything() == []


def test_without_a_terminal_no_id_is_made(folders: Folders) -> None:
    """The line to commit is printed; fresh checkouts go on without it, and later with it."""
    ci = folders.make("ci", '[project]\nname = "sentiment"\n')
    ci.run.ok("upload", "--region", REGION)
    made = ci.run.ok("deploy")
    assert "the stage dev gets no id" in made.stderr
    assert "id" not in ci.settings
    assert "fdeploy:id" not in ci.tags("endpoint")
    line = made.stderr.partition("--adopt once: ")[2].partition(")")[0]
    assert tomli.loads(line).keys() == {"id"}

    fresh = folders.make("fresh", f'[project]\nname = "sentiment"\nregion = "{REGION}"\n')
    assert fresh.run.ok("status", "--json").json["endpoint"] == "sentiment-dev"
    committed = folders.make(
        "committed", f'[project]\nname = "sentiment"\nregion = "{REGION}"\n{line}\n'
    )
    committed.run.ok("status")
    committed.run.ok("upload")
    for command in ("deploy", "rollback", "teardown"):
        refused = committed.run(command, "--json")
        assert refused.error["code"] == "not-ours", command
        assert "has no id" in refused.error["message"]
    no = committed.typed("n", "deploy")
    assert "The stage dev of project sentiment exists and has no id." in no.shown
    assert no.status == 14
    committed.run.ok("deploy", "--adopt")
    assert committed.tags("endpoint")["fdeploy:id"] == committed.settings["id"]
    committed.run.ok("deploy")
    assert ci.run("status", "--json").error["code"] == "not-ours"
    # In CI a fresh checkout tears its stage down.
    other = folders.make("other", (committed.path / "fdeploy.toml").read_text())
    assert other.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert other.stage.everything() == []


def test_two_projects_of_one_name_do_not_touch_each_other(folders: Folders) -> None:
    ada, eve = folders.make("ada", with_id("a")), folders.make("eve", with_id("e"))
    nobody = folders.make("nobody")
    for each in (ada, eve, nobody):
        each.run.ok("upload", "--region", REGION)
    ada.run.ok("deploy")
    ada.run.ok("create-api")
    before = ada.stage.everything()
    for other in (eve, nobody):
        for command in (
            *(("deploy",), ("plan",), ("status",), ("versions",), ("rollback",), ("logs",)),
            *(("logs", "--api"), ("teardown",), ("teardown", "--no-wait"), ("teardown", "--yes")),
        ):
            refused = other.run(*command, "--json")
            assert refused.status == 14, (command, refused.stderr)
            assert refused.error["code"] == "not-ours"
            assert f"its id is {'a' * 12}" in refused.error["message"]
            hint = refused.error["hint"]
            assert ("fdeploy deploy --adopt" if other is eve else f'id = "{"a" * 12}"') in hint
    assert ada.stage.everything() == before

    # In a terminal, a folder without an id that adopts takes the id over.
    taken = nobody.typed("", "deploy", "--adopt")
    assert taken.status == 0, taken.shown
    assert nobody.settings == {"name": "sentiment", "id": "a" * 12}
    ada.run.ok("status")

    eve.run.ok("deploy", "--adopt")
    assert eve.tags("endpoint")["fdeploy:id"] == "e" * 12
    assert ada.run("deploy", "--json").error["code"] == "not-ours"
    eve.run.ok("create-api", "--adopt")
    assert eve.tags("api")["fdeploy:id"] == "e" * 12
    assert eve.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert eve.stage.everything() == []


def test_a_stage_without_an_id_is_taken_over_by_a_yes(folders: Folders) -> None:
    old, ada = folders.make("old"), folders.make("ada", with_id("a"))
    old.run.ok("upload", "--region", REGION)
    old.run.ok("deploy")
    old.run.ok("create-api")
    ada.run.ok("upload", "--region", REGION)
    taken = ada.typed("y", "deploy")
    assert taken.status == 0, taken.shown
    assert "Is it this project's? [y/N]" in taken.shown
    assert ada.tags("endpoint")["fdeploy:id"] == "a" * 12
    # The other stack comes along without another question.
    ada.run.ok("create-api")
    assert ada.tags("api")["fdeploy:id"] == "a" * 12
    assert ada.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert ada.stage.everything() == []


def test_a_renamed_folder_keeps_its_stage(folders: Folders) -> None:
    """By its file, or without one by the record of the last deploy."""
    old = folders.make("old")
    old.run.ok("upload", "--region", REGION)
    old.run.ok("deploy")
    moved = Folder(old.double, old.path.rename(old.path.with_name("mood")), old.account)
    assert moved.run.ok("status", "--json").json["endpoint"] == "sentiment-dev"
    renamed = Fdeploy(moved.path, {**moved.run.environ, "FDEPLOY_PROJECT_NAME": "mood"})
    elsewhere = renamed.ok("teardown")
    assert "the project is now called mood, but the last deploy of this stage was of sentiment" in (
        elsewhere.stderr
    )
    assert "nothing to delete" in elsewhere.stdout
    assert moved.run.ok("teardown", "--artifacts", "--json").json["left"] == []
    assert moved.stage.everything() == []


def test_a_renamed_project_does_not_deploy_what_the_old_one_may_delete(folders: Folders) -> None:
    old = folders.make("old")
    old.run.ok("upload", "--region", REGION)
    renamed = Fdeploy(old.path, {**old.run.environ, "FDEPLOY_PROJECT_NAME": "mood"})
    refused = renamed("deploy", "--json").error
    assert refused["code"] == "record-stale"
    assert "uploaded for project sentiment" in refused["message"]
    assert refused["hint"] == "run fdeploy upload"
    stored = renamed.ok("upload", "--json").json["uri"]
    assert "/fdeploy/mood/models/" in stored


def test_nothing_is_found_outside_of_a_project(folders: Folders, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    run = Fdeploy(empty, folders.make("ada").run.environ)
    for command in ("status", "teardown"):
        error = run(command, "--region", REGION, "--json").error
        assert error["code"] == "no-project"
        assert (
            f"in account {folders.account}, region {REGION} for project empty, stage dev"
            in (error["message"])
        )

"""Help, other names of commands, suggestions and completion, through the real command."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from fastai_deploy.cli.command_help import ALIASES, PANELS, suggestion
from fastai_deploy.cli.commands import app
from tests.conftest import Fdeploy

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_help_lists_every_command_in_its_panel(fdeploy: Fdeploy) -> None:
    shown = fdeploy.ok("--help").stdout
    listed = re.findall(r"^  ([a-z][a-z-]+)  +[A-Z]", shown, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    assert [panel for panel in PANELS if f"\n{panel}:\n" in shown] == list(PANELS)
    assert fdeploy.ok("help").stdout == shown
    assert fdeploy.ok("help", "deploy").stdout == fdeploy.ok("deploy", "--help").stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_examples_that_it_can_read(name: str) -> None:
    command = COMMANDS[name]
    examples = command.epilog.splitlines()
    assert examples
    for line in examples:
        words = shlex.split(re.sub(r"^.*\| | > .*$", "", line))
        assert words[:2] == ["fdeploy", name]
        assert command.make_context(name, words[2:]).command is command


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_another_name_does_the_same(fdeploy: Fdeploy, alias: str) -> None:
    (fdeploy.folder / "fdeploy.toml").touch()
    assert fdeploy.ok(alias, "--json").stdout == fdeploy.ok("teardown", "--json").stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("depoly", "deploy"),
        ("stat", "status"),
        ("tear-down", "teardown"),
        ("detroy", "teardown"),
        ("predict", "invoke"),
        ("undeploy", "teardown"),
        ("rm", "teardown"),
        ("unup", None),
        ("unupload", None),
        ("redeploy", None),
        ("xyzzy", None),
    ],
)
def test_a_suggestion_is_never_the_opposite(typed: str, meant: str | None) -> None:
    assert suggestion(typed, list(COMMANDS)) == meant


def test_an_unknown_command_says_what_may_be_meant(fdeploy: Fdeploy) -> None:
    refused = fdeploy("undeploy", "--json")
    assert refused.status == 2
    assert refused.error["hint"] == "did you mean fdeploy teardown?"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("fdeploy tear", ["teardown"]),
        ("fdeploy up --stage ", ["dev", "prod"]),
        ("fdeploy export ", ["models/", "my.pkl"]),
        ("fdeploy export models/", ["models/deep.pkl"]),
        ("fdeploy deploy --instance ml.p2.x", ["ml.p2.xlarge"]),
        ("fdeploy explain record-", ["record-missing", "record-stale"]),
        ("fdeploy config set api.rat", ["api.rate"]),
    ],
)
def test_a_shell_completes(fdeploy: Fdeploy, typed: str, expected: list[str]) -> None:
    (fdeploy.folder / "fdeploy.toml").write_text("[stages.prod]\n", encoding="utf-8")
    (fdeploy.folder / "models").mkdir()
    for name in ("my.pkl", "models/deep.pkl", "other.txt"):
        (fdeploy.folder / name).touch()
    at = len(typed.split()) - (not typed.endswith(" "))
    environ = {"_FDEPLOY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(at)}
    shown = Fdeploy(fdeploy.folder, environ, fresh=True)()
    assert shown.stdout.split() == expected


def test_instance_types_are_completed_with_their_price(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "fdeploy.toml").write_text('[project]\nregion = "eu-west-1"\n')
    environ = {
        "_FDEPLOY_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "fdeploy deploy --instance ml.m5.l",
        "XDG_CACHE_HOME": str(fdeploy.folder / "cache"),
    }
    shown = Fdeploy(fdeploy.folder, environ, fresh=True)().stdout
    assert "ml.m5.large" in shown
    assert "0.128 USD/h in eu-west-1" in shown


def test_a_broken_project_file_does_not_break_completion(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "fdeploy.toml").write_text("[[", encoding="utf-8")
    environ = {
        "_FDEPLOY_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "fdeploy up --stage ",
    }
    shown = Fdeploy(fdeploy.folder, environ, fresh=True)()
    assert (shown.status, shown.stderr) == (0, "")
    assert "dev" in shown.stdout


def test_the_next_command_is_named_on_stderr(fdeploy: Fdeploy) -> None:
    model = str(Path(__file__).parent / "learners/v2/v2_hfwrapper_f2812_t523.pkl")
    done = fdeploy.ok("init", model, "--stage", "dev")
    assert done.stderr.splitlines()[-1].startswith("next: fdeploy up ")
    assert "--stage dev" in done.stderr
    assert "next:" not in fdeploy("config", "--quiet").stderr


STARTING = """
import sys
from fastai_deploy.cli import main
sys.addaudithook(
    lambda event, args:
    event == "import" and args[0] == "fastai_deploy.cli.app" and print(flush=True)
)
main()
"""


def test_ctrl_c_while_the_libraries_are_imported_is_silent(tmp_path: Path) -> None:
    """The signal comes when the imports begin, or later; whatever the command does, it is quiet."""
    for wait in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        with subprocess.Popen(
            [sys.executable, "-c", STARTING, "config", "--json"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)  # not to synchronise: the moment is what is tried
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode in (130, 0)
        assert "Traceback" not in err
        assert process.returncode == 130 or out


def test_a_file_whose_name_begins_with_a_dash(fdeploy: Fdeploy) -> None:
    (fdeploy.folder / "-new.pkl").write_bytes(b"")
    refused = fdeploy("inspect", "-new.pkl", "--stage", "prod")
    assert (refused.status, refused.stdout) == (2, "")
    assert "try: fdeploy inspect ./-new.pkl --stage prod" in refused.stderr
    assert "try: fdeploy inspect --help" in fdeploy("inspect", "-" + 5_000 * "a").stderr
